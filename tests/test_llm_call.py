"""A logical call of a model: one operation, retries noted on it, and a limit that no wait outlasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import use_clock
from agentflow.observe import Kind
from agentflow.retry import Retry, RetryPolicy
from agentflow.testing import FakeClock, record
from agentflow_llm import (
    BaseChatModel,
    ChatCall,
    ChatMessage,
    ChatModel,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMError,
    LLMRefusedError,
    LLMServerError,
    LLMTimeoutError,
    LLMUnavailableError,
    OpenAI,
    QuotaError,
    RateLimitError,
    Reply,
    ToolDefinition,
    Usage,
)
from agentflow_llm.server import Answer, LoopbackServer

HELLO = [ChatMessage(role="user", content="Hello")]
THREE = Retry(attempts=3)
SEARCH = ToolDefinition(name="search")


class Flaky(BaseChatModel):
    """Fails with each of some errors, then answers; None in place of an error never comes to an end."""

    def __init__(
        self, *errors: LLMError | None, retry: RetryPolicy | None = THREE, timeout: float | None = None
    ) -> None:
        super().__init__("flaky", "test", retry=retry, timeout=timeout)
        self.errors = list(errors)
        self.asked: list[ChatCall] = []

    async def answer(self, call: ChatCall) -> Reply:
        self.asked.append(call)
        if self.errors:
            error = self.errors.pop(0)
            if error is None:
                await asyncio.Event().wait()
            else:
                error.http_requests = 1
                raise error
        return Reply(message=ChatMessage(role="assistant", content="Hi"), usage=Usage(output_tokens=1, http_requests=1))


async def finish(clock: FakeClock, asking: Callable[[], object]) -> object:
    """Let time pass, a second at a time, until the call has ended."""
    task = asyncio.ensure_future(asking())  # type: ignore[call-overload]  # because any awaitable will do
    while not task.done():
        await clock.advance(1)
    return await task


def test_subclass_is_a_chat_model() -> None:
    assert isinstance(Flaky(), ChatModel)
    assert repr(Flaky()) == "Flaky('flaky')"


async def test_call_is_one_operation_with_its_facts_and_its_reply() -> None:
    with record() as seen:
        reply = await Flaky().chat(HELLO, tools=[SEARCH], tool_choice="search", temperature=0.5, extra={"user": "u"})
    (op,) = seen.operations
    assert (op.kind, op.name, op.outcome) == (Kind.CHAT, "flaky", "ok")
    assert op.result is reply
    assert op.subject == ChatCall(
        "test", "flaky", (*HELLO,), (SEARCH,), {"tool_choice": "search", "temperature": 0.5}, {"user": "u"}
    )
    assert op.subject.messages == (*HELLO,)


async def test_failure_that_may_pass_is_tried_again_and_noted() -> None:
    busy = RateLimitError("busy", status=429, retry_after=7)
    down = LLMUnavailableError("down", status=503)
    model = Flaky(busy, down)
    with use_clock(FakeClock()) as clock, record() as seen:
        reply = await finish(clock, lambda: model.chat(HELLO))
    assert isinstance(reply, Reply)
    assert reply.usage == Usage(output_tokens=1, http_requests=3)
    (op,) = seen.operations
    assert seen.noted_on(op) == ["retry", "retry"]
    first, second = (note.facts for note in seen.notes[op.ref.id])
    assert first == {"attempt": 1, "wait": 7, "error": busy, "status": 429, "retry_after": 7}
    assert (second["attempt"], second["error"], second["retry_after"]) == (2, down, None)
    assert 0 <= second["wait"] <= 30


async def test_last_error_stands_when_attempts_are_used_up() -> None:
    model = Flaky(*(LLMUnavailableError(f"down {n}") for n in (1, 2, 3)))
    with (
        use_clock(FakeClock()) as clock,
        record() as seen,
        pytest.raises(LLMUnavailableError, match="down 3") as caught,
    ):
        await finish(clock, lambda: model.chat(HELLO))
    (op,) = seen.operations
    assert (op.outcome, seen.errors[op.ref.id]) == ("error", caught.value)
    assert seen.noted_on(op) == ["retry", "retry"]
    assert (caught.value.attempts, caught.value.http_requests) == (3, 3)


@pytest.mark.parametrize(
    "error", [QuotaError("broke", status=429), LLMAuthenticationError("who?"), RateLimitError("later", retry_after=61)]
)
async def test_what_will_not_pass_is_not_tried_again(error: LLMError) -> None:
    model = Flaky(error)
    with pytest.raises(type(error)) as caught:
        await model.chat(HELLO)
    assert caught.value is error
    assert len(model.asked) == error.attempts == 1


async def test_without_a_policy_the_model_is_asked_once() -> None:
    with pytest.raises(LLMUnavailableError):
        await Flaky(LLMUnavailableError("down"), retry=None).chat(HELLO)


async def test_limit_covers_all_attempts_together() -> None:
    model = Flaky(LLMUnavailableError("down"), None, retry=Retry(attempts=5, wait=4), timeout=10)
    with use_clock(FakeClock()) as clock, record() as seen, pytest.raises(LLMTimeoutError, match="within 10 s"):
        await finish(clock, lambda: model.chat(HELLO))
    assert clock.now == 1_000_000_000 + 10
    assert seen.operations[0].outcome == "timeout"


async def test_time_limit_of_somebody_else_is_not_taken_for_the_model_s() -> None:
    class Impatient(Flaky):
        async def answer(self, call: ChatCall) -> Reply:
            raise TimeoutError("a lock of mine")

    with pytest.raises(TimeoutError, match="a lock of mine"):
        await Impatient(timeout=10).chat(HELLO)


async def test_limit_of_a_call_goes_before_the_model_s() -> None:
    with use_clock(FakeClock()) as clock, pytest.raises(LLMTimeoutError, match="within 2 s"):
        await finish(clock, lambda: Flaky(None, timeout=10).chat(HELLO, timeout=2))


@given(wait=st.integers(1, 20), limit=st.integers(1, 60))
async def test_no_wait_outlasts_the_limit(wait: int, limit: int) -> None:
    model = Flaky(*(LLMUnavailableError("down") for _ in range(9)), retry=Retry(attempts=9, wait=wait), timeout=limit)
    with use_clock(FakeClock()) as clock, record() as seen, pytest.raises(LLMUnavailableError, match="down"):
        await finish(clock, lambda: model.chat(HELLO))
    waited = sum(note.facts["wait"] for note in seen.notes.get(seen.operations[0].ref.id, ()))
    assert waited < limit
    assert len(model.asked) == 9 or waited + wait >= limit


async def test_cancellation_ends_a_wait_at_once() -> None:
    model = Flaky(LLMUnavailableError("down", retry_after=50))
    with use_clock(FakeClock()) as clock, record() as seen:
        task = asyncio.create_task(model.chat(HELLO))
        await clock.settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (seen.operations[0].outcome, clock.pending) == ("cancelled", [])


@pytest.mark.parametrize("policy", [3, Retry])
def test_what_is_no_policy_is_refused_with_the_right_line(policy: RetryPolicy) -> None:
    with pytest.raises(LLMError, match=r"retry=Retry\(attempts=3\)"):
        Flaky(retry=policy)


async def test_policy_of_one_s_own_decides_by_itself() -> None:
    class Patient:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            return attempts * 10.0 if attempts < 3 else None

    with use_clock(FakeClock()) as clock, record() as seen:
        errors = (LLMUnavailableError("down", retry_after=1) for _ in range(2))
        await finish(clock, lambda: Flaky(*errors, retry=Patient()).chat(HELLO))
    assert [note.facts["wait"] for note in seen.notes[seen.operations[0].ref.id]] == [10, 20]


async def test_wait_is_never_shorter_than_none() -> None:
    class Hasty:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            return -5.0

    with use_clock(FakeClock()) as clock, record() as seen:
        await finish(clock, lambda: Flaky(LLMUnavailableError("down"), retry=Hasty()).chat(HELLO))
    assert [note.facts["wait"] for note in seen.notes[seen.operations[0].ref.id]] == [0]


@pytest.mark.parametrize(
    ("choice", "tools", "told"),
    [("serach", [SEARCH], "Choose one of 'auto', 'none', 'required', 'search'"), ("required", [], r"tools=\[...\]")],
)
async def test_choice_of_no_tool_is_refused(choice: str, tools: list[ToolDefinition], told: str) -> None:
    with pytest.raises(LLMRefusedError, match=told):
        await Flaky().chat(HELLO, tools=tools, tool_choice=choice)


async def test_single_stop_may_be_a_string() -> None:
    model = Flaky()
    await model.chat(HELLO, stop="END")
    assert model.asked[0].parameters == {"stop": ["END"]}


async def test_what_a_model_prepares_is_no_part_of_the_call() -> None:
    begun: list[int] = []

    class Loading(Flaky):
        async def prepare(self) -> None:
            begun.append(len(seen.find(Kind.CHAT)))

        async def answer(self, call: ChatCall) -> Reply:
            begun.append(len(seen.find(Kind.CHAT)))
            return await super().answer(call)

    with record() as seen:
        await Loading().chat(HELLO)
    assert begun == [0, 1]


@pytest.mark.parametrize("streamed", [False, True])
async def test_call_that_was_late_tells_what_was_sent(*, streamed: bool) -> None:
    with LoopbackServer([(503, {}, "no"), Answer("late", delay=60)]) as server, use_clock(FakeClock()) as clock:
        async with OpenAI("m", base_url=server.base_url, retry=Retry(5, wait=0), timeout=9) as model:
            waiting = asyncio.ensure_future(model.stream(HELLO).read() if streamed else model.chat(HELLO))
            while len(server.requests) < 2:  # noqa: ASYNC110 because the server is a thread, which wakes nobody
                await asyncio.sleep(0.005)
            await clock.advance(9)
            with pytest.raises(LLMTimeoutError) as caught:
                await waiting
    assert (caught.value.attempts, caught.value.http_requests) == (2, 2)


@pytest.mark.parametrize("streamed", [False, True])
async def test_late_call_counts_the_failures_that_a_client_of_one_s_own_told_of(*, streamed: bool) -> None:
    model = Flaky(LLMServerError("a"), LLMServerError("b"), None, timeout=9)
    with use_clock(FakeClock()) as clock, pytest.raises(LLMTimeoutError) as caught:
        await finish(clock, lambda: model.stream(HELLO).read() if streamed else model.chat(HELLO))
    assert (caught.value.attempts, caught.value.http_requests) == (3, 2)


@pytest.mark.parametrize("timeout", [-1, 0, float("nan"), float("inf"), "5", True])
async def test_time_limit_that_is_none_is_refused(timeout: Any) -> None:
    told = rf"timeout={timeout!r} is no limit. Write timeout=60, in seconds"
    with pytest.raises(LLMBadRequestError, match=told):
        Flaky(timeout=timeout)
    model = Flaky()
    with record() as seen:
        with pytest.raises(LLMBadRequestError, match=told):
            await model.chat(HELLO, timeout=timeout)
        with pytest.raises(LLMBadRequestError, match=told):
            model.stream(HELLO, timeout=timeout)
    assert (model.asked, seen.operations) == ([], [])


@pytest.mark.parametrize("name", [None, "", " ", 5])
def test_model_without_a_name_is_refused(name: Any) -> None:
    with pytest.raises(LLMError, match=r"is no name of a model. Write it as text, such as 'gpt-4o-mini'"):
        OpenAI(name)
