"""A run that is put away at any moment, and taken up again, ends as if nothing had happened."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentflow import (
    Context,
    ContextSerdeError,
    Event,
    Handler,
    HumanResponseEvent,
    InputRequiredEvent,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock

GOLDEN = Path(__file__).parent / "fixtures" / "run_v1.json"


class Node(Event):
    """A node of a tree of work; those that it contains are worked on next."""

    path: tuple[int, ...] = ()
    inside: list[Any] = Field(default_factory=list)


class Done(Event):
    path: tuple[int, ...]


class Ask(InputRequiredEvent):
    text: str = ""


class Reply(HumanResponseEvent):
    text: str = ""
    to: str = ""


class Plan(StartEvent):
    tree: list[Any] = Field(default_factory=list)
    flaky: list[tuple[int, ...]] = Field(default_factory=list)
    """Nodes whose first attempt fails."""
    asking: list[tuple[int, ...]] = Field(default_factory=list)
    """Nodes that wait for a human."""


def paths_of(tree: list[Any], path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Every node of a tree."""
    return [path, *(p for n, inner in enumerate(tree) for p in paths_of(inner, (*path, n)))]


class Tree(Workflow):
    """Works on a tree, in parallel, with retries and waits, and joins what belongs together."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.failed: set[tuple[int, ...]] = set()
        self.finished: Counter[tuple[str, tuple[int, ...]]] = Counter()

    async def _finish(self, ctx: Context, step_name: str, path: tuple[int, ...]) -> None:
        self.finished[step_name, path] += 1
        async with ctx.store.edit_state() as state:
            state["finished"] = state.get("finished", 0) + 1

    @step
    async def start(self, ctx: Context, ev: Plan) -> Node:
        await self._finish(ctx, "start", ())
        return Node(inside=ev.tree)

    @step(num_workers=2, retry_policy=Retry(wait=0))
    async def expand(self, ctx: Context, ev: Node) -> list[Node | Done]:
        if ev.path in self.plan.asking:
            who = str(ev.path)
            await ctx.wait_for_event(Reply, waiter_event=Ask(text=who), requirements={"to": who})
        nodes = [Node(path=(*ev.path, n), inside=inner) for n, inner in enumerate(ev.inside)]
        for node in nodes[::2]:
            ctx.send_event(node)
        await asyncio.sleep(0)
        if ev.path in self.plan.flaky and ev.path not in self.failed:
            self.failed.add(ev.path)
            raise ValueError("still not")
        await self._finish(ctx, "expand", ev.path)
        return [*nodes[1::2], Done(path=(*ev.path, -1))]

    @step(num_workers=2)
    async def join(self, ctx: Context, ev: Done) -> Done | StopEvent | None:
        parent, inside = ev.path[:-1], self.plan.tree
        for n in parent:
            inside = inside[n]
        together = ctx.collect_events(ev, [Done] * (len(inside) + 1), buffer_id=str(parent))
        await self._finish(ctx, "join", ev.path)
        if together and not parent:
            return StopEvent(result=await ctx.get("finished"))
        return Done(path=parent) if together else None

    def answer_all(self, handler: Handler[Any]) -> None:
        """Answer every question, before it is asked or after."""
        for path in self.plan.asking:
            with suppress(WorkflowRuntimeError):  # it has ended
                handler.ctx.send_event(Reply(to=str(path)))


trees: st.SearchStrategy[list[Any]] = st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=4), max_leaves=8)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A tree with some nodes that fail once, and some that wait for a human."""
    tree = draw(trees)
    some = st.lists(st.sampled_from(paths_of(tree)), max_size=4, unique=True)
    return Plan(tree=tree, flaky=draw(some), asking=draw(some))


def expected(plan: Plan) -> Counter[tuple[str, tuple[int, ...]]]:
    """What has to be executed, each once."""
    paths = paths_of(plan.tree)
    joined = [*(path for path in paths if path), *((*path, -1) for path in paths)]
    return Counter([("start", ()), *(("expand", p) for p in paths), *(("join", p) for p in joined)])


