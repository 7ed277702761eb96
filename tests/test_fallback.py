"""Several clients: the next is asked where one fails, visibly, and only where that can help."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agentflow.clock import use_clock
from agentflow.retry import Retry
from agentflow.testing import FakeClock, record
from agentflow_llm import (
    BaseChatModel,
    BaseEmbedder,
    ContentFilterError,
    ContextLengthError,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMNotFoundError,
    LLMResponseError,
    LLMServerError,
    LLMTimeoutError,
    OpenAI,
    QuotaError,
)
from agentflow_llm.fallback import Fallback
from agentflow_llm.retrying import Retrying
from agentflow_llm.server import Answer, LoopbackServer
from flaky import HELLO, Flaky, FlakyEmbedder, finish


def other(*errors: LLMError | None, **how: Any) -> Flaky:
    return Flaky(*errors, model="other", provider="elsewhere", retry=None, **how)


@pytest.mark.parametrize(
    "error",
    [
        LLMServerError("down"),
        QuotaError("broke"),
        LLMAuthenticationError("who?"),
        LLMNotFoundError("where?"),
        LLMResponseError("garbage"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_next_is_asked_where_one_cannot_answer(error: LLMError, *, streamed: bool) -> None:
    first, second = Flaky(error, retry=None), other()
    both = Fallback([first, second])
    with record() as seen:
        reply = await (both.stream(HELLO).read() if streamed else both.chat(HELLO))
    assert (reply.model, reply.usage.http_requests, reply.usage.cost) == ("other", 2, 0.5)
    (op,) = seen.operations
    assert (op.subject.provider, op.name, op.outcome) == ("test", "flaky", "ok")
    note = next(note for note in seen.notes[op.ref.id] if note.name == "fallback")
    assert note.facts == {"id": "test/flaky", "to": "elsewhere/other", "error": error}
    (call,) = second.asked
    assert (call.provider, call.model) == ("elsewhere", "other")


@pytest.mark.parametrize("error", [LLMBadRequestError("what?"), ContextLengthError("long"), ContentFilterError("no")])
async def test_request_that_is_wrong_in_itself_is_refused_at_once(error: LLMError) -> None:
    second = other()
    with pytest.raises(type(error)) as caught:
        await Fallback([Flaky(error), second]).chat(HELLO)
    assert (caught.value.http_requests, second.asked) == (1, [])


async def test_classes_of_errors_can_be_chosen() -> None:
    both = Fallback(
        [Flaky(ContextLengthError("long"), LLMServerError("down"), retry=None), other()], on=(ContextLengthError,)
    )
    assert (await both.chat(HELLO)).model == "other"
    with pytest.raises(LLMServerError):
        await both.chat(HELLO)


@pytest.mark.parametrize("streamed", [False, True])
async def test_where_all_fail_the_last_error_names_the_others(*, streamed: bool) -> None:
    both = Fallback([Flaky(LLMServerError("down"), retry=None), other(QuotaError("broke"))])
    with pytest.raises(QuotaError) as caught:
        await (both.stream(HELLO).read() if streamed else both.chat(HELLO))
    assert caught.value.__notes__ == ["test/flaky was asked before, and failed: LLMServerError: down"]
    assert caught.value.http_requests == 2


async def test_each_has_its_own_retries() -> None:
    first = Flaky(*(LLMServerError("down") for _ in range(2)), retry=Retry(attempts=2, wait=5))
    with use_clock(FakeClock()) as clock, record() as seen:
        reply = await finish(clock, lambda: Fallback([first, other()]).chat(HELLO))
    assert seen.noted_on(seen.operations[0]) == ["retry", "fallback"]
    assert (len(first.asked), reply.usage.http_requests) == (2, 3)


async def test_with_retries_around_all_each_is_asked_once_and_then_all_again() -> None:
    first = Flaky(*(LLMServerError("down") for _ in range(2)), retry=Retry(attempts=9))
    second = other(LLMServerError("down too"))
    with use_clock(FakeClock()) as clock, record() as seen:
        reply = await finish(clock, lambda: Retrying(Fallback([first, second]), Retry(attempts=2, wait=1)).chat(HELLO))
    assert seen.noted_on(seen.operations[0]) == ["fallback", "retry", "fallback"]
    assert (len(first.asked), len(second.asked), reply.usage.http_requests) == (2, 2, 4)


@pytest.mark.parametrize("streamed", [False, True])
async def test_each_has_its_own_time(*, streamed: bool) -> None:
    both = Fallback([Flaky(None, timeout=5), other(None, timeout=7), other(takes=1, timeout=9)])
    assert both.timeout == 21
    with use_clock(FakeClock(0)) as clock, record() as seen:
        reply = await finish(clock, lambda: both.stream(HELLO).read() if streamed else both.chat(HELLO))
    assert (reply.model, clock.now) == ("other", 13)
    errors = [note.facts["error"] for note in seen.notes[seen.operations[0].ref.id] if note.name == "fallback"]
    assert [str(error).split(". ")[0] for error in errors] == [
        "'flaky' did not answer within 5 s",
        "'other' did not answer within 7 s",
    ]


@pytest.mark.parametrize(("timeouts", "together"), [((5, None), None), ((5, 6), 11)])
def test_time_of_all_is_the_sum(timeouts: tuple[float | None, ...], together: float | None) -> None:
    assert Fallback([Flaky(timeout=timeout) for timeout in timeouts]).timeout == together
    assert Fallback([Flaky(timeout=timeout) for timeout in timeouts], timeout=3).timeout == 3


async def test_patience_of_the_caller_ends_all() -> None:
    second = other()
    with use_clock(FakeClock(0)) as clock, pytest.raises(LLMTimeoutError, match="within 3 s"):
        await finish(clock, lambda: Fallback([Flaky(None, timeout=5), second]).chat(HELLO, timeout=3))
    assert (clock.now, second.asked) == (3, [])


async def test_stream_does_not_move_on_after_its_first_piece() -> None:
    second = other()
    broken = Flaky(fails_after=LLMConnectionError("cut"))
    said: list[str] = []
    stream = Fallback([broken, second]).stream(HELLO)
    with pytest.raises(LLMConnectionError, match="cut") as caught:
        said.extend([delta.text async for delta in stream])
    assert (second.asked, broken.open, caught.value.http_requests) == ([], 0, 1)


async def test_one_that_cannot_prepare_is_passed_over() -> None:
    class Unfit(Flaky):
        async def prepare(self) -> None:
            raise LLMAuthenticationError("no key")

    reply = await Fallback([Unfit(), other()]).chat(HELLO)
    assert (reply.model, reply.usage.http_requests) == ("other", 1)


async def test_embedder_of_the_same_model_takes_over() -> None:
    first, second = FlakyEmbedder(LLMServerError("down"), retry=None), FlakyEmbedder()
    second.most_texts = 2
    both = Fallback([first, second])
    assert isinstance(both, BaseEmbedder)
    found = await both.embed(["a", "b", "c"])
    assert [vector[1] for vector in found.vectors] == [97, 98, 99]
    assert found.usage.http_requests == 3  # one that failed, and two batches: no more texts than the second takes


@pytest.mark.parametrize(
    ("clients", "told"),
    [
        ([FlakyEmbedder(model="a"), FlakyEmbedder(model="b")], "mixes 'a' and 'b', whose vectors cannot be compared"),
        ([FlakyEmbedder(dimensions=2), FlakyEmbedder()], "mixes 'vectors' with 2 dimensions and 'vectors'"),
        ([Flaky(), FlakyEmbedder()], "mixes chat models with embedders"),
        ([], "takes a list of clients"),
        (Flaky(), "takes a list of clients"),
        ([Flaky(), 3], "3 is no client"),
    ],
)
def test_what_cannot_stand_in_for_each_other_is_refused(clients: Any, told: str) -> None:
    with pytest.raises(LLMError, match=told):
        Fallback(clients)


@pytest.mark.parametrize("on", [LLMServerError, ("LLMServerError",)])
def test_what_is_no_tuple_of_errors_is_refused(on: Any) -> None:
    with pytest.raises(LLMError, match=r"Write on=\("):
        Fallback([Flaky()], on=on)


async def test_it_closes_all_and_shows_all() -> None:
    first, second = Flaky(), other()
    async with Fallback([first, second]) as both:
        assert isinstance(both, BaseChatModel)
        assert (await copy.copy(both).chat(HELLO)).model == "flaky"
        assert repr(both) == "Fallback([Flaky('flaky'), Flaky('other')])"
    assert (first.closed, second.closed) == (1, 1)


def test_clients_without_their_list_are_shown_the_right_line() -> None:
    make: Any = Fallback
    with pytest.raises(LLMError, match=r"Write Fallback\(\[OpenAI\('gpt-4o'\), other\]\)"):
        make(Flaky(), Flaky())
    with pytest.raises(LLMError, match=r"'gpt' is no client. Write Fallback\(\[OpenAI\('gpt-4o-mini'\), other\]\)"):
        make(["gpt"])


async def test_classes_that_no_error_of_a_client_has_are_refused() -> None:
    on: Any = (ConnectionError,)
    with pytest.raises(LLMError, match=r"on=\(ConnectionError,\) would never hold.*on=\(LLMConnectionError,\)"):
        Fallback([Flaky()], on=on)
    late: Any = (TimeoutError,)
    assert (await Fallback([Flaky(LLMTimeoutError("late"), retry=None), other()], on=late).chat(HELLO)).model == "other"


def test_request_is_that_of_the_first() -> None:
    both: Any = Fallback([OpenAI("m", base_url="http://127.0.0.1:9/v1"), other()])
    assert both.render_request(HELLO)["model"] == "m"
    assert not hasattr(Fallback([Flaky()]), "render_request")


@pytest.mark.parametrize("streamed", [False, True])
async def test_request_that_got_no_answer_in_time_is_counted(*, streamed: bool) -> None:
    with LoopbackServer([Answer("late", delay=60)]) as server:
        async with OpenAI("m", base_url=server.base_url, timeout=0.2) as slow:
            both = Fallback([slow, other()])
            reply = await (both.stream(HELLO).read() if streamed else both.chat(HELLO))
    assert (reply.model, reply.usage.http_requests) == ("other", 2)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("around", [None, Retry(attempts=2, wait=0)])
async def test_each_is_asked_with_the_options_of_its_own_constructor(around: Retry | None, *, streamed: bool) -> None:
    down = LLMServerError("down")
    first = Flaky(down, retry=None, temperature=0.1, seed=1, extra={"user": "u"})
    second = other(LLMServerError("down"), temperature=0.9, extra={"top_k": 3})
    third = Flaky(model="third", max_tokens=7)
    model: Any = Fallback([first, second, third])
    if around is not None:
        model = Retrying(model, around)
    with record() as seen:
        await (model.stream(HELLO, seed=5).read() if streamed else model.chat(HELLO, seed=5))
    asked = [call for one in (first, second, third) for call in one.asked]
    assert [(call.parameters, call.extra) for call in asked] == [
        ({"temperature": 0.1, "seed": 5}, {"user": "u"}),
        ({"temperature": 0.9, "seed": 5}, {"top_k": 3}),
        ({"max_tokens": 7, "seed": 5}, {}),
    ]
    (op,) = seen.operations
    assert (op.subject.parameters, op.subject.extra) == (asked[0].parameters, asked[0].extra)
    moves = [note.facts for note in seen.notes[op.ref.id] if note.name == "fallback"]
    assert [(facts["parameters"], facts["extra"]) for facts in moves] == [
        (call.parameters, call.extra) for call in asked[1:]
    ]


async def test_move_to_one_with_the_same_options_does_not_tell_them() -> None:
    both = Fallback([Flaky(LLMServerError("down"), retry=None, temperature=0.1), other(temperature=0.1)])
    with record() as seen:
        await both.chat(HELLO)
    note = next(note for note in seen.notes[seen.operations[0].ref.id] if note.name == "fallback")
    assert note.facts.keys() == {"id", "to", "error"}


async def test_fallback_inside_another_keeps_them_apart_as_well() -> None:
    models = [
        Flaky(LLMServerError("down"), retry=None, temperature=0.1),
        Flaky(LLMServerError("down"), retry=None, max_tokens=5),
        Flaky(),
    ]
    await Fallback([Fallback(models[:2]), models[2]]).chat(HELLO)
    assert [model.asked[0].parameters for model in models] == [{"temperature": 0.1}, {"max_tokens": 5}, {}]
