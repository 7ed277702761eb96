"""The state of a run: keys, paths, typed models, edits that happen as a whole or not at all."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, computed_field

from agentflow import (
    Context,
    Event,
    StartEvent,
    StateKeyError,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowValidationError,
    step,
)
from agentflow.store import DictState, StateStore


class Address(BaseModel):
    city: str = ""
    tags: list[str] = []


class Profile(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = "nobody"
    address: Address = Address()
    scores: dict[str, int] = {}

    @cached_property
    def initial(self) -> str:
        return self.name[:1]

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way to write it
    @property
    def city(self) -> str:
        return self.address.city


class Strict(BaseModel):
    count: int = 0

    @property
    def doubled(self) -> int:
        return self.count * 2

    @doubled.setter
    def doubled(self, value: int) -> None:
        self.count = value // 2


class Tick(Event):
    n: int = 0


async def test_a_step_reads_what_another_one_set() -> None:
    """`ctx.get` and `ctx.set`, as the documents have them, and the same state seen through the handler."""

    class Flow(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> Tick:
            await ctx.set("data", [1, 2, 3])
            return Tick()

        @step
        async def second(self, ctx: Context, ev: Tick) -> StopEvent:
            return StopEvent(result=(await ctx.get("data"))[1])

    handler = Flow().run()
    assert await handler == 2
    assert await handler.ctx.get("data") == [1, 2, 3]


async def test_get_and_set_take_the_key_as_it_is() -> None:
    """A dot in it means nothing; paths belong to `ctx.store`."""
    ctx: Context = Context(_Any())
    await ctx.set("a.b", 1)
    assert await ctx.get("a.b") == 1
    assert await ctx.store.get("a", default=None) is None
    await ctx.store.set("a.b", 2)
    assert await ctx.get("a") == {"b": 2}
    assert await ctx.get("a.b") == 1


async def test_a_missing_key_says_which_there_are_and_how_to_read_what_may_lack() -> None:
    """The error is a KeyError and a ValueError too: users of the peers catch either."""
    ctx: Context = Context(_Any())
    await ctx.set("color", "red")
    with pytest.raises(
        StateKeyError, match=r"the state has no 'colour'. It has: \['color'\]. .*default=None"
    ) as caught:
        await ctx.get("colour")
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ValueError)
    assert await ctx.get("colour", default=None) is None
    assert await ctx.get("colour", "blue") == "blue"
    with pytest.raises(StateKeyError, match=r"the state has no 'color\.depth'"):
        await ctx.store.get("color.depth")


async def test_paths_go_through_dicts_lists_and_models() -> None:
    """Reading and writing; negative indexes count from the end; dicts on the way are made."""
    store: StateStore[Profile] = StateStore(Profile)
    await store.set("address.city", "Rome")
    await store.set("address.tags", ["a", "b"])
    await store.set("address.tags.-1", "z")
    await store.set("scores.chess", 3)
    await store.set("free.deep.er", 1)
    assert await store.get("address.tags.0") == "a"
    assert await store.get("address.tags.1") == "z"
    assert await store.get("scores.chess") == 3
    assert await store.get("free.deep") == {"er": 1}
    assert await store.get("city") == "Rome"
    assert await store.get("initial") == "n"
    assert await store.get("address.tags.2", default="none") == "none"
    assert await store.get("address.tags.first", default="none") == "none"
    assert await store.get("address.tags.²", default="none") == "none"


@pytest.mark.parametrize("path", ["items.7", "items.x", "items.--1", "pair.0", "number.x", "nothing.x"])
async def test_a_path_that_leads_nowhere_cannot_be_set(path: str) -> None:
    """What is in the way is named; nothing is changed."""
    store: StateStore[DictState] = StateStore()
    await store.set_state({"items": [1], "pair": (1, 2), "number": 5, "nothing": None})
    with pytest.raises(StateKeyError, match=r"items and none at|cannot be set in the state: what should hold it is"):
        await store.set(path, 9)
    assert await store.get_state() == {"items": [1], "pair": (1, 2), "number": 5, "nothing": None}


async def test_the_methods_of_a_model_are_no_part_of_the_state() -> None:
    """A key that happens to name one is missing like any other."""
    store: StateStore[Strict] = StateStore(Strict)
    for name in ("copy", "model_dump", "model_fields", "__class__"):
        with pytest.raises(StateKeyError, match=r"It has: \['count'\]"):
            store.read(name)
    assert store.read("doubled") == 0


async def test_a_typed_state_refuses_keys_that_its_model_lacks() -> None:
    """Unless the model takes free ones; a property with a setter is set as written."""
    store: StateStore[Strict] = StateStore(Strict)
    with pytest.raises(StateKeyError, match=r"the state Strict has no field 'cuont'. It has: \['count'\]"):
        await store.write("cuont", 1)
    await store.write("doubled", 8)
    assert store.read("count") == 4
    free: StateStore[Profile] = StateStore(Profile)
    await free.write("nick", "Bo")
    assert free.read("nick") == "Bo"


async def test_a_typed_context_starts_with_the_defaults_of_its_model() -> None:
    """`Context[State]` in one step is enough; the others share it."""

    class Flow(Workflow):
        @step
        async def first(self, ctx: Context[Profile], ev: StartEvent) -> Tick:
            async with ctx.store.edit_state() as state:
                assert isinstance(state, Profile)
                state.scores["go"] = 1
            return Tick()

        @step
        async def second(self, ctx: Context, ev: Tick) -> StopEvent:
            await ctx.set("name", "Ann")
            return StopEvent(result=await ctx.store.get_state())

    one, other = Flow().run(), Flow().run()
    assert await one == Profile(name="Ann", scores={"go": 1})
    assert await other == Profile(name="Ann", scores={"go": 1})
    assert Profile() == Profile(name="nobody", scores={})


async def test_a_state_model_whose_fields_have_no_defaults_is_refused() -> None:
    """A run starts with nobody to fill them."""

    class Needy(BaseModel):
        size: int

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context[Needy], ev: StartEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError, match=r"'size' has no default. Write: size: int = \.\.\."):
        Flow().validate()


async def test_a_dict_state_has_attributes() -> None:
    """For those who write `state.counter` in `edit_state`."""
    store: StateStore[DictState] = StateStore()
    async with store.edit_state() as state:
        state.counter = 1
        state["other"] = state.counter + 1
        with pytest.raises(AttributeError):
            _ = state.missing
        with pytest.raises(AttributeError):
            del state.missing
        state.gone = 1
        del state.gone
    assert await store.get_state() == {"counter": 1, "other": 2}


async def test_what_get_state_returns_is_a_copy() -> None:
    """Changing it changes nothing, however deep."""
    store: StateStore[Profile] = StateStore(Profile)
    await store.set("free", {"list": [1]})
    state = await store.get_state()
    state.address.tags.append("x")
    state.scores["x"] = 1
    state.model_extra["free"]["list"].append(2)  # type: ignore[index]  # the model takes free fields
    assert await store.get_state() == Profile(free={"list": [1]})  # type: ignore[call-arg]  # the model takes free fields


async def test_the_state_is_replaced_and_cleared_as_a_whole() -> None:
    """Only by its own type."""
    store: StateStore[Strict] = StateStore(Strict)
    await store.set_state(Strict(count=3))
    assert store.read("count") == 3
    with pytest.raises(WorkflowRuntimeError, match=r"the state of this workflow is a Strict, not \{'count': 4\}"):
        await store.set_state({"count": 4})
    await store.clear()
    assert await store.get_state() == Strict()
    free: StateStore[DictState] = StateStore()
    await free.set_state({"a": 1})
    with pytest.raises(WorkflowRuntimeError, match="the state of this workflow is a dict, not 'a'"):
        await free.set_state("a")  # type: ignore[arg-type]  # the mistake under test
    assert free.read("a") == 1
    await free.clear()
    assert await free.get_state() == {}


async def test_an_edit_that_fails_changes_nothing() -> None:
    """Neither at the top nor deep inside, whatever ended it."""
    store: StateStore[Profile] = StateStore(Profile)
    await store.set("address.tags", ["a"])
    await store.set("free", [[1]])
    for error in (ValueError, KeyboardInterrupt, asyncio.CancelledError):

        async def fail(error: type[BaseException] = error) -> None:
            async with store.edit_state() as state:
                state.name = "changed"
                state.address.tags.append("b")
                state.free[0].append(2)  # type: ignore[attr-defined]  # the model takes free fields
                await store.set("scores.x", 1)
                raise error

        with pytest.raises(error):
            await fail()
        assert await store.get_state() == Profile(address=Address(tags=["a"]), free=[[1]])  # type: ignore[call-arg]  # as above


async def test_an_edit_is_seen_by_others_only_when_it_is_complete() -> None:
    """The editor sees its own changes at once, through every door; another writer waits."""
    store: StateStore[DictState] = StateStore()
    await store.write("n", 1)
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def edit() -> None:
        async with store.edit_state() as state:
            state.n = 2
            await store.write("m", 5)
            await store.set("deep.er", 6)
            assert (store.read("n"), store.read("m"), await store.get("deep.er")) == (2, 5, 6)
            inside.set()
            await go_on.wait()

    editor = asyncio.create_task(edit())
    await inside.wait()
    assert store.peek() == {"n": 1}
    assert (store.read("n"), store.read("m", None)) == (1, None)
    writers = [asyncio.create_task(store.write("n", 3)), asyncio.create_task(store.set("k", 7))]
    await asyncio.sleep(0)
    assert store.read("n") == 1
    go_on.set()
    await asyncio.gather(editor, *writers)
    assert await store.get_state() == {"n": 3, "m": 5, "deep": {"er": 6}, "k": 7}


async def test_a_thread_without_an_event_loop_sees_what_is_complete() -> None:
    """While a step edits."""
    store: StateStore[DictState] = StateStore()
    await store.write("n", 1)
    async with store.edit_state() as state:
        state.n = 2
        assert await asyncio.to_thread(store.read, "n") == 1
    assert await asyncio.to_thread(store.read, "n") == 2


async def test_a_twin_is_a_store_of_its_own() -> None:
    """What happens to one does not happen to the other."""
    store: StateStore[Profile] = StateStore(Profile)
    await store.set("address.tags", ["a"])
    twin = store.twin()
    await twin.set("address.tags.0", "b")
    await store.set("name", "Ann")
    assert await twin.get_state() == Profile(address=Address(tags=["b"]))
    assert await store.get_state() == Profile(name="Ann", address=Address(tags=["a"]))


async def test_edits_take_turns() -> None:
    """A hundred steps that read, suspend, and write lose no update."""

    class Flow(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> list[Tick]:
            return [Tick(n=n) for n in range(100)]

        @step(num_workers=100)
        async def count(self, ctx: Context, ev: Tick) -> StopEvent | None:
            async with ctx.store.edit_state() as state:
                old = state.get("count", 0)
                await asyncio.sleep(0)
                state.count = old + 1
            done = ctx.collect_events(ev, {Tick: 100})
            return StopEvent(result=await ctx.get("count")) if done else None

    assert await Flow().run() == 100


async def test_an_edit_inside_an_edit_of_the_same_task_is_refused() -> None:
    """It could only wait for itself; and what replaces the state would lose what the block changed."""
    store: StateStore[DictState] = StateStore()
    async with store.edit_state() as state:
        with pytest.raises(
            WorkflowRuntimeError, match=r"this task is editing already\. Use the state of the outer block"
        ):
            async with store.edit_state():
                pass
        with pytest.raises(WorkflowRuntimeError, match=r"set_state\(\) inside edit_state\(\)"):
            await store.set_state({})
        with pytest.raises(WorkflowRuntimeError, match=r"inside edit_state\(\)"):
            await store.clear()
        state.n = 1
    assert await store.get_state() == {"n": 1}


async def test_values_that_cannot_be_copied_are_shared() -> None:
    """A lock or a client in the state does not keep it from being edited."""
    store: StateStore[DictState] = StateStore()
    lock = threading.Lock()
    await store.set_state({"lock": lock, "items": [1]})
    async with store.edit_state() as state:
        assert state.lock is lock
        state["items"].append(2)
    assert store.read("lock") is lock
    assert store.read("items") == [1, 2]


def test_a_state_is_edited_in_one_event_loop_after_the_other() -> None:
    """A run that goes on with the state of another may be in another loop, and edits take turns there too."""
    store: StateStore[DictState] = StateStore()

    async def contend() -> None:
        async def add() -> None:
            async with store.edit_state() as state:
                await asyncio.sleep(0)
                state["n"] = state.get("n", 0) + 1

        await asyncio.gather(add(), add(), store.write("other", 1))

    for _ in range(3):
        asyncio.run(contend())
    assert store.peek() == {"n": 6, "other": 1}


async def test_a_stored_state_is_made_when_it_is_first_used_and_only_once() -> None:
    """And a stored state that cannot be read says so every time; it does not turn into an empty one."""
    store: StateStore[DictState] = StateStore()
    made: list[int] = []

    def make() -> DictState:
        made.append(1)
        return DictState(a=1)

    store.load(make)
    assert made == []
    assert (store.read("a"), store.read("a")) == (1, 1)
    assert made == [1]

    def fail() -> DictState:
        raise ValueError("damaged")

    store.load(fail)
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            store.read("a")
    await store.set_state({"a": 2})
    assert store.read("a") == 2


keys = st.sampled_from(["a", "b", "c"])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), keys, st.integers()),
        st.tuples(st.just("set"), keys, st.integers()),
        st.tuples(st.just("edit"), st.lists(st.tuples(keys, st.integers()), max_size=3), st.booleans()),
        st.tuples(st.just("clear"), st.none(), st.none()),
    ),
    max_size=12,
)


@given(operations)
def test_the_store_equals_a_plain_dict(changes: list[tuple[str, Any, Any]]) -> None:
    """Any sequence of writes, edits that succeed and edits that fail."""

    async def main() -> None:
        store: StateStore[DictState] = StateStore()
        model: dict[str, int] = {}
        for what, where, value in changes:
            before = copy.deepcopy(model)
            if what == "write":
                await store.write(where, value)
                model[where] = value
            elif what == "set":
                await store.set(where, value)
                model[where] = value
            elif what == "clear":
                await store.clear()
                model = {}
            else:
                try:
                    async with store.edit_state() as state:
                        for key, number in where:
                            state[key] = number
                            model[key] = number
                        _raise_if(value)
                except ValueError:
                    model = before
            assert await store.get_state() == model

    asyncio.run(main())


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8))
def test_concurrent_edits_equal_some_order_of_them(edits: list[tuple[int, bool]]) -> None:
    """However they interleave, and whichever of them fail."""

    async def main() -> None:
        store: StateStore[DictState] = StateStore()
        await store.write("log", [])

        async def edit(number: int, pauses: int, fails: bool) -> None:  # noqa: FBT001 because it is one of three figures
            async with store.edit_state() as state:
                log = state["log"]
                state["log"] = None
                for _ in range(pauses):
                    await asyncio.sleep(0)
                state["log"] = [*log, number]
                _raise_if(fails)

        await asyncio.gather(
            *(edit(number, pauses, fails) for number, (pauses, fails) in enumerate(edits)), return_exceptions=True
        )
        assert store.read("log") == [number for number, (_, fails) in enumerate(edits) if not fails]

    asyncio.run(main())


def _raise_if(wanted: bool) -> None:  # noqa: FBT001 because it is all that it takes
    if wanted:
        raise ValueError


class _Any(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent()


def test_plain_steps_reach_the_state_from_their_thread() -> None:
    """`ctx.from_thread` awaits it in the run's event loop."""

    class Flow(Workflow):
        @step
        def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.from_thread(ctx.set("n", 1))
            get: Callable[[], Any] = lambda: ctx.from_thread(ctx.get("n"))  # noqa: E731 because it is called once
            return StopEvent(result=get())

    assert Flow().run_sync() == 1