@settings(max_examples=150)
@given(plans(), st.integers(0, 60))
def test_a_run_put_away_at_any_moment_ends_the_same_and_repeats_no_finished_step(plan: Plan, turns: int) -> None:
    """After any number of turns of the event loop, by way of JSON, in another object of the workflow."""

    async def main() -> None:
        flow, resumed = Tree(plan), Tree(plan)
        handler = flow.run(start_event=plan)
        for turn in range(turns):
            if turn == turns // 2:
                flow.answer_all(handler)
            await asyncio.sleep(0)
        ended = handler.is_done()
        stored, finished = handler.ctx.to_json(), flow.finished.copy()
        await handler.cancel_run()
        assert json.loads(stored)["ended"] == ended
        if ended:
            assert handler.result() == expected(plan).total()
            return
        handler = resumed.run(ctx=Context.from_json(resumed, stored))
        resumed.answer_all(handler)
        assert await handler == expected(plan).total()
        assert finished + resumed.finished == expected(plan)

    asyncio.run(main())


@settings(max_examples=60)
@given(plans(), st.lists(st.integers(0, 12), min_size=1, max_size=12), st.lists(st.booleans(), min_size=1, max_size=8))
def test_a_run_put_away_again_and_again_ends_the_same(plan: Plan, turns: list[int], waits: list[bool]) -> None:
    """A few turns each time: what was taken up and not begun is stored as well as what was."""

    async def main() -> None:
        flow = Tree(plan)
        finished: Counter[tuple[str, tuple[int, ...]]] = Counter()
        handler: Handler[Any] = flow.run(start_event=plan)
        # drawn beforehand: hypothesis stops an example by an exception, which must not come from a running loop
        for turn, waiting in zip([*turns, 200], itertools.cycle(waits), strict=False):
            for _ in range(turn):
                await asyncio.sleep(0)
            flow.answer_all(handler)
            if handler.is_done():
                break
            stored = handler.ctx.to_json()
            finished += flow.finished
            await handler.cancel_run()
            flow, failed = Tree(plan), flow.failed
            flow.failed = failed
            context = Context[Any].from_json(flow, stored)
            assert not json.loads(stored)["ended"]
            assert json.loads(context.to_json()) == json.loads(stored)
            handler = flow.run(ctx=context)
            if waiting:
                await handler
        if not handler.is_done():
            flow.answer_all(handler)
            await handler
        finished += flow.finished
        assert handler.result() == expected(plan).total()
        assert finished == expected(plan)

    asyncio.run(main())


class Counting(Workflow):
    """Adds up over its runs."""

    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        total = await ctx.get("total", default=0) + ev.get("n", 0)
        await ctx.set("total", total)
        return StopEvent(result=total)


async def test_a_run_that_had_ended_starts_anew_with_its_old_state() -> None:
    """Stored or not; it takes a start event like any other."""
    flow = Counting()
    handler = flow.run(n=1)
    await handler
    stored = handler.ctx.to_json()
    assert await flow.run(ctx=handler.ctx, n=10) == 11
    restored = Context[Any].from_json(flow, stored)
    assert await restored.get("total") == 1
    handler = flow.run(ctx=restored, n=100)
    assert await handler == 101
    assert handler.run_id != json.loads(stored)["run_id"]


async def test_a_context_that_was_filled_before_any_run_can_be_stored() -> None:
    """The run then begins with that state and a start event."""
    flow = Counting()
    ctx: Context[Any] = Context(flow)
    await ctx.set("total", 5)
    assert await flow.run(ctx=Context.from_json(flow, ctx.to_json()), n=1) == 6
    assert await flow.run(ctx=ctx, n=2) == 7


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_run_that_failed_or_was_cancelled_has_ended(how: str) -> None:
    """Its state goes on in a run of its own; its steps do not."""

    class Flow(Counting):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            stop = await super().only(ctx, ev)
            if ev.n == 1 and how == "failed":
                raise ValueError("still not")
            if ev.n == 1:
                await asyncio.Event().wait()
            return stop

    flow = Flow()
    handler = flow.run(n=1)
    await _settle()
    ending = handler.cancel_run()
    stored = handler.ctx.to_dict()
    await ending
    assert handler.exception() is not None
    assert stored["ended"]
    assert "pending" not in stored
    assert await flow.run(ctx=Context.from_dict(flow, stored), n=2) == 3


