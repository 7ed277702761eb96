"""What all chat models share: plain and streamed answers, answers of a given shape, and the names of completions."""

from __future__ import annotations

import time
from abc import abstractmethod
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from agentflow.clock import current_clock
from agentflow.errors import shown
from agentflow.observe import Kind, open_operation

from .backoff import Attempts
from .call import BaseClient, counting
from .closing import Closing
from .completion import Completion
from .errors import LLMBadRequestError, LLMError, LLMOutputError
from .loose import excerpt
from .messages import ChatMessage, Delta, Reply, ToolDefinition
from .model import TOOL_CHOICES
from .options import OF_A_CALL, checked_defaults, checked_extra, merged, unknown_option
from .output import output_format
from .records import ChatCall
from .stream import ReplyStream, TimeLimit, pieces_of, unseen
from .tokens import TokenEstimator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
    from typing import Unpack

    from agentflow.observe import Opened

    from .backoff import Policy
    from .model import ChatOptions, ModelOptions, RequestOptions

_PARAMETERS = ("temperature", "max_tokens", "stop", "seed", "reasoning", "tool_choice")
_MESSAGES = {ChatMessage}
_REPAIRS = 1
"""How often a model is asked to correct an output that is not valid."""


class BaseChatModel(BaseClient[ChatCall, Reply]):
    """A `ChatModel` whose subclass only says how to answer once, `answer`, and where it can stream, `deltas`.

    - `retry`: asks again while the server cannot answer; None asks once.
    - `timeout`: seconds for all attempts of a call together, unless the call says otherwise; None for no limit.
    - `temperature`, `max_tokens` and the rest of `ModelOptions`: of all calls, where a call does not say its own.

    `defaults` are the last of these, as they were given.
    """

    kind = Kind.CHAT
    _tokens: TokenEstimator | None = None

    def __init__(
        self,
        model: str,
        provider: str,
        *,
        retry: Policy | None = None,
        timeout: float | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(model, provider, retry=retry, timeout=timeout)
        self.defaults = checked_defaults(options, type(self))

    @property
    def tokens(self) -> TokenEstimator:
        """An estimator of tokens; from when it is first asked for, it learns from what this model's server counts."""
        if self._tokens is None:
            self._tokens = TokenEstimator()
        return self._tokens

    @abstractmethod
    async def answer(self, call: ChatCall) -> Reply:
        """Answer once: without retries, operation, or limit on time. Raises `LLMError`.

        An error says in `http_requests` how many requests were sent for it, as the reply's usage does.
        """

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """As `answer`, in pieces; the last item is the reply. Where it is not overridden, cut from `answer`."""
        reply = await self.answer(call)
        for delta in pieces_of(reply):
            yield delta
        yield reply

    async def chat(self, messages: Sequence[ChatMessage], **options: Unpack[ChatOptions]) -> Reply:
        """See `ChatModel.chat`."""
        call = self.call_of(messages, options)
        reply = await self._call(call, options.get("timeout"))
        self.learn(call, reply)
        return reply

    def stream(self, messages: Sequence[ChatMessage], **options: Unpack[ChatOptions]) -> ReplyStream:
        """See `ChatModel.stream`."""
        call = replace(self.call_of(messages, options), streamed=True)
        timeout = self.patience(options.get("timeout"))
        limit = None if timeout is None else TimeLimit(timeout, partial(self.late_with, timeout, call.progress))
        return ReplyStream(self._pieces(call, limit), limit)

    def learn(self, call: ChatCall, reply: Reply) -> None:
        """Let the estimator know what was counted, where somebody uses it."""
        if self._tokens is not None and call.output is None:  # an output's shape, and its repairs, are counted as well
            self._tokens.learn(call.messages, reply.usage.input_tokens, call.tools)

    async def acomplete(self, prompt: str, **options: Unpack[ChatOptions]) -> Completion:
        """Answer a prompt: `str()` of it, or `.text`, is the answer. The same as `chat` with one message of a user."""
        reply = await self.chat(_prompt(prompt), **options)
        return Completion([reply.text], 1, reply.text)

    async def astream_complete(self, prompt: str, **options: Unpack[ChatOptions]) -> AsyncIterator[Completion]:
        """Answer a prompt in pieces: `async for part in await model.astream_complete(prompt)`.

        `part.delta` is the new text, `str(part)` all of it so far. The same as `stream` with one message of a user.
        """
        return _Completions(self.stream(_prompt(prompt), **options))

    def call_of(self, messages: Sequence[ChatMessage], options: RequestOptions) -> ChatCall:
        """The record of a call. Raises `LLMBadRequestError` where the options make no sense."""
        unknown = options.keys() - OF_A_CALL
        if unknown:
            raise unknown_option(min(unknown))
        given: Any = options
        asked: Mapping[str, Any]
        asked = parameters = {name: given[name] for name in _PARAMETERS if given.get(name) is not None}
        conversation = _conversation(messages)
        tools = options.get("tools")
        tools = () if tools is None else _tools(tools)
        extra: Mapping[str, Any] = checked_extra(given["extra"]) if given.get("extra") is not None else {}
        if "tool_choice" in parameters:
            _check_choice(parameters["tool_choice"], tools)
        if isinstance(parameters.get("stop"), str):
            parameters["stop"] = [parameters["stop"]]
        output = options.get("output")
        said = None
        if self.defaults:
            said = asked, extra
            asked, extra = merged(self.defaults, asked, extra)
        return ChatCall(
            self.provider,
            self.model,
            conversation,
            tools,
            asked,
            extra,
            self.server_address,
            self.server_port,
            None if output is None else output_format(output),
            said,
        )

    def readdressed(self, call: ChatCall) -> ChatCall:
        """The call of another model, as one of this model: with its own defaults in place of the other's."""
        call = super().readdressed(call)
        if call.said is None and not self.defaults:
            return call
        said = call.said or (call.parameters, call.extra)
        parameters, extra = merged(self.defaults, *said)
        return replace(call, parameters=parameters, extra=extra, said=said)

    def whole(self, call: ChatCall) -> Awaitable[Reply]:
        """`complete`, and where an output of some shape is asked for, see that it has it."""
        return self.complete(call) if call.output is None else self._shaped(call)

    async def _shaped(self, call: ChatCall) -> Reply:
        sent = call.progress.http_requests
        reply = await self.complete(call)
        for repairs in range(_REPAIRS + 1):
            try:
                return with_output(call, reply)
            except LLMOutputError as error:
                if repairs == _REPAIRS or reply.finish_reason == "length":
                    raise
                if call.noting is not None:
                    call.noting("repair", {"attempt": repairs + 1, "error": error})
                again = ChatMessage(role="user", content=str(error))
                call = replace(call, messages=(*call.messages, reply.message, again))
            before = reply.usage
            call.progress.counted(sent + before.http_requests)
            try:
                reply = await self.complete(call)
            except LLMError as error:
                error.http_requests += before.http_requests
                raise
            reply = reply.model_copy(update={"usage": before + reply.usage})
        raise AssertionError("the last round returns or raises")

    async def complete_deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """As `complete`, in pieces. Nothing is asked again once the first was handed on."""
        attempts = Attempts(self.retry, call)
        begun = False
        while True:
            try:
                async with aclosing(self.deltas(call)) as items:
                    async for item in items:
                        begun = True
                        yield item if isinstance(item, Delta) else counting(item, attempts.http_requests)
            except LLMError as error:
                await attempts.wait(error, again=not begun)
            else:
                return

    async def _pieces(self, call: ChatCall, limit: TimeLimit | None) -> AsyncGenerator[Delta | Reply]:
        """As `_call`, in pieces."""
        await self.prepare()
        if limit is not None:
            call = replace(call, deadline=current_clock().monotonic() + limit.seconds)
        context = copy_context()
        seen = context.run(open_operation, self.kind, self.model, call)
        if seen is None:
            async with aclosing(self.complete_deltas(call)) as items:
                try:
                    item = await unseen(items.__anext__)
                except StopAsyncIteration:
                    return
                yield item if isinstance(item, Delta) else self._whole(call, item)
                async for item in items:
                    yield item if isinstance(item, Delta) else self._whole(call, item)
            return
        failed: BaseException | None = None
        try:
            call = replace(call, noting=seen.note)
            async with aclosing(self.complete_deltas(call)) as items:
                # until the first piece has come the operation is the current one, for whoever sends the request
                try:
                    yield self._seen(await unseen(items.__anext__, context), call, seen, first=True)
                except StopAsyncIteration:
                    return
                async for item in items:
                    yield item if isinstance(item, Delta) else self._seen(item, call, seen)
        except BaseException as error:
            failed = error if limit is None or limit.error is None else limit.error
            raise
        finally:
            context.run(seen.close, failed)

    def _seen(self, item: Delta | Reply, call: ChatCall, seen: Opened, *, first: bool = False) -> Delta | Reply:
        if first:
            seen.note("first_chunk", {"after": (time.time_ns() - seen.op.started_at) / 1e9})
        if isinstance(item, Delta):
            return item
        seen.op.result = item
        seen.op.result = item = self._whole(call, item)
        return item

    def _whole(self, call: ChatCall, reply: Reply) -> Reply:
        """What ends a stream. Raises `LLMOutputError`."""
        self.learn(call, reply)
        return with_output(call, reply)


def with_output(call: ChatCall, reply: Reply) -> Reply:
    """The reply with its output, where one is asked for. Raises `LLMOutputError` where that is not valid."""
    if call.output is None or reply.refusal or reply.tool_calls:  # tools come first, where there are any
        return reply
    try:
        return reply.model_copy(update={"output": call.output.read(reply.text)})
    except LLMOutputError as error:
        error.http_requests, error.reply = reply.usage.http_requests, reply
        if reply.finish_reason != "length":
            raise
        cut = LLMOutputError(
            "The answer was cut before its JSON object came to an end. Give it more room with max_tokens=.", reply.text
        )
        cut.http_requests, cut.reply = error.http_requests, reply
        raise cut from error


class _Completions(Closing):
    """A stream as completions that grow. No generator: one that is around a stream might be closed at the same time."""

    def __init__(self, stream: ReplyStream) -> None:
        self._stream = stream
        self._said: list[str] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Completion:
        async for delta in self._stream:
            if delta.type == "text":
                self._said.append(delta.text)
                return Completion(self._said, len(self._said), delta.text)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream."""
        await self._stream.aclose()


def _prompt(prompt: Any) -> Sequence[ChatMessage]:
    """One message of a user. Raises `LLMBadRequestError` where it is no text."""
    if not isinstance(prompt, str):
        raise LLMBadRequestError(f"A prompt is a text, not {shown(prompt)}. For messages write chat(messages).")
    return (ChatMessage(role="user", content=prompt),)


def _conversation(messages: Any) -> tuple[ChatMessage, ...]:
    """The messages, which nobody can change any more. Raises `LLMBadRequestError` where they are something else."""
    try:
        said: tuple[Any, ...] = tuple(messages)
    except TypeError:
        said = ()
    kinds = {*map(type, said)}
    if kinds == _MESSAGES or (kinds and all(issubclass(kind, ChatMessage) for kind in kinds)):
        return said
    if isinstance(messages, ChatMessage):
        raise LLMBadRequestError("A call takes a list of messages, not a single one. Write chat([message]).")
    if not isinstance(messages, str):
        messages = next((message for message in said if not isinstance(message, ChatMessage)), messages)
    text = excerpt(messages if isinstance(messages, str) else "Hello")
    raise LLMBadRequestError(
        f"A call takes a list of messages, one at the least, not {shown(messages)}. "
        f"Write chat([ChatMessage(role='user', content={text})])."
    )


def _tools(tools: Any) -> tuple[ToolDefinition, ...]:
    """The tools, likewise."""
    try:
        listed: tuple[Any, ...] = tuple(tools)
    except TypeError:
        listed = (tools,)
    wrong = [tool for tool in listed if not isinstance(tool, ToolDefinition)]
    if not wrong:
        return listed
    wrong = [tools] if isinstance(tools, ToolDefinition) else wrong
    raise LLMBadRequestError(
        f"tools= takes a list of ToolDefinition, not {shown(wrong[0])}. Write "
        "tools=[ToolDefinition(name='search', description='...', parameters={...})]; an agent takes functions as well."
    )


def _check_choice(choice: str, tools: Sequence[ToolDefinition]) -> None:
    names = [tool.name for tool in tools]
    if choice in names or (choice in TOOL_CHOICES and (tools or choice != "required")):
        return
    if not tools:
        raise LLMBadRequestError(
            f"tool_choice={choice!r} needs tools. Write chat(messages, tools=[...], tool_choice=...)."
        )
    valid = ", ".join(map(repr, (*TOOL_CHOICES, *names)))
    raise LLMBadRequestError(f"tool_choice={choice!r} is no tool of this call. Choose one of {valid}.")
