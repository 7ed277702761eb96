"""Retries put around a client: its one policy, whatever the client's own was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tenacity

from agentflow.clock import use_clock
from agentflow.retry import Retry
from agentflow.testing import FakeClock, record
from agentflow_llm import (
    BaseChatModel,
    BaseEmbedder,
    ContextLengthError,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMServerError,
    LLMTimeoutError,
    LLMUnavailableError,
    QuotaError,
    RateLimitError,
)
from agentflow_llm.retrying import Retrying
from flaky import HELLO, Flaky, FlakyEmbedder, finish


def busy(number: int = 1, **facts: Any) -> list[LLMError]:
    return [RateLimitError(f"busy {n}", status=429, **facts) for n in range(number)]


async def test_policy_takes_the_place_of_the_client_s_own() -> None:
    inner = Flaky(*busy(4), retry=Retry(attempts=5, wait=1))
    with use_clock(FakeClock()) as clock, pytest.raises(RateLimitError, match="busy 1") as caught:
        await finish(clock, lambda: Retrying(inner, Retry(attempts=2, wait=1)).chat(HELLO))
    assert (len(inner.asked), caught.value.attempts, caught.value.http_requests) == (2, 2, 2)


async def test_by_default_four_attempts_with_growing_random_waits() -> None:
    inner = Flaky(*busy(9), retry=None)
    with use_clock(FakeClock()) as clock, record() as seen, pytest.raises(RateLimitError):
        await finish(clock, lambda: Retrying(inner).chat(HELLO))
    waits = [note.facts["wait"] for note in seen.notes[seen.operations[0].ref.id]]
    assert len(inner.asked) == 4
    assert len(set(waits)) == 3
    assert all(0 <= wait <= 30 for wait in waits)


async def test_each_retry_is_a_note_on_the_one_operation_and_all_requests_count() -> None:
    inner = Flaky(LLMServerError("down", status=503), *busy(1, retry_after=7))
    with use_clock(FakeClock()) as clock, record() as seen:
        reply = await finish(clock, lambda: Retrying(inner, Retry(attempts=3, wait=2)).chat(HELLO))
    (op,) = seen.operations
    facts = [
        (n.name, n.facts["attempt"], n.facts["wait"], n.facts["status"], n.facts["retry_after"])
        for n in seen.notes[op.ref.id]
    ]
    assert facts == [("retry", 1, 2, 503, None), ("retry", 2, 7, 429, 7)]
    assert reply.usage.http_requests == 3
    assert reply.usage.output_tokens == 4


@pytest.mark.parametrize(
    "error",
    [
        QuotaError("broke", status=429),
        ContextLengthError("long", status=400),
        LLMAuthenticationError("who?", status=401),
        LLMBadRequestError("what?", status=422),
        RateLimitError("much later", retry_after=61),
    ],
)
async def test_what_will_not_pass_is_asked_once(error: LLMError) -> None:
    inner = Flaky(error)
    with pytest.raises(type(error)):
        await Retrying(inner).chat(HELLO)
    assert len(inner.asked) == 1


async def test_no_wait_outlasts_the_call() -> None:
    inner = Flaky(*busy(2, retry_after=20))
    with use_clock(FakeClock()) as clock, pytest.raises(RateLimitError):
        await finish(clock, lambda: Retrying(inner).chat(HELLO, timeout=30))
    assert (len(inner.asked), clock.now) == (2, 1_000_000_000 + 20)


async def test_time_of_the_client_holds_for_all_attempts() -> None:
    inner = Flaky(None, timeout=5)
    with use_clock(FakeClock()) as clock, pytest.raises(LLMTimeoutError, match="within 5 s"):
        await finish(clock, lambda: Retrying(inner).chat(HELLO))


async def test_stream_is_asked_again_before_its_first_piece() -> None:
    inner = Flaky(LLMConnectionError("cut"))
    with use_clock(FakeClock()) as clock:
        reply = await finish(clock, lambda: Retrying(inner).stream(HELLO).read())
    assert (reply.text, reply.usage.http_requests, inner.open) == ("one two three four", 2, 0)


async def test_stream_is_never_asked_again_after_its_first_piece() -> None:
    inner = Flaky(fails_after=LLMConnectionError("cut"))
    with use_clock(FakeClock()) as clock, pytest.raises(LLMConnectionError) as caught:
        await finish(clock, lambda: Retrying(inner).stream(HELLO).read())
    assert (len(inner.asked), inner.open, caught.value.http_requests) == (1, 0, 1)


async def test_embedder_is_asked_again_as_well() -> None:
    inner = FlakyEmbedder(LLMUnavailableError("down"), retry=None)
    retrying = Retrying(inner)
    assert isinstance(retrying, BaseEmbedder)
    with use_clock(FakeClock()) as clock:
        found = await finish(clock, lambda: retrying.embed(["a", "bb"]))
    assert ([list(v) for v in found.vectors], found.usage.http_requests) == ([[1, 97], [2, 98]], 2)


@pytest.mark.parametrize("kind", [tenacity.Retrying, tenacity.AsyncRetrying])
async def test_tenacity_object_is_a_policy(kind: type[tenacity.BaseRetrying]) -> None:
    policy = kind(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(4), sleep=_never)
    inner = Flaky(*busy(), LLMServerError("down"), *busy(1, retry_after=9))
    with use_clock(FakeClock()) as clock, record() as seen, pytest.raises(RateLimitError) as caught:
        await finish(clock, lambda: Retrying(inner, policy).chat(HELLO))
    assert [note.facts["wait"] for note in seen.notes[seen.operations[0].ref.id]] == [4, 4]
    assert (caught.value.attempts, len(inner.asked)) == (3, 3)


async def test_tenacity_object_waits_no_shorter_than_the_server_asks() -> None:
    policy = tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(4))
    with use_clock(FakeClock()) as clock, record() as seen:
        await finish(clock, lambda: Retrying(Flaky(*busy(1, retry_after=9)), policy).chat(HELLO))
    assert [note.facts["wait"] for note in seen.notes[seen.operations[0].ref.id]] == [9]


async def test_tenacity_object_that_stops_by_time_counts_from_the_first_attempt() -> None:
    policy = tenacity.AsyncRetrying(stop=tenacity.stop_before_delay(10), wait=tenacity.wait_fixed(4))
    inner = Flaky(*busy(9))
    with use_clock(FakeClock()) as clock, pytest.raises(RateLimitError):
        await finish(clock, lambda: Retrying(inner, policy).chat(HELLO))
    assert len(inner.asked) == 3


def _never(_: float) -> None:
    raise AssertionError("the clock in force waits")


@pytest.mark.parametrize(
    ("retry", "told"), [(None, "would not retry"), (3, r"Write retry=Retry\(attempts=3\)"), (Retry, "no retry policy")]
)
def test_what_is_no_policy_is_refused(retry: Any, told: str) -> None:
    with pytest.raises(LLMError, match=told):
        Retrying(Flaky(), retry)


def test_it_is_a_client_of_the_same_kind() -> None:
    around = Retrying(Flaky())
    assert isinstance(around, BaseChatModel)
    assert isinstance(around, Retrying)
    assert isinstance(Retrying(client=FlakyEmbedder()), BaseEmbedder)
    assert isinstance(copy.copy(around), type(around))