async def test_a_run_that_has_its_result_and_is_being_wound_up_ends_with_it_when_restored() -> None:
    """Nothing else of it runs again."""
    let_go = asyncio.Event()
    ran: list[str] = []

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Done | Node]:
            return [Done(path=()), Node()]

        @step
        async def slow(self, ev: Done) -> None:
            ran.append("slow")
            try:
                await asyncio.Event().wait()
            finally:
                await let_go.wait()

        @step
        async def quick(self, ev: Node) -> StopEvent:
            ran.append("quick")
            return StopEvent(result="quick")

    flow = Flow()
    handler = flow.run()
    await _settle()
    assert not handler.is_done()
    stored = handler.ctx.to_json()
    let_go.set()
    assert await handler == "quick"
    assert await flow.run(ctx=Context.from_json(flow, stored)) == "quick"
    assert ran == ["slow", "quick"]


async def test_a_run_that_goes_on_takes_no_start_event() -> None:
    """It had one; fields are refused by name."""
    flow = Golden(fails=True)
    stored = await _golden_run(flow)
    given: list[dict[str, Any]] = [{"start_event": Begin()}, {"size": 3}]
    for arguments in given:
        with pytest.raises(WorkflowRuntimeError, match=f"{next(iter(arguments))}=.* it goes on where it was"):
            _ = flow.run(ctx=Context.from_dict(flow, stored), **arguments)


async def test_a_run_that_goes_on_keeps_its_id() -> None:
    """Spans, logs and idempotency keys of both halves belong together."""
    flow = Golden(fails=True)
    stored = await _golden_run(flow)
    handler = flow.run(ctx=Context.from_dict(flow, stored))
    assert handler.run_id == stored["run_id"] == "golden"
    await handler.cancel_run()


async def test_storing_a_run_does_not_disturb_it() -> None:
    """Stored in every turn, it ends as it would have; what was stored is not changed by what follows."""
    plan = Plan(tree=[[], [[], []], []], flaky=[(1,)], asking=[(0,)])
    flow = Tree(plan)
    handler = flow.run(start_event=plan)
    flow.answer_all(handler)
    stored: list[tuple[dict[str, Any], str]] = []
    while not handler.is_done():
        data = handler.ctx.to_dict()
        stored.append((data, json.dumps(data)))
        await asyncio.sleep(0)
    assert await handler == expected(plan).total()
    assert flow.finished == expected(plan)
    assert all(json.dumps(data) == text for data, text in stored)


async def test_a_run_that_is_started_by_a_restored_step_is_its_child() -> None:
    """Its events are in the stream, and it is cancelled with it."""
    ended: list[str] = []

    class Child(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Part(n=7))
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("child")
            return StopEvent()

    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Reply)
            return StopEvent(result=await Child().run())

    flow = Parent()
    handler = flow.run()
    await _settle()
    stored = handler.ctx.to_dict()
    await handler.cancel_run()
    handler = flow.run(ctx=Context.from_dict(flow, stored))
    handler.ctx.send_event(Reply())
    await _settle()
    following = handler.stream_events()
    await handler.cancel_run()
    assert await anext(following) == Part(n=7)
    assert ended == ["child"]


async def test_a_step_may_store_its_own_run() -> None:
    """It counts as not finished, and is executed again."""

    class Flow(Workflow):
        entered = 0

        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            type(self).entered += 1
            return StopEvent(result=ctx.to_dict())

    flow = Flow()
    stored = await flow.run()
    assert [entry["step"] for entry in stored["pending"]] == ["only"]
    await flow.run(ctx=Context.from_dict(flow, stored))
    assert Flow.entered == 2


