"""What all chat models share: a call is one operation, however many attempts it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from agentflow.clock import current_clock
from agentflow.observe import Kind, operation

from .backoff import checked, wait_before_retry
from .errors import LLMError, LLMRefusedError, LLMTimeoutError
from .records import ChatCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentflow.clock import Clock
    from agentflow.observe import Operation, Watch
    from agentflow.retry import RetryPolicy

    from .messages import ChatMessage, Reply, ToolDefinition

_CHOICES = ("auto", "none", "required")


class BaseChatModel(ABC):
    """A `ChatModel` whose subclass only says how to answer once.

    - `retry`: asks again while the server cannot answer; None asks once.
    - `timeout`: seconds for all attempts of a call together, unless the call says otherwise; None for no limit.
    """

    server_address: str | None = None
    server_port: int | None = None

    def __init__(
        self, model: str, provider: str, *, retry: RetryPolicy | None = None, timeout: float | None = None
    ) -> None:
        self.model = model
        self.provider = provider
        self.timeout = timeout
        self._retry = checked(retry)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    async def prepare(self) -> None:  # noqa: B027 because few subclasses have anything to do here
        """Load what `answer` needs, such as a library: it is awaited before the call's operation begins."""

    @abstractmethod
    async def answer(self, call: ChatCall) -> Reply:
        """Answer once: no retries, no operation, no limit on time; `chat` sees to these."""

    async def chat(  # noqa: PLR0913 because these are the parameters that models have
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[ToolDefinition] = (),
        tool_choice: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
        timeout: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Reply:
        """See `ChatModel.chat`."""
        asked = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        call = self._call(messages, tools, extra, tool_choice=tool_choice, stop=stop, **asked)
        await self.prepare()
        with operation(Kind.CHAT, self.model, call) as seen:
            reply = await self._in_time(call, self.timeout if timeout is None else timeout, seen)
            if seen is not None:
                seen[1].result = reply
            return reply

    def _call(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolDefinition],
        extra: Mapping[str, Any] | None,
        *,
        tool_choice: str | None,
        stop: Sequence[str] | None,
        **asked: Any,
    ) -> ChatCall:
        if tool_choice is not None:
            _check_choice(tool_choice, tools)
        asked = {"tool_choice": tool_choice, "stop": [stop] if isinstance(stop, str) else stop, **asked}
        parameters = {name: value for name, value in asked.items() if value is not None}
        return ChatCall(
            self.provider,
            self.model,
            messages,
            tools,
            parameters,
            extra if extra is not None else {},
            self.server_address,
            self.server_port,
        )

    async def _in_time(self, call: ChatCall, timeout: float | None, seen: tuple[Watch, Operation] | None) -> Reply:
        clock = current_clock()
        if timeout is None:
            return await self._with_retries(call, clock, None, seen)
        limit = clock.timeout(timeout)
        try:
            async with limit:
                return await self._with_retries(call, clock, clock.monotonic() + timeout, seen)
        except TimeoutError as error:
            if isinstance(error, LLMTimeoutError) or not limit.expired():
                raise
            raise LLMTimeoutError(
                f"{self.model!r}{self._place} did not answer within {timeout:g} s. Give it longer with timeout=, "
                "in seconds for all attempts together."
            ) from error

    @property
    def _place(self) -> str:
        """Where the model runs, to be put behind its name in a message."""
        return ""

    async def _with_retries(
        self, call: ChatCall, clock: Clock, deadline: float | None, seen: tuple[Watch, Operation] | None
    ) -> Reply:
        attempts, first_failure = 0, 0.0
        while True:
            attempts += 1
            try:
                reply = await self.answer(call)
            except LLMError as error:
                now = clock.monotonic()
                first_failure = first_failure if attempts > 1 else now
                left = None if deadline is None else deadline - now
                wait = wait_before_retry(self._retry, error, attempts=attempts, elapsed=now - first_failure, left=left)
                if wait is None:
                    error.attempts = attempts
                    raise
                if seen is not None:
                    facts = {
                        "attempt": attempts,
                        "wait": wait,
                        "error": error,
                        "status": error.status,
                        "retry_after": error.retry_after,
                    }
                    seen[0].noted(seen[1], "retry", facts)
            else:
                return reply if attempts == 1 else _counting(reply, attempts)
            await clock.sleep(wait)


def _counting(reply: Reply, attempts: int) -> Reply:
    """The reply, with the requests of the attempts that failed in its usage."""
    requests = reply.usage.http_requests + attempts - 1
    return reply.model_copy(update={"usage": reply.usage.model_copy(update={"http_requests": requests})})


def _check_choice(choice: str, tools: Sequence[ToolDefinition]) -> None:
    names = [tool.name for tool in tools]
    if choice in names or (choice in _CHOICES and (tools or choice != "required")):
        return
    if not tools:
        raise LLMRefusedError(
            f"tool_choice={choice!r} needs tools. Write chat(messages, tools=[...], tool_choice=...)."
        )
    valid = ", ".join(map(repr, (*_CHOICES, *names)))
    raise LLMRefusedError(f"tool_choice={choice!r} is no tool of this call. Choose one of {valid}.")
