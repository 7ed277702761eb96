"""What all clients share: a call is one operation, however many attempts it takes, and has one limit on its time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from agentflow.clock import current_clock
from agentflow.observe import Kind, operation

from .backoff import Attempts, checked
from .errors import LLMBadRequestError, LLMError, LLMOutputError, LLMTimeoutError
from .messages import Reply
from .model import Embeddings
from .records import ChatCall, EmbeddingsCall

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .backoff import Policy
    from .records import Progress

CallT = TypeVar("CallT", ChatCall, EmbeddingsCall)
AnswerT = TypeVar("AnswerT", Reply, Embeddings)
ResultT = TypeVar("ResultT")


class BaseClient(ABC, Generic[CallT, AnswerT]):
    """A client whose subclass only says how to answer once.

    - `retry`: asks again while the server cannot answer; None asks once.
    - `timeout`: seconds for all attempts of a call together, unless the call says otherwise; None for no limit.
    """

    kind: ClassVar[Kind]
    server_address: str | None = None
    server_port: int | None = None
    account: str | None = None
    """Tells the accounts of one server apart, where that is known: a hash of the key, never the key."""

    def __init__(self, model: str, provider: str, *, retry: Policy | None = None, timeout: float | None = None) -> None:
        given: Any = model
        if not isinstance(given, str) or not given.strip():
            raise LLMError(f"model={model!r} is no name of a model. Write it as text, such as 'gpt-4o-mini'.")
        self.model = model
        self.provider = provider
        self.timeout = checked_timeout(timeout)
        self.retry = checked(retry)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    def readdressed(self, call: CallT) -> CallT:
        """The call of another client, as one of this client."""
        return replace(
            call,
            provider=self.provider,
            model=self.model,
            server_address=self.server_address,
            server_port=self.server_port,
        )

    async def prepare(self) -> None:
        """Load what `answer` needs, such as a library: it is awaited before the call's operation begins."""

    @abstractmethod
    async def answer(self, call: CallT) -> AnswerT:
        """Answer once: without retries, operation, or limit on time. Raises `LLMError`.

        An error says in `http_requests` how many requests were sent for it, as the answer's usage does.
        """

    async def complete(self, call: CallT) -> AnswerT:
        """Answer, with the retries of this client, in the operation that is open. Raises `LLMError`."""
        attempts = Attempts(self.retry, call)
        while True:
            try:
                answer = await self.answer(call)
            except LLMError as error:
                await attempts.wait(error)
            else:
                return counting(answer, attempts.http_requests)

    async def _call(self, call: CallT, timeout: float | None) -> AnswerT:
        """Answer, as one operation, within the limit of time."""
        timeout = self.patience(timeout)
        await self.prepare()
        with operation(self.kind, self.model, call) as seen:
            if seen is not None:
                call = replace(call, noting=seen.note)
            try:
                answer = await self.in_time(call, timeout)
            except LLMOutputError as error:
                if seen is not None:
                    seen.op.result = error.reply
                raise
            if seen is not None:
                seen.op.result = answer
            return answer

    async def in_time(self, call: CallT, timeout: float | None) -> AnswerT:
        """`whole`, within so many seconds; the deadline of the call, if it has one, holds as well."""
        return await self.within(timeout, self.whole(due(call, timeout)), call.progress)

    def patience(self, timeout: float | None) -> float | None:
        """Seconds for a call that says so itself, or does not. Raises `LLMBadRequestError` where it makes no sense."""
        return self.timeout if timeout is None else checked_timeout(timeout)

    async def within(self, timeout: float | None, answer: Awaitable[ResultT], progress: Progress) -> ResultT:
        """Await something of this client for at most so many seconds, for a call that has come so far.

        Raises `LLMTimeoutError`, which tells what was sent meanwhile.
        """
        if timeout is None:
            return await answer
        before = progress.attempts, progress.http_requests
        limit = current_clock().timeout(timeout)
        try:
            async with limit:
                return await answer
        except TimeoutError as error:
            if isinstance(error, LLMTimeoutError) or not limit.expired():
                raise
            raise self.late_with(timeout, progress, *before) from error

    def whole(self, call: CallT) -> Awaitable[AnswerT]:
        """All that belongs to a call; `complete`, unless a subclass adds to it."""
        return self.complete(call)

    def late_with(
        self, timeout: float, progress: Progress, attempts: int = 0, http_requests: int = 0
    ) -> LLMTimeoutError:
        """As `late`, with what the call has done since it had so many attempts and requests behind it."""
        if progress.queued is None:
            error = self.late(timeout)
        else:
            error = LLMTimeoutError(
                f"The limits of {progress.queued!r} did not let a call of {self.model!r} through within {timeout:g} s. "
                "Give it longer with timeout=, or ask less at once."
            )
            progress.queued = None
        error.attempts = max(1, progress.attempts - attempts)
        error.http_requests = progress.http_requests - http_requests
        return error

    def late(self, timeout: float) -> LLMTimeoutError:
        """The error of a call that took too long."""
        return LLMTimeoutError(
            f"{self.model!r}{self.place} did not answer within {timeout:g} s. Give it longer with timeout=, "
            "in seconds for all attempts together."
        )

    @property
    def place(self) -> str:
        """Where the model runs, to be put behind its name in a message."""
        return ""


def checked_timeout(timeout: float | None) -> float | None:
    """The limit of time. Raises `LLMBadRequestError` where it is none."""
    given: Any = timeout
    if given is None or (isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < math.inf):
        return timeout
    raise LLMBadRequestError(
        f"timeout={timeout!r} is no limit. Write timeout=60, in seconds, more than 0; None in a client for no limit."
    )


def due(call: CallT, timeout: float | None) -> CallT:
    """The call, with its deadline in so many seconds, if it has none that is sooner."""
    if timeout is None:
        return call
    deadline = current_clock().monotonic() + timeout
    return call if call.deadline is not None and call.deadline <= deadline else replace(call, deadline=deadline)


def counting(answer: AnswerT, http_requests: int) -> AnswerT:
    """The answer, with the requests of attempts that failed in its usage."""
    if not http_requests:
        return answer
    usage = answer.usage.model_copy(update={"http_requests": answer.usage.http_requests + http_requests})
    if isinstance(answer, Reply):
        return answer.model_copy(update={"usage": usage})
    return replace(answer, usage=usage)