async def test_what_takes_several_steps_is_stored_once_for_each() -> None:
    """And events that wait in line for a slot keep their order."""

    class Flow(Workflow):
        ran: list[tuple[str, int]] = []  # noqa: RUF012 because each test has its own class

        @step
        async def start(self, ev: StartEvent) -> list[Done]:
            return [Done(path=(n,)) for n in range(4)]

        @step(num_workers=1)
        async def one(self, ctx: Context, ev: Done) -> None:
            self.ran.append(("one", ev.path[0]))

        @step(num_workers=1)
        async def two(self, ctx: Context, ev: Done) -> StopEvent | None:
            if ctx.to_dict()["collected"] == []:
                await ctx.wait_for_event(Reply)
            self.ran.append(("two", ev.path[0]))
            return StopEvent() if ctx.collect_events(ev, {Done: 4}) else None

    flow = Flow()
    handler = flow.run()
    await _settle()
    stored = handler.ctx.to_dict()
    assert [(e["step"], e["event"]["value"]["path"]["value"]) for e in stored["pending"]] == [
        ("two", [n]) for n in range(4)
    ]
    await handler.cancel_run()
    handler = flow.run(ctx=Context.from_dict(flow, stored))
    handler.ctx.send_event(Reply())
    await handler
    assert flow.ran == [*(("one", n) for n in range(4)), *(("two", n) for n in range(4))]


async def test_the_time_limit_of_a_run_counts_time_alive_over_all_of_its_lives() -> None:
    """Time put away does not count."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Reply)
            return StopEvent()

    with use_clock(FakeClock()) as clock:
        flow = Flow(timeout=100)
        handler = flow.run()
        await clock.advance(60)
        stored = handler.ctx.to_dict()
        await handler.cancel_run()
        await clock.advance(1_000_000)
        handler = flow.run(ctx=Context.from_dict(flow, stored))
        await clock.advance(39)
        assert not handler.is_done()
        await clock.advance(1)
        with pytest.raises(WorkflowTimeoutError):
            await handler


async def test_a_retry_that_is_due_waits_for_what_is_left_of_its_delay() -> None:
    """It goes off at the same moment as it would have; one whose moment has passed, at once."""
    attempts: list[float] = []

    class Flow(Workflow):
        @step(retry_policy=Retry(attempts=3, wait=100))
        async def only(self, ev: StartEvent) -> StopEvent:
            attempts.append(clock.now - start)
            raise ValueError("still not")

    with use_clock(FakeClock()) as clock:
        start = clock.now
        flow = Flow()
        handler = flow.run()
        await clock.advance(30)
        stored = handler.ctx.to_json()
        await handler.cancel_run()
        await clock.advance(20)
        handler = flow.run(ctx=Context.from_json(flow, stored))
        await clock.advance(49)
        assert attempts == [0]
        await clock.advance(1)
        assert attempts == [0, 100]
        stored = handler.ctx.to_json()
        await handler.cancel_run()
        await clock.advance(1_000)
        handler = flow.run(ctx=Context.from_json(flow, stored))
        await clock.settle()
        assert attempts == [0, 100, 1_100]
        with pytest.raises(ValueError, match="still not"):
            await handler


async def test_a_value_that_cannot_be_stored_names_its_key_and_its_step() -> None:
    """In the state, in an event under way, in a buffer."""

    class Flow(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> list[Node]:
            if ev.where == "state":
                await ctx.set("client", {"inner": [object()]})
            return [Node(inside=[object()] if ev.where != "state" else []), Node()]

        @step(num_workers=1)
        async def take(self, ctx: Context, ev: Node) -> StopEvent | None:
            if ev.get("where") != "step":
                ctx.collect_events(ev, [Node] * 3)
            await ctx.wait_for_event(Reply)
            return StopEvent()

    for where, message in [
        ("state", r"^the state\.client\.inner\[0\] holds an object, which cannot be stored"),
        ("event", r"^step 'take': Node\.inside\[0\] holds an object"),
    ]:
        handler = Flow().run(where=where)
        await _settle()
        with pytest.raises(ContextSerdeError, match=message):
            handler.ctx.to_dict()
        await handler.cancel_run()


class Payload(BaseModel):
    names: set[str] = Field(default_factory=set)
    file: Path = Path("a/b")


class Job(Event):
    n: int = 0
    payload: Payload = Payload()


class Part(Event):
    n: int = 0


class News(Event):
    text: str = ""


class Late(HumanResponseEvent):
    text: str = ""


class Begin(StartEvent):
    size: int = 0


class Later:
    """A policy that tries again after 100 seconds."""

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float:
        return 100


class Golden(Workflow):
    """Has something of everything that can be under way."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails

    @step
    async def start(self, ctx: Context, ev: Begin) -> list[Job]:
        await ctx.set("title", "golden")
        await ctx.set("odd", {"by number": {1: (b"\x01", 2.5)}, "set": {"x"}})
        return [Job(n=n, payload=Payload(names={f"job {n}"})) for n in range(ev.size)]

    @step(num_workers=2, retry_policy=Later())
    async def work(self, ctx: Context, ev: Job) -> Part:
        if ev.n == 0:
            key = ctx.idempotency_key
            paid = await ctx.once("pay", lambda: ("receipt", key))
            ctx.send_event(Part(n=100))
            first = await ctx.wait_for_event(Reply, waiter_event=Ask(text="first?"), requirements={"to": "0"})
            second = await ctx.wait_for_event(Reply, waiter_event=Ask(text="second?"), waiter_id="second")
            await ctx.set("heard", [first.text, second.text, paid])
        if ev.n == 1 and self.fails:
            raise ValueError("still not")
        if ev.n == 2:
            news = await ctx.wait_for_event(News)
            await ctx.set("news", news.text + (await ctx.wait_for_event(Late)).text)
        return Part(n=ev.n)

    @step(num_workers=1)
    async def gather(self, ctx: Context, ev: Part) -> StopEvent | None:
        got = ctx.collect_events(ev, {Part: 5}, buffer_id="all")
        if got is None:
            return None
        return StopEvent(result=(sorted(p.n for p in got), await ctx.get("heard"), await ctx.get("news")))


