"""Wrappers around clients: in any order the same, and nothing is left behind wherever a call is broken off."""

from __future__ import annotations

import asyncio
import gc
import logging
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from itertools import count, permutations
from typing import Any

import pytest

from agentflow.clock import use_clock
from agentflow.observe import Operation, add_observer, remove_observer
from agentflow.retry import Retry
from agentflow.testing import FakeClock, Recorder, record
from agentflow_llm import (
    BaseChatModel,
    BaseEmbedder,
    ChatMessage,
    ChatModel,
    Delta,
    Embedder,
    Embeddings,
    LLMError,
    LLMServerError,
    OpenAI,
    RateLimitError,
    Reply,
    ReplyStream,
    TextPart,
    ToolDefinition,
    Usage,
)
from agentflow_llm.cache import Cached
from agentflow_llm.fallback import Fallback
from agentflow_llm.rate_limit import RateLimited
from agentflow_llm.retrying import Retrying
from agentflow_llm.server import Answer, LoopbackServer
from flaky import HELLO, Flaky, FlakyEmbedder, finish

_keys = (f"wrapper {number}" for number in count())
POLICY = Retry(attempts=3, wait=2)

Wrap = Callable[[Any], Any]


def retrying(client: Any) -> Any:
    return Retrying(client, POLICY)


def limited(client: Any) -> Any:
    return RateLimited(client, concurrency=1, requests_per_minute=100, key=next(_keys))


def cached(client: Any) -> Any:
    return Cached(client)


def fallback(client: Any) -> Any:
    return Fallback([client])


ORDERS = [*permutations([retrying, limited, cached, fallback])]


def wrapped(client: Any, order: Sequence[Wrap]) -> Any:
    for wrap in order:
        client = wrap(client)
    return client


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("way", ["chat", "stream", "embed"])
async def test_every_order_asks_the_same_and_counts_the_same(order: Sequence[Wrap], way: str) -> None:
    errors = LLMServerError("down", status=503), RateLimitError("busy", status=429, retry_after=3)
    inner: Any = FlakyEmbedder(*errors, retry=None) if way == "embed" else Flaky(*errors, retry=None)
    client = wrapped(inner, order)

    def ask() -> Any:
        return {
            "chat": lambda: client.chat(HELLO),
            "stream": lambda: client.stream(HELLO).read(),
            "embed": lambda: client.embed(["a", "b"]),
        }[way]()

    with use_clock(FakeClock(0)) as clock, record() as seen:
        answer = await finish(clock, ask)
        took = clock.now
        again = await finish(clock, ask)
    first, second = seen.operations
    assert len(inner.asked) == 3
    assert answer.usage.http_requests == 3
    assert answer.usage.input_tokens == (2 if way == "embed" else 10)
    assert again.usage == Usage(cost=0.0)
    assert seen.noted_on(first).count("retry") == 2
    assert seen.noted_on(second).count("retry") == 0
    assert took == pytest.approx(5, abs=1)
    assert (first.outcome, second.outcome) == ("ok", "ok")


