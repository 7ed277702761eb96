"""Limits shared in the process: nothing goes out too early, everything goes out in its turn, and waits are seen."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import current_clock, use_clock
from agentflow.testing import FakeClock, record
from agentflow_llm import (
    ChatCall,
    ChatMessage,
    ImagePart,
    LLMError,
    LLMServerError,
    LLMTimeoutError,
    QuotaError,
    RateLimitError,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from agentflow_llm.cache import Cached
from agentflow_llm.fallback import Fallback
from agentflow_llm.rate_limit import RateLimited
from agentflow_llm.retrying import Retrying
from flaky import HELLO, Flaky, FlakyEmbedder, finish, together

_keys = (f"key {number}" for number in count())
START = 1_000_000_000.0


@pytest.fixture
def key() -> str:
    return next(_keys)


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock(START)) as clock:
        yield clock


class Timed(Flaky):
    """Knows when each call came in, in seconds since the start."""

    def __init__(self, *errors: LLMError | None, **how: Any) -> None:
        super().__init__(*errors, **how)
        self.came: list[float] = []

    def _begin(self, call: ChatCall) -> None:
        super()._begin(call)
        self.came.append(current_clock().monotonic() - START)


def say(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


async def test_no_more_requests_in_a_minute(clock: FakeClock, key: str) -> None:
    inner = Timed()
    limited = RateLimited(inner, requests_per_minute=3, key=key)
    await finish(clock, lambda: together(*(limited.chat(HELLO) for _ in range(8))))
    assert inner.came == [0, 0, 0, 60, 60, 60, 120, 120]


async def test_no_more_tokens_in_a_minute_by_estimate_and_max_tokens(clock: FakeClock, key: str) -> None:
    inner = Timed(usage=Usage(http_requests=1))  # the server does not tell, so the estimates stand
    limited = RateLimited(inner, tokens_per_minute=100, key=key)
    for _ in range(3):
        await finish(clock, lambda: limited.chat(say("x" * 80), max_tokens=30))
    assert inner.came == [0, 0, 60]


async def test_usage_of_the_reply_takes_the_place_of_the_estimate(clock: FakeClock, key: str) -> None:
    inner = Timed(usage=Usage(input_tokens=5, output_tokens=5, http_requests=1))
    limited = RateLimited(inner, tokens_per_minute=100, key=key)
    for _ in range(3):
        await finish(clock, lambda: limited.chat(say("x" * 80), max_tokens=60))
    await finish(clock, lambda: limited.stream(say("x" * 80), max_tokens=30).read())
    await finish(clock, lambda: limited.chat(say("x" * 80), max_tokens=41))
    assert inner.came == [0, 0, 0, 0, 60]


async def test_max_tokens_of_the_constructor_count_as_those_of_a_call(clock: FakeClock, key: str) -> None:
    inner = Timed(usage=Usage(), max_tokens=80)
    limited = RateLimited(inner, tokens_per_minute=100, key=key)
    for _ in range(2):
        await finish(clock, lambda: limited.chat(say("x" * 80)))
    assert inner.came == [0, 60]


async def test_pictures_and_tools_count_as_well(clock: FakeClock, key: str) -> None:
    inner = Timed(usage=Usage())
    limited = RateLimited(inner, tokens_per_minute=1100, key=key)
    picture = ChatMessage(role="user", content=[ImagePart(url="data:image/png;base64," + "A" * 100_000)])
    call = ChatMessage(role="assistant", content=[ToolCallPart(id="1", name="f", arguments='"' + "x" * 400 + '"')])
    result = ChatMessage(role="tool", content=[ToolResultPart(call_id="1", name="f", content="y" * 400)])
    await finish(clock, lambda: limited.chat([picture]))
    await finish(clock, lambda: limited.chat([call, result]))
    assert inner.came == [0, 60]


async def test_more_tokens_than_a_minute_allows_wait_for_an_empty_minute(clock: FakeClock, key: str) -> None:
    inner = Timed(usage=Usage())
    limited = RateLimited(inner, tokens_per_minute=10, key=key)
    await finish(clock, lambda: limited.chat(say("x" * 20)))
    await finish(clock, lambda: limited.chat(say("x" * 4000)))
    assert inner.came == [0, 60]


async def test_no_more_at_once(clock: FakeClock, key: str) -> None:
    inner = Timed(takes=5)
    limited = RateLimited(inner, concurrency=2, key=key)
    await finish(clock, lambda: together(*(limited.chat(HELLO) for _ in range(5))))
    assert inner.came == [0, 0, 5, 5, 10]
    assert inner.most_open == 2


async def test_stream_is_one_at_once_until_it_is_closed(clock: FakeClock, key: str) -> None:
    inner = Timed()
    limited = RateLimited(inner, concurrency=1, key=key)
    stream = limited.stream(HELLO)
    await anext(stream)
    waiting = asyncio.ensure_future(limited.chat(HELLO))
    await clock.advance(100)
    assert not waiting.done()
    await stream.aclose()
    await clock.settle()
    assert (await waiting).text == "one two three four"
    assert inner.most_open == 1


@given(sizes=st.lists(st.integers(1, 100), min_size=2, max_size=12), rpm=st.integers(1, 4))
async def test_order_is_that_of_coming_and_no_minute_has_more(sizes: list[int], rpm: int) -> None:
    inner = Timed(usage=Usage())
    limited = RateLimited(inner, tokens_per_minute=100, requests_per_minute=rpm, key=next(_keys))
    with use_clock(FakeClock(START)) as clock:
        await finish(clock, lambda: together(*(limited.chat(say("x" * 4 * size)) for size in sizes)), step=60)
    assert [len(call.messages[0].text) // 4 for call in inner.asked] == sizes
    for at in inner.came:
        within = [size for came, size in zip(inner.came, sizes, strict=True) if at <= came < at + 60]
        assert sum(within) <= 100
        assert len(within) <= rpm


async def test_big_call_is_not_starved_by_small_ones(clock: FakeClock, key: str) -> None:
    inner = Timed(usage=Usage())
    limited = RateLimited(inner, tokens_per_minute=100, key=key)
    await finish(clock, lambda: together(*(limited.chat(say("x" * size)) for size in (40, 400, 40, 40))))
    assert [len(call.messages[0].text) for call in inner.asked] == [40, 400, 40, 40]


async def test_retry_after_of_one_holds_back_all(clock: FakeClock, key: str) -> None:
    first = Timed(RateLimitError("busy", status=429, retry_after=20), retry=None)
    other = Timed()
    with pytest.raises(RateLimitError):
        await RateLimited(first, key=key).chat(HELLO)
    with record() as seen:
        await finish(clock, lambda: RateLimited(other, key=key).chat(HELLO))
    assert other.came == [20]
    (note,) = seen.notes[seen.operations[0].ref.id]
    assert (note.name, note.facts) == ("rate_limit", {"wait": 20, "because": "retry_after", "key": key})


async def test_retry_after_holds_nobody_back_for_longer_than_a_minute(clock: FakeClock, key: str) -> None:
    inner = Timed(RateLimitError("busy", status=429, retry_after=4000), QuotaError("broke", retry_after=30))
    limited = RateLimited(inner, key=key)
    with pytest.raises(RateLimitError):
        await limited.chat(HELLO)
    with pytest.raises(QuotaError):
        await finish(clock, lambda: limited.chat(HELLO))
    await finish(clock, lambda: limited.chat(HELLO))
    assert inner.came == [0, 60, 60]  # an account without credit is no reason to wait


async def test_retries_wait_for_their_turn_too(clock: FakeClock, key: str) -> None:
    inner = Timed(LLMServerError("down"), LLMServerError("down"))
    await finish(clock, lambda: RateLimited(inner, requests_per_minute=1, key=key).chat(HELLO))
    assert inner.came == [0, 60, 120]


@pytest.mark.parametrize(
    ("limits", "because"),
    [
        ({"requests_per_minute": 1}, "requests"),
        ({"tokens_per_minute": 1}, "tokens"),
        ({"concurrency": 1}, "concurrency"),
    ],
)
async def test_wait_is_noted_with_its_reason(clock: FakeClock, key: str, limits: Any, because: str) -> None:
    limited = RateLimited(Timed(takes=3), key=key, **limits)
    with record() as seen:
        await finish(clock, lambda: together(limited.chat(HELLO), limited.chat(HELLO)))
    first, second = seen.operations
    assert seen.noted_on(first) == []
    (note,) = seen.notes[second.ref.id]
    assert (note.facts["because"], note.facts["key"]) == (because, key)
    assert note.facts["wait"] == {"requests": 60, "tokens": 60, "concurrency": 3}[because]


async def test_call_whose_turn_comes_too_late_fails_at_once(clock: FakeClock, key: str) -> None:
    limited = RateLimited(Timed(), requests_per_minute=1, key=key)
    await limited.chat(HELLO)
    with pytest.raises(RateLimitError, match=r"in 60 s at the earliest, and it may take 30 s.*timeout=") as caught:
        await limited.chat(HELLO, timeout=30)
    assert clock.now == START
    assert (caught.value.retry_after, caught.value.http_requests) == (60, 0)


async def test_call_behind_others_fails_at_once_as_well(clock: FakeClock, key: str) -> None:
    limited = RateLimited(Timed(), requests_per_minute=1, key=key)
    waiting = [asyncio.ensure_future(limited.chat(HELLO)) for _ in range(3)]
    await clock.settle()
    with pytest.raises(RateLimitError, match="in 180 s"):
        await limited.chat(HELLO, timeout=170)
    last = asyncio.ensure_future(limited.chat(HELLO, timeout=190))
    while not last.done():
        await clock.advance(1)
    assert clock.now == pytest.approx(START + 180, abs=1)
    await asyncio.gather(*waiting)


async def test_such_a_call_is_not_retried_and_holds_nobody_back(clock: FakeClock, key: str) -> None:
    inner, other = Timed(), Timed()
    limited = Retrying(RateLimited(RateLimited(inner, requests_per_minute=1, key=f"{key} inner"), key=key))
    await limited.chat(HELLO)
    with pytest.raises(RateLimitError) as caught:
        await limited.chat(HELLO, timeout=30)
    assert (clock.now, caught.value.attempts) == (START, 1)
    await RateLimited(other, key=key).chat(HELLO)
    assert other.came == [0]


async def test_fallback_goes_where_there_is_room(clock: FakeClock, key: str) -> None:
    full, free = Timed(), Timed()
    both = Fallback([RateLimited(full, requests_per_minute=1, key=key), free])
    await both.chat(HELLO, timeout=30)
    await both.chat(HELLO, timeout=30)
    assert (full.came, free.came) == ([0], [0])


async def test_limit_of_time_ends_a_wait_for_others(clock: FakeClock, key: str) -> None:
    limited = RateLimited(Timed(None), concurrency=1, key=key)
    stuck = asyncio.ensure_future(limited.chat(HELLO))
    await clock.settle()
    with pytest.raises(LLMTimeoutError):
        await finish(clock, lambda: limited.chat(HELLO, timeout=5))
    stuck.cancel()
    await asyncio.wait([stuck])
    assert (await limited.chat(HELLO)).text


async def test_who_is_cancelled_in_the_queue_gives_the_place_away(clock: FakeClock, key: str) -> None:
    inner = Timed()
    limited = RateLimited(inner, requests_per_minute=1, key=key)
    calls = [asyncio.ensure_future(limited.chat(say(str(number)))) for number in range(4)]
    await clock.settle()
    calls[1].cancel()  # the first in the queue
    calls[2].cancel()
    while not calls[3].done():
        await clock.advance(1)
    assert [call.messages[0].text for call in inner.asked] == ["0", "3"]
    assert inner.came == [0, 60]
    assert clock.pending == []


async def test_failure_gives_its_slot_and_its_tokens_back(clock: FakeClock, key: str) -> None:
    inner = Timed(QuotaError("broke"), RateLimitError("busy"), retry=None)
    limited = RateLimited(inner, concurrency=1, tokens_per_minute=100, key=key)
    for stream in (False, True):
        with pytest.raises(LLMError):
            await (limited.stream(say("x" * 400)).read() if stream else limited.chat(say("x" * 400)))
    await limited.chat(say("x" * 400))
    assert inner.came == [0, 0, 0]


async def test_stream_that_breaks_has_taken_its_tokens(clock: FakeClock, key: str) -> None:
    inner = Timed(fails_after=LLMServerError("cut"), retry=None)
    limited = RateLimited(inner, tokens_per_minute=100, key=key)
    with pytest.raises(LLMServerError):
        await limited.stream(say("x" * 400)).read()
    inner.fails_after = None
    await finish(clock, lambda: limited.stream(say("x" * 400)).read())
    assert inner.came == [0, 60]


async def test_what_a_cache_knows_takes_no_tokens(clock: FakeClock, key: str) -> None:
    inner = Timed(usage=Usage(input_tokens=60, http_requests=1))
    limited = RateLimited(Cached(inner), tokens_per_minute=100, key=key)
    for _ in range(5):
        await limited.chat(HELLO)
    assert inner.came == [0]


async def test_embedder_is_limited_by_the_tokens_of_its_texts(clock: FakeClock, key: str) -> None:
    inner = FlakyEmbedder()
    limited = RateLimited(inner, tokens_per_minute=10, key=key)
    await limited.embed(["x" * 40])
    await limited.embed(["x" * 36])  # the first took one token in truth
    assert clock.now == START
    await finish(clock, lambda: limited.embed(["x" * 40]))
    assert clock.now == START + 60


async def test_clients_of_one_account_share_by_default(clock: FakeClock) -> None:
    class Served(Timed):
        def __init__(self, host: str, account: str) -> None:
            super().__init__(provider="test-shared")
            self.server_address = host
            self.account = account

    clients = [Served("a", "1"), Served("a", "1"), Served("a", "2"), Served("b", "1")]
    for client in clients:
        await finish(clock, lambda client=client: RateLimited(client, requests_per_minute=1).chat(HELLO))  # type: ignore[misc]  # because a lambda has no annotations
    assert [client.came for client in clients] == [[0], [60], [60], [60]]


def test_other_numbers_for_a_key_in_use_are_refused(key: str) -> None:
    first = RateLimited(Timed(), requests_per_minute=1, key=key)
    RateLimited(Timed(), requests_per_minute=1, key=key)
    with pytest.raises(LLMError, match=r"Give the same numbers, or another key="):
        RateLimited(Timed(), requests_per_minute=2, key=key)
    del first
    gc.collect()
    RateLimited(Timed(), requests_per_minute=2, key=key)


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrency"])
def test_limit_that_lets_nothing_through_is_refused(name: str) -> None:
    limits: Any = {name: 0}
    with pytest.raises(LLMError, match=f"{name}=0 lets nothing through"):
        RateLimited(Timed(), **limits)


def test_limit_holds_across_threads_and_event_loops(key: str) -> None:
    """Real time, but no waiting: who goes is woken by who leaves, in another thread."""
    lock, running, most, served = threading.Lock(), 0, 0, 0

    class Slow(Flaky):
        async def answer(self, call: Any) -> Any:
            nonlocal running, most, served
            with lock:
                running += 1
                most = max(most, running)
            await asyncio.sleep(0.002)
            with lock:
                running -= 1
                served += 1
            return self._reply()

    def work() -> None:
        limited = RateLimited(Slow(), concurrency=3, key=key)

        async def ask() -> None:
            await asyncio.gather(*(limited.chat(HELLO) for _ in range(20)))

        asyncio.run(ask())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (served, most) == (80, 3)


def test_who_waited_in_a_loop_that_is_gone_is_passed_over(key: str) -> None:
    limited = RateLimited(Flaky(), concurrency=1, key=key)
    holding = limited.stream(HELLO)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def begin() -> None:
        await anext(holding)

    second.run_until_complete(begin())
    waiting = limited.answer(limited.call_of(HELLO, {}))
    task = first.create_task(waiting)
    first.run_until_complete(asyncio.sleep(0))
    first.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 because this loop ends as none should
    first.close()
    second.run_until_complete(holding.aclose())
    assert second.run_until_complete(limited.chat(HELLO)).text
    second.run_until_complete(second.shutdown_asyncgens())
    second.close()
    del task, waiting
    gc.collect()


async def test_a_thousand_waiting_cost_little(clock: FakeClock, key: str) -> None:
    limited = RateLimited(Timed(), requests_per_minute=1000, key=key)
    begun = time.process_time()
    await finish(clock, lambda: together(*(limited.chat(HELLO, timeout=1000) for _ in range(2000))), step=30)
    assert time.process_time() - begun < 20


@pytest.mark.parametrize("way", ["chat", "stream"])
@pytest.mark.parametrize("between", [None, Fallback, Retrying, Cached])
async def test_one_inside_another_counts_a_call_once(clock: FakeClock, key: str, way: str, between: Any) -> None:
    inner = Timed()
    limited: Any = RateLimited(inner, concurrency=1, requests_per_minute=2, key=key)
    if between is not None:
        limited = between([limited] if between is Fallback else limited)
    limited = RateLimited(limited, concurrency=1, requests_per_minute=2, key=key)
    for text in ("a", "b", "c"):
        said = say(text)
        if way == "chat":
            await finish(clock, partial(limited.chat, said))
        else:
            await finish(clock, limited.stream(said).read)
    assert inner.came == [0, 0, 60]


async def test_embedder_inside_another_counts_a_call_once(clock: FakeClock, key: str) -> None:
    embedder = FlakyEmbedder()
    nested = RateLimited(RateLimited(embedder, concurrency=1, key=key), concurrency=1, key=key)
    await finish(clock, lambda: nested.embed(["a"]))
    assert len(embedder.asked) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_call_that_waited_for_others_to_the_end_of_its_time_says_so(
    clock: FakeClock, key: str, *, streamed: bool
) -> None:
    inner = Timed(None)
    limited = RateLimited(inner, concurrency=1, key=key)
    first = asyncio.ensure_future(limited.chat(HELLO))
    await clock.settle()
    with pytest.raises(
        LLMTimeoutError, match=f"The limits of '{key}' did not let a call of 'flaky' through within 5 s"
    ):
        await finish(
            clock,
            lambda: limited.stream(HELLO, timeout=5).read() if streamed else limited.chat(HELLO, timeout=5),
        )
    assert len(inner.asked) == 1
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_who_waited_in_vain_is_not_remembered_for_it(clock: FakeClock, key: str) -> None:
    limited = RateLimited(Timed(None), concurrency=1, key=key)
    first = asyncio.ensure_future(limited.chat(HELLO))
    await clock.settle()
    waiting = RateLimited(Flaky(timeout=5), concurrency=1, key=key)
    with pytest.raises(LLMTimeoutError, match="'flaky' did not answer within 9 s"):
        await finish(clock, lambda: Fallback([waiting, Flaky(None)], timeout=9).chat(HELLO))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize("number", ["4", 0.5, True])
def test_limit_that_is_no_number_is_refused(number: Any) -> None:
    with pytest.raises(LLMError, match=f"concurrency={number!r} is no whole number. Write concurrency=10"):
        RateLimited(Flaky(), concurrency=number)