async def _golden_run(flow: Golden) -> dict[str, Any]:
    """A run with one step in a wait that answered another, one delayed, one that waits, one in line."""
    with use_clock(FakeClock()) as clock:
        handler = flow.run(size=4)
        await clock.advance(10)
        handler.ctx.send_event(Reply(to="0", text="yes"))
        await clock.settle()
        handler.ctx.send_event(Late(text="kept"))
        stored = _named(handler, "golden")
        await handler.cancel_run()
    return stored


def _named(handler: Handler[Any], run_id: str) -> dict[str, Any]:
    """What is stored of a run, as if this were its id: so that it can be compared."""
    stored: dict[str, Any] = json.loads(handler.ctx.to_json().replace(handler.run_id, run_id))
    return stored


class Typed(BaseModel):
    payload: Payload = Payload()
    count: int = 0


class Stepped(Workflow):
    """Is put away between two steps."""

    @step
    async def start(self, ctx: Context[Typed], ev: Begin) -> Job | None:
        ctx.send_event(Part(n=1), step="end")
        await ctx.set("count", ev.size)
        return Job(n=2)

    @step
    async def work(self, ev: Job) -> Part:
        return Part(n=ev.n)

    @step(num_workers=1)
    async def end(self, ctx: Context, ev: Part) -> StopEvent | None:
        got = ctx.collect_events(ev, [Part, Part])
        return StopEvent(result=([p.n for p in got], await ctx.get("count"))) if got else None


async def _stepped_run() -> dict[str, Any]:
    handler = Stepped().run(size=7, stepwise=True)
    assert [type(e) for e in await handler.run_step()] == [Part, Job]
    stored = _named(handler, "stepped")
    await handler.cancel_run()
    return stored


async def _ended_run() -> dict[str, Any]:
    handler = Counting().run(n=3)
    await handler
    return _named(handler, "ended")