class Free(Workflow):
    """Keeps free keys in a state that is a model."""

    @step
    async def only(self, ctx: Context[Profile], ev: StartEvent) -> StopEvent:
        await ctx.store.set("seen.at", datetime(2026, 1, 2, tzinfo=UTC))
        await ctx.set("pair", (1, Address(city="Graz")))
        async with ctx.store.edit_state() as state:
            state.name, state.count = "A", 1  # type: ignore[attr-defined]  # the model takes free fields
            with pytest.raises(StateKeyError, match=r"It has: .*'pair', 'scores', 'seen'"):
                await ctx.store.get("miss")
        return StopEvent()


async def test_free_fields_of_a_model_are_stored_and_restored_with_their_types() -> None:
    """As those of a state without a model are."""
    handler = Free().run()
    await handler
    ctx = Context[Profile].from_json(Free(), handler.ctx.to_json())
    state = await ctx.store.get_state()
    assert state == await handler.ctx.store.get_state()
    assert (state.name, state.model_extra) == (
        "A",
        {"seen": {"at": datetime(2026, 1, 2, tzinfo=UTC)}, "pair": (1, Address(city="Graz")), "count": 1},
    )
    assert await ctx.store.get("seen.at.year") == 2026
    assert await ctx.get("pair") == (1, Address(city="Graz"))