@pytest.mark.parametrize("order", ORDERS)
async def test_every_order_gives_up_with_the_same_error(order: Sequence[Wrap]) -> None:
    inner = Flaky(*(LLMServerError(f"down {number}") for number in range(9)), retry=Retry(attempts=7))
    client = wrapped(inner, order)
    with use_clock(FakeClock()) as clock, pytest.raises(LLMServerError, match="down 2") as caught:
        await finish(clock, lambda: client.chat(HELLO))
    assert (len(inner.asked), caught.value.http_requests) == (3, 3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("way", ["chat", "stream"])
async def test_every_order_asks_with_the_options_of_the_model_inside(order: Sequence[Wrap], way: str) -> None:
    inner = Flaky(temperature=0.1, max_tokens=5, extra={"user": "u"})
    model = wrapped(inner, order)
    with record() as seen:
        for options in ({}, {"max_tokens": 9}):
            await (model.stream(HELLO, **options).read() if way == "stream" else model.chat(HELLO, **options))
    expected = [({"temperature": 0.1, "max_tokens": most}, {"user": "u"}) for most in (5, 9)]
    assert [(call.parameters, call.extra) for call in inner.asked] == expected
    assert [(op.subject.parameters, op.subject.extra) for op in seen.operations] == expected


class Ends(Recorder):
    """How often each operation ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[int] = []

    def finished(self, op: Operation, error: BaseException | None) -> None:
        super().finished(op, error)
        self.ends.append(op.ref.id)


@types.coroutine
def cancelled_at(number: int, work: Any) -> Generator[Any, Any, Any]:
    """Await something in a task that is cancelled where it waits for the so many-th time."""
    task = asyncio.current_task()
    assert task is not None
    waits = 0
    try:
        waiting = work.send(None)
        while True:
            if waits == number:
                task.cancel()
            waits += 1
            try:
                answer = yield waiting
            except BaseException as error:  # noqa: BLE001 because it goes to where it would have gone without this
                waiting = work.throw(error)
            else:
                waiting = work.send(answer)
    except StopIteration as done:
        return done.value


class Rig:
    """Two servers, of which the first fails twice and its slot is taken at first; the second fails once."""

    def __init__(self) -> None:
        self.first = Flaky(LLMServerError("down"), LLMServerError("down"))
        self.second = Flaky(LLMServerError("down too"), model="second")
        self.key = next(_keys)
        self.model = Retrying(
            Fallback([RateLimited(self.first, concurrency=1, key=self.key), limited(self.second)]), POLICY
        )

    async def occupy(self, clock: FakeClock) -> None:
        """Take the slot of the first for three seconds."""
        taken = RateLimited(Flaky(), concurrency=1, key=self.key).stream(HELLO)
        await anext(taken)
        closing = []
        clock.call_later(3, lambda: closing.append(asyncio.ensure_future(taken.aclose())))
        self.held = taken, closing

    async def check(self, clock: FakeClock, seen: Ends, before: set[asyncio.Task[Any]]) -> None:
        """Nothing is left behind."""
        await clock.advance(10)
        assert (self.first.open, self.second.open, clock.pending) == (0, 0, [])
        assert seen.open() == []
        assert sorted(seen.ends) == sorted({op.ref.id for op in seen.operations})
        self.first.errors.clear()
        reply = await asyncio.wait_for(self.model.chat(HELLO), 5)  # the slot is free
        assert reply.model == "flaky"
        assert asyncio.all_tasks() <= before


@pytest.fixture
def seen() -> Iterator[Ends]:
    ends = Ends()
    add_observer(ends)
    yield ends
    remove_observer(ends)


async def _read(model: BaseChatModel) -> Reply:
    return await model.stream(HELLO).read()


@pytest.mark.parametrize("ask", [lambda model: model.chat(HELLO), _read], ids=["chat", "stream"])
@pytest.mark.parametrize("observed", [True, False])
async def test_cancelled_anywhere_it_leaves_nothing(
    ask: Callable[[BaseChatModel], Any], seen: Ends, caplog: pytest.LogCaptureFixture, *, observed: bool
) -> None:
    before = asyncio.all_tasks()
    if not observed:
        remove_observer(seen)
    places = 0
    for number in count():
        places = number
        with use_clock(FakeClock()) as clock:
            rig = Rig()
            await rig.occupy(clock)
            task = asyncio.ensure_future(cancelled_at(number, ask(rig.model)))
            await clock.settle()
            while not task.done():
                await clock.advance(1)
            if not task.cancelled():
                assert (await task).model == "second"
            if observed:
                op = seen.operations[-1]
                assert op.outcome == ("cancelled" if task.cancelled() else "ok")
            await rig.check(clock, seen, before)
        if not task.cancelled():
            break
    assert places >= 6  # so many places there are, at least
    assert caplog.records == []


async def _closed_by_another(stream: ReplyStream) -> None:
    await asyncio.ensure_future(stream.aclose())


@pytest.mark.parametrize("chunks", range(5))
@pytest.mark.parametrize("waiting", [True, False])
async def test_closed_from_another_task_at_any_piece_it_leaves_nothing(
    chunks: int, seen: Ends, caplog: pytest.LogCaptureFixture, *, waiting: bool
) -> None:
    before = asyncio.all_tasks()
    with use_clock(FakeClock()) as clock:
        rig = Rig()
        rig.first.errors.clear()
        stream = rig.model.stream(HELLO)
        for _ in range(chunks):
            await anext(stream)
        if waiting:
            reader = asyncio.ensure_future(anext(stream, None))
            await asyncio.sleep(0)
            await _closed_by_another(stream)
            await reader
        else:
            await _closed_by_another(stream)
        assert await anext(stream, None) is None
        await rig.check(clock, seen, before)
    assert caplog.records == []


async def test_closed_while_it_waits_for_a_slot_or_a_retry(seen: Ends, caplog: pytest.LogCaptureFixture) -> None:
    before = asyncio.all_tasks()
    for seconds in range(8):
        with use_clock(FakeClock()) as clock:
            rig = Rig()
            await rig.occupy(clock)
            stream = rig.model.stream(HELLO)
            reader = asyncio.ensure_future(anext(stream, None))
            await clock.advance(seconds)
            await stream.aclose()
            got = await reader
            assert got is None or got.text == "one "
            await rig.check(clock, seen, before)
    assert caplog.records == []


@pytest.mark.parametrize("chunks", range(1, 5))
async def test_dropped_at_any_piece_it_leaves_nothing(
    chunks: int, seen: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    with use_clock(FakeClock()) as clock:
        rig = Rig()
        rig.first.errors.clear()
        stream = rig.model.stream(HELLO)
        for _ in range(chunks):
            await anext(stream)
        del stream
        await rig.check(clock, seen, before)
    assert caplog.records == []


async def _break_off(stream: ReplyStream, way: str, number: int) -> None:
    if way == "cancelled":
        task = asyncio.ensure_future(cancelled_at(number, stream.read()))
        await asyncio.wait([task])
        assert task.cancelled() or (await task).text
        return
    for _ in range(number):
        await anext(stream)
    if way == "closed":
        reader = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        await _closed_by_another(stream)
        await reader


async def _over_a_socket(url: str, way: str, numbers: Sequence[int]) -> None:
    """Break streamed calls off, and each time make another one with the slot that it had."""
    dead = OpenAI("dead", base_url=f"{url}/nothing-here", api_key="k", retry=None)
    alive = OpenAI("alive", base_url=url, api_key="k", retry=None)
    key = next(_keys)
    model = Retrying(Fallback([RateLimited(dead, key=next(_keys)), RateLimited(alive, concurrency=1, key=key)]), POLICY)
    async with model:
        for number in numbers:
            await _break_off(model.stream(HELLO), way, number)
            reply = await asyncio.wait_for(RateLimited(alive, concurrency=1, key=key).chat(HELLO), 10)
            assert reply.text == "one two three"
            assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(("way", "numbers"), [("cancelled", range(24)), ("closed", range(4)), ("dropped", range(4))])
def test_over_a_real_connection_nothing_stays_open(
    way: str, numbers: Sequence[int], caplog: pytest.LogCaptureFixture
) -> None:
    """What is not closed warns when it is collected, and a warning is an error."""

    def say(asked: Any) -> Answer:
        return Answer(TextPart(text="one two three"), drip=0.002 if asked.get("stream") else 0)

    with LoopbackServer(say) as server:
        asyncio.run(_over_a_socket(server.base_url, way, numbers))
        gc.collect()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_dropped_before_it_began_it_asked_nothing(seen: Ends) -> None:
    inner = Flaky()
    wrapped(inner, ORDERS[0]).stream(HELLO)
    gc.collect()
    await asyncio.sleep(0)
    assert (inner.asked, seen.operations) == ([], [])


@pytest.mark.parametrize("wrap", [retrying, limited, cached])
def test_what_a_client_says_of_itself_passes_through(wrap: Wrap) -> None:
    model = wrap(OpenAI("gpt-4o", base_url="http://127.0.0.1:9/v1", api_key="k", timeout=7))
    assert (model.model, model.provider, model.timeout) == ("gpt-4o", "openai", 7)
    assert (model.server_address, model.server_port, model.place) == ("127.0.0.1", 9, " at http://127.0.0.1:9/v1")
    assert model.render_request(HELLO)["messages"] == [{"role": "user", "content": "Hello"}]
    embedder = FlakyEmbedder(dimensions=2, timeout=3, retry=None)
    embedder.most_texts, embedder.most_characters = 5, 60
    around = wrap(embedder)
    assert (around.dimensions, around.most_texts, around.most_characters, around.timeout) == (2, 5, 60, 3)
    assert not hasattr(around, "render_request")


@pytest.mark.parametrize("wrap", [retrying, limited, cached, fallback])
def test_request_is_shown_with_the_options_of_the_model_inside(wrap: Wrap) -> None:
    model = wrap(OpenAI("m", base_url="http://127.0.0.1:9/v1", temperature=0.1))
    assert model.render_request(HELLO)["temperature"] == 0.1
    assert model.render_request(HELLO, temperature=0.2)["temperature"] == 0.2


def test_repr_shows_all_of_it() -> None:
    model = Retrying(Fallback([RateLimited(Flaky()), Cached(Foreign())]))
    assert repr(model) == "Retrying(Fallback([RateLimited(Flaky('flaky')), Cached(Foreign())]))"


async def test_wrapper_prepares_and_closes_what_it_wraps() -> None:
    prepared: list[int] = []

    class Loading(Flaky):
        async def prepare(self) -> None:
            prepared.append(1)

    inner = Loading()
    async with Retrying(RateLimited(Cached(inner))) as model:
        await model.chat(HELLO)
    assert (prepared, inner.closed) == ([1], 1)
    async with Retrying(FlakyEmbedder()) as embedder:  # which has nothing to close
        assert isinstance(embedder, BaseEmbedder)


async def test_time_limit_names_the_place_of_the_client() -> None:
    class Placed(Flaky):
        @property
        def place(self) -> str:
            return " at http://somewhere"

    with use_clock(FakeClock()) as clock, pytest.raises(TimeoutError, match="'flaky' at http://somewhere did not"):
        await finish(clock, lambda: Retrying(Cached(Placed(None, timeout=2))).chat(HELLO))


class Foreign:
    """Satisfies the protocol, and is derived from nothing."""

    provider = "foreign"
    model = "f-1"

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.errors = [LLMServerError("down")]
        self.closed = 0

    def __repr__(self) -> str:
        return "Foreign()"

    async def chat(self, messages: Sequence[ChatMessage], **options: Any) -> Reply:
        self.asked.append((messages, options))
        if self.errors:
            raise self.errors.pop()
        return Reply(message=ChatMessage(role="assistant", content="Hi"), usage=Usage(http_requests=1))

    def stream(self, messages: Sequence[ChatMessage], **options: Any) -> ReplyStream:
        async def items() -> AsyncGenerator[Delta | Reply]:
            reply = await self.chat(messages, **options)
            yield Delta(text="Hi")
            yield reply

        return ReplyStream(items())

    async def embed(self, texts: Sequence[str], *, timeout: float | None = None) -> Embeddings:
        self.asked.append((texts, timeout))
        return Embeddings([[1.0]] * len(texts), model="f-1")

    async def aclose(self) -> None:
        self.closed += 1


class ForeignEmbedder:
    provider = "foreign"
    model = "f-1"
    embed = Foreign.embed
    asked: list[Any] = []  # noqa: RUF012 because it is only this test's


async def test_model_that_is_only_like_one_is_wrapped_as_well() -> None:
    inner = Foreign()
    assert isinstance(inner, ChatModel)
    with use_clock(FakeClock()) as clock, record() as seen:
        async with Retrying(Fallback([Cached(inner)]), POLICY) as model:
            tools = [ToolDefinition(name="f")]
            reply = await finish(clock, lambda: model.chat(HELLO, tools=tools, seed=1, extra={"a": 1}, timeout=9))
    assert (reply.text, model.provider, model.model, inner.closed) == ("Hi", "foreign", "f-1", 1)
    assert [op.name for op in seen.operations] == ["f-1"]
    assert seen.noted_on(seen.operations[0]).count("retry") == 1
    assert inner.asked[0] == ((*HELLO,), {"tools": (*tools,), "seed": 1, "extra": {"a": 1}, "timeout": 9})
    assert inner.asked[1] == ((*HELLO,), {"tools": (*tools,), "seed": 1, "extra": {"a": 1}, "timeout": 7})


async def test_its_streams_are_wrapped_and_its_output_is_read() -> None:
    inner = Foreign()
    inner.errors.clear()
    stream = RateLimited(inner).stream(HELLO)
    assert [delta.text async for delta in stream] == ["Hi"]
    with pytest.raises(LLMError, match="no JSON object"):
        await Retrying(inner).chat(HELLO, output={"type": "object", "properties": {}})
    assert inner.asked[-1][1]["output"]["type"] == "object"


async def test_embedder_that_is_only_like_one_is_wrapped_as_well() -> None:
    inner = ForeignEmbedder()
    assert isinstance(inner, Embedder)
    async with Retrying(Cached(inner)) as embedder:
        found = await embedder.embed(["a", "b"])
    assert [list(vector) for vector in found.vectors] == [[1.0], [1.0]]
    assert inner.asked == [(("a", "b"), None)]


@pytest.mark.parametrize("wrapper", [Retrying, RateLimited, Cached])
@pytest.mark.parametrize(
    ("given", "told"), [(3, "3 is no client"), (OpenAI, "OpenAI is a class"), (None, "None is no")]
)
def test_what_is_no_client_is_refused(wrapper: Any, given: Any, told: str) -> None:
    with pytest.raises(LLMError, match=rf"{wrapper.title}\(\.\.\.\) is put around .* {told}"):
        wrapper(given)