async def test_what_is_written_today_is_what_was_written_when_the_format_was_made() -> None:
    """A change of it needs a version of its own. AGENTFLOW_WRITE_FIXTURES=1 writes the file anew."""
    running = await _golden_run(Golden(fails=True))
    today = {"running": running, "stepwise": await _stepped_run(), "ended": await _ended_run()}
    text = json.dumps(today, indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("AGENTFLOW_WRITE_FIXTURES"):
        await asyncio.to_thread(GOLDEN.write_text, text, "utf-8")
    assert text == await asyncio.to_thread(GOLDEN.read_text, "utf-8")


async def test_a_run_that_was_stored_when_the_format_was_made_goes_on_today() -> None:
    """Each of its parts: answers, effects, retries, waits, lines, buffers, early events, state."""
    golden = json.loads(await asyncio.to_thread(GOLDEN.read_text, "utf-8"))
    with use_clock(FakeClock()) as clock:
        flow = Golden()
        handler = flow.run(ctx=Context.from_dict(flow, golden["running"]))
        handler.ctx.send_event(News(text="good "))
        handler.ctx.send_event(Reply(text="red"))
        await clock.advance(99)
        assert not handler.is_done()
        await clock.advance(1)
        assert handler.is_done()
        assert await handler == ([0, 1, 2, 3, 100], ["yes", "red", ("receipt", "golden:1")], "good kept")
        assert await handler.ctx.get("odd") == {"by number": {1: (b"\x01", 2.5)}, "set": {"x"}}

        stepped = Stepped()
        assert await stepped.run(ctx=Context.from_dict(stepped, golden["stepwise"])) == ([1, 2], 7)

        counting = Counting()
        assert await counting.run(ctx=Context.from_dict(counting, golden["ended"]), n=4) == 7


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"agentflow": 2},
        {"globals": {}},
    ],
)
def test_what_is_no_stored_run_of_this_version_is_refused(data: Any) -> None:
    """It says which version it knows."""
    with pytest.raises(ContextSerdeError, match=r"no stored run that this version reads: .* known is 1"):
        Context.from_dict(Counting(), data)


@pytest.mark.parametrize(
    ("read", "given", "says"),
    [
        (
            Context.from_dict,
            None,
            r"from_dict\(workflow, None\): it takes a dict. Write: .*from_dict\(workflow, ctx.to_d",
        ),
        (
            Context.from_dict,
            [],
            r"from_dict\(workflow, \[\]\): it takes a dict. Write: .*from_dict\(workflow, ctx.to_d",
        ),
        (
            Context.from_dict,
            "{}",
            r"from_dict\(workflow, '{}'\): it takes a dict. Write: Context.from_json\(workflow, te",
        ),
        (
            Context.from_json,
            None,
            r"from_json\(workflow, None\): it takes a text. Write: .*from_json\(workflow, ctx.to_j",
        ),
        (
            Context.from_json,
            {},
            r"from_json\(workflow, {}\): it takes a text. Write: Context.from_dict\(workflow, data\)",
        ),
    ],
)
def test_what_is_stored_is_read_by_the_method_that_is_its_own(read: Any, given: Any, says: str) -> None:
    """With the line that would be right."""
    with pytest.raises(ContextSerdeError, match=says):
        read(Counting(), given)


class Begun(StartEvent):
    query: str


class Asks(Workflow):
    """Counts its runs in its state, waits for an answer, or fails, or is too slow."""

    @step
    async def ask(self, ctx: Context, ev: Begun) -> StopEvent:
        await ctx.set("runs", await ctx.get("runs", default=0) + 1)
        if ev.query == "fail":
            raise ArithmeticError
        if ev.query != "end":
            await ctx.wait_for_event(HumanResponseEvent)
        return StopEvent(result=await ctx.get("runs"))


async def _went(flow: Asks, how: str) -> Handler[Any]:
    with use_clock(FakeClock()) as clock:
        handler = flow.run(query=how)
        await handler.until_asked()
        if how == "put away":
            handler.put_away()
        if how == "timeout":
            await clock.advance(1)
        else:
            await handler.cancel_run()
    handler.exception()
    return handler


@pytest.mark.parametrize("stored", ["stored", ""])
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cancel", "was cancelled"),
        ("put away", "was put away"),
        ("fail", "failed"),
        ("timeout", "exceeded its time limit"),
        ("end", "had ended"),
    ],
)
async def test_a_run_that_has_ended_does_not_go_on_and_the_next_needs_its_fields(
    how: str, says: str, stored: str
) -> None:
    """The error says how it ended, and what to do to go on."""
    flow = Asks(timeout=1)
    handler = await _went(flow, how)
    ctx = Context[Any].from_json(flow, handler.ctx.to_json()) if stored else handler.ctx
    with pytest.raises(WorkflowRuntimeError) as caught:
        await flow.run(ctx=ctx)
    said = str(caught.value)
    assert "Asks.run() cannot make a Begun: 'query': Field required" in said
    assert f"The run of this context {says}" in said
    assert "To go on with a run, store it before it ends: data = handler.ctx.to_dict()" in said
    assert await flow.run(ctx=ctx, query="end") == 2


async def test_a_new_context_has_no_past() -> None:
    """The error is about the fields alone."""
    flow = Asks()
    with pytest.raises(WorkflowRuntimeError, match=r"It takes Asks.run\(query: str\)\.$"):
        await flow.run(ctx=Context(flow))


def test_what_is_no_json_is_refused() -> None:
    """With the place of the mistake."""
    with pytest.raises(ContextSerdeError, match=r"this is no JSON of a run: .*column 2"):
        Context.from_json(Counting(), "{x}")


async def test_a_run_of_another_workflow_is_refused_unless_it_has_the_same_name() -> None:
    """A workflow that was renamed says so by `name=`."""
    stored = await _ended_run()

    class Renamed(Counting):
        pass

    with pytest.raises(ContextSerdeError, match=r'belongs to the workflow \'Counting\'.*Renamed\(name="Counting"\)'):
        Context.from_dict(Renamed(), stored)
    flow = Renamed(name="Counting")
    assert await flow.run(ctx=Context.from_dict(flow, stored), n=1) == 4


@pytest.mark.parametrize("part", ["pending", "produced", "collected"])
async def test_work_for_a_step_that_is_no_more_is_refused(part: str) -> None:
    """With the steps that there are; nothing is dropped in silence."""
    running = await _golden_run(Golden(fails=True))
    stored = running if part != "produced" else await _stepped_run()
    flow: Workflow = Golden() if part != "produced" else Stepped()
    for entry in stored[part]:
        entry["step"] = "gone"
    with pytest.raises(ContextSerdeError, match=r"has work for step 'gone', which .* does not have any more. It has: "):
        Context.from_dict(flow, stored)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(p for key, value in inner for p in _places(value, (*path, key)))]


@settings(max_examples=300)
@given(st.data())
def test_damaged_data_is_read_or_refused_but_never_raises_another_error(data: st.DataObject) -> None:
    """Anything may be missing from it, or be something else."""
    golden = json.loads(GOLDEN.read_text("utf-8"))
    which, flow = data.draw(st.sampled_from([("running", Golden()), ("stepwise", Stepped())]))
    stored = copy.deepcopy(golden[which])
    *way, last = data.draw(st.sampled_from([p for p in _places(stored) if p]))
    holder = stored
    for key in way:
        holder = holder[key]
    replace: Callable[[], Any] = lambda: data.draw(st.sampled_from([None, 7, "x", [], {}, [1], {"a": 1}]))  # noqa: E731 because it is called once
    if data.draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = replace()
    try:
        context = Context[Any].from_dict(flow, stored)
        context.to_json()
    except ContextSerdeError:
        return


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_was_stored_is_no_context_and_the_error_says_how_to_make_it_one() -> None:
    class One(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match=r"a dict, and a Context.*Context.from_dict\(workflow, data\)"):
        await One().run(ctx={"version": 1})  # type: ignore[arg-type]  # because that is the mistake
