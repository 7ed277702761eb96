"""What is checked of a chat model."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

from agentflow.clock import current_clock
from agentflow.observe import Kind

from .conformance import must, nothing_left, watching
from .errors import LLMError, LLMResponseError
from .loose import as_dict
from .messages import ChatMessage, Delta, Reply, ToolDefinition, ToolResultPart, Usage
from .model import ChatModel
from .stream import ReplyStream, pieces_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

_SYSTEM = ChatMessage(role="system", content="You are being tested. Answer in one short sentence.")
_HELLO = (_SYSTEM, ChatMessage(role="user", content="Say hello."))
_COUNT = (ChatMessage(role="user", content="Count from one to twenty, in words."),)
_WHERE = (
    ChatMessage(
        role="user",
        content="The Eiffel Tower is in Paris.\n\nWhich city is the Eiffel Tower in? Answer as JSON, with its city.",
    ),
)
_CITY: dict[str, Any] = {
    "title": "Place",
    "type": "object",
    "properties": {"city": {"type": "string", "description": "The city, such as Rome."}},
    "required": ["city"],
    "additionalProperties": False,
}
_LOOK_UP = ToolDefinition(
    name="look_up_population",
    description="Looks up the population of a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
_POPULATION = (ChatMessage(role="user", content='What is the population of the city "Paris"? Look it up.'),)
_TINY = 1e-4
_NOTICED = 1.0
"""Seconds: who takes longer than this, when it was given `_TINY`, takes no notice of the limit."""


class ChatChecks:
    """The checks of one model. `failing` is one of the same kind that cannot answer."""

    def __init__(self, model: ChatModel, failing: ChatModel | None) -> None:
        self.model = model
        self.failing = failing

    def all(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """By name, in the order in which they are run."""
        return {
            "names": self.names,
            "reply": self.reply,
            "usage": self.usage,
            "stream": self.stream,
            "close": self.close,
            "close_elsewhere": self.close_elsewhere,
            "cancel": self.cancel,
            "concurrent": self.concurrent,
            "unchanged": self.unchanged,
            "options": self.options,
            "operation": self.operation,
            "tools": self.tools,
            "tool_results": self.tool_results,
            "output": self.output,
            "errors": self.errors,
            "failing": self.failures,
        }

    async def names(self) -> None:
        """It is a `ChatModel` with a provider and a model."""
        must(
            isinstance(self.model, ChatModel), "It lacks provider, model, chat or stream. See agentflow_llm.ChatModel."
        )
        for name in ("provider", "model"):
            value = getattr(self.model, name)
            must(isinstance(value, str) and value, f"Its {name} is {value!r}. Make it a string that is not empty.")

    async def reply(self) -> None:
        """An answer is a `Reply` with an assistant's message."""
        reply = _reply(await self.model.chat(_HELLO))
        said = reply.text or reply.refusal
        must(said, f"Its reply says nothing: {reply!r}. Put the answer into a TextPart.")
        reason = reply.finish_reason
        must(reason is None or reason, "Its finish_reason is empty. Where the server says nothing, leave it None.")
        bare = reply.model_copy(update={"output": None})
        must(Reply.model_validate_json(bare.model_dump_json()) == bare, "Its reply does not go through JSON unchanged.")

    async def usage(self) -> None:
        """Its usage is a `Usage` that can be."""
        usage = _reply(await self.model.chat(_HELLO)).usage
        must(
            isinstance(usage, Usage),
            f"The usage of its reply is {usage!r}. Make it a Usage; Usage() where nothing is known.",
        )
        for name, value in usage:
            must(
                value is None or value >= 0,
                f"Its usage has {name}={value!r}. Where a number is not known, leave it None.",
            )
        for part, whole in (
            ("cached_tokens", "input_tokens"),
            ("cache_write_tokens", "input_tokens"),
            ("reasoning_tokens", "output_tokens"),
        ):
            some, everything = getattr(usage, part), getattr(usage, whole)
            fits = some is None or everything is None or some <= everything
            must(fits, f"Its usage has {part}={some}, more than {whole}={everything}. {whole} includes them.")

    async def stream(self) -> None:
        """The pieces of a streamed answer are its reply."""
        await self._streamed(self._stream(_HELLO))
        stream = self._stream(_COUNT)
        try:
            early = stream.reply
        except LLMResponseError:
            await self._streamed(stream)
        else:
            raise AssertionError(
                f"Before its end a stream has the reply {early!r}. Set it when the last piece has come."
            )

    def _stream(self, messages: Iterable[ChatMessage], **options: Any) -> ReplyStream:
        stream: Any = self.model.stream(list(messages), **options)
        must(
            isinstance(stream, ReplyStream),
            f"stream() returns {stream!r}. Return ReplyStream(items), where items is an async generator of Delta, with "
            "the Reply as its last item; stream itself is no coroutine.",
        )
        return cast("ReplyStream", stream)

    async def _streamed(self, stream: ReplyStream) -> Reply:
        async with stream:
            deltas = [delta async for delta in stream]
        wrong = [delta for delta in cast("list[object]", deltas) if not isinstance(delta, Delta)]
        must(not wrong, f"Its stream gives {wrong[:1]!r}. Give Delta, and the Reply as the last item.")
        must(deltas, "Its stream has no pieces. Give at least one Delta for what is said.")
        reply = _reply(stream.reply)
        together, whole = _together(deltas), _together(pieces_of(reply))
        must(
            together == whole,
            f"The pieces of its stream are {together!r}, but its reply has {whole!r}. Make the reply of these pieces.",
        )
        return reply

    async def close(self) -> None:
        """A stream may be closed before its end."""
        async with nothing_left("A stream that is closed early"):
            async with self._stream(_COUNT) as stream:
                await anext(stream, None)
            must(await anext(stream, None) is None, "A stream that was closed goes on. End it in aclose().")
            unread = self._stream(_COUNT)
            await unread.aclose()
            must(await anext(unread, None) is None, "A stream that was closed before its first piece goes on.")

    async def close_elsewhere(self) -> None:
        """A stream may be closed by another task than the one that reads it."""
        stream = self._stream(_COUNT)
        begun = asyncio.Event()

        async def read() -> None:
            try:
                async for _ in stream:
                    begun.set()
                    await asyncio.sleep(0)
            finally:
                begun.set()

        async with nothing_left("A stream that another task closes"):
            reader = asyncio.create_task(read())
            await begun.wait()
            await stream.aclose()
            (end,) = await asyncio.gather(reader, return_exceptions=True)
            must(
                end is None,
                f"Who reads a stream that another task closes gets {end!r}. It should find the stream at its end.",
            )

    async def cancel(self) -> None:
        """A call that is cancelled ends at once, and with that."""
        async with nothing_left("A call that is cancelled"):
            for turns in (1, 10):
                call = asyncio.create_task(_chat(self.model, _HELLO))
                for _ in range(turns):
                    await asyncio.sleep(0)
                going_on = call.cancel()
                (end,) = await asyncio.gather(call, return_exceptions=True)
                must(
                    not going_on or isinstance(end, asyncio.CancelledError),
                    f"A call that was cancelled ends with {end!r}. Let CancelledError through.",
                )

    async def concurrent(self) -> None:
        """Several calls go on at once."""
        streams = [self._stream(_HELLO), self._stream(_COUNT)]
        calls = [_chat(self.model, _HELLO) for _ in range(3)]
        replies = await asyncio.gather(*calls, *(stream.read() for stream in streams))
        ids = {_reply(reply).message.id for reply in replies}
        must(
            len(ids) == len(replies), "Concurrent calls give messages of the same id. Make a new message for each call."
        )

    async def unchanged(self) -> None:
        """What it is given stays as it was."""
        messages, tools = list(_HELLO), [_LOOK_UP]
        before = _dumped(messages), _dumped(tools)
        await self.model.chat(messages)
        await self.model.chat(messages, tools=tools, tool_choice="none")
        await self.model.stream(messages).read()
        after = _dumped(messages), _dumped(tools)
        must(before == after, "It changes the messages or tools that it is given. Copy what you have to change.")

    async def options(self) -> None:
        """An option that there is not is refused by its name; one that is None is as if it were not there."""
        wrong: Any = {"temperatur": 0}
        for ask in (_chat, _stream):
            try:
                reply = await ask(self.model, _HELLO, **wrong)
            except Exception as error:  # noqa: BLE001 because a TypeError says so as well
                must(
                    "temperatur" in str(error), f"An option that there is not raises {error!r}, which does not name it."
                )
            else:
                raise AssertionError(
                    f"It takes no notice of the unknown option temperatur=0: {reply!r}. Raise an error."
                )
        _reply(await self.model.chat(_HELLO, tools=[], tool_choice=None, temperature=None, stop=None, timeout=None))

    async def operation(self) -> None:
        """A call is one operation, which has the reply as its result, and ends on every path."""
        with watching(Kind.CHAT) as seen:
            reply = await self.model.chat(_HELLO)
        op, error = seen.only("A call")
        must(error is None and op.result == reply, "The operation of a call has not its reply as the result.")
        for name in ("provider", "model"):
            told = getattr(op.subject, name, None)
            must(told, f"The operation's subject does not tell the {name}. Let it be a records.ChatCall.")
        with watching(Kind.CHAT) as seen:
            stream = self._stream(_HELLO)
            await stream.read()
        op, error = seen.only("A stream")
        must(error is None and op.result == stream.reply, "The operation of a stream has not its reply as the result.")
        with watching(Kind.CHAT) as seen:
            async with self._stream(_COUNT) as stream:
                await anext(stream, None)
        seen.only("A stream that is closed early")

    async def tools(self) -> None:
        """A call of a tool has an id, a name and JSON as arguments, plain and streamed."""
        offered = {"tools": [_LOOK_UP], "tool_choice": "required"}
        self._called(_reply(await self.model.chat(_POPULATION, **cast("Any", offered))))
        self._called(await self._streamed(self._stream(_POPULATION, **offered)))

    def _called(self, reply: Reply) -> None:
        calls = reply.tool_calls
        must(calls, f"Asked with tool_choice='required', it calls no tool: {reply!r}. Send tools, or skip={{'tools'}}.")
        must(
            len({call.id for call in calls}) == len(calls), "Two of its tool calls have the same id. Make ids for them."
        )
        for call in calls:
            must(call.id, f"Its tool call has no id: {call!r}. Make one, or its result cannot be told from others'.")
            must(call.name == _LOOK_UP.name, f"It calls {call.name!r}, but was offered {_LOOK_UP.name!r}.")
            try:
                arguments = json.loads(call.arguments)
            except ValueError:
                arguments = None
            must(isinstance(arguments, dict), f"The arguments of its tool call are no JSON object: {call.arguments!r}.")

    async def tool_results(self) -> None:
        """The results of tool calls can be sent back."""
        asked = await self.model.chat(_POPULATION, tools=[_LOOK_UP], tool_choice="required")
        results = [ToolResultPart(call_id=call.id, name=call.name, content="2100000") for call in asked.tool_calls]
        must(
            results,
            f"Asked with tool_choice='required', it calls no tool: {asked!r}. Or skip={{'tools', 'tool_results'}}.",
        )
        history = [*_POPULATION, asked.message, ChatMessage(role="tool", content=results)]
        reply = _reply(await self.model.chat(history, tools=[_LOOK_UP]))
        must(reply.message.content, "Its reply to the results of tools is empty.")

    async def output(self) -> None:
        """An answer of a given shape is there, or refused."""
        for reply in (await _chat(self.model, _WHERE, output=_CITY), await _stream(self.model, _WHERE, output=_CITY)):
            city = as_dict(_reply(reply).output).get("city")
            must(
                isinstance(city, str) or reply.refusal,
                f"Asked for output=, it gives output={reply.output!r} and no refusal. Set Reply.output to the object "
                "that was answered; a BaseChatModel does.",
            )

    async def errors(self) -> None:
        """A call that runs out of time raises an `LLMError`, in time, and leaves nothing behind."""
        clock = current_clock()
        async with nothing_left("A call that runs out of time"):
            for ask in (_chat, _stream):
                begun = clock.monotonic()
                try:
                    await ask(self.model, _COUNT, timeout=_TINY)
                except LLMError:
                    pass
                except Exception as error:
                    raise AssertionError(
                        f"With timeout={_TINY} it raises {error!r}. Raise an LLMTimeoutError."
                    ) from error
                took = clock.monotonic() - begun
                must(
                    took < _NOTICED,
                    f"With timeout={_TINY} it ends after {took:.1f} s. Give up in time, as a BaseChatModel does, and "
                    "raise an LLMTimeoutError.",
                )

    async def failures(self) -> None:
        """What goes wrong is an `LLMError`, and ends the operation."""
        assert self.failing is not None
        model = self.failing
        for what, ask in (("chat", _chat), ("stream", _stream)):
            with watching(Kind.CHAT) as seen:
                try:
                    reply = await ask(model, _HELLO)
                except LLMError as error:
                    must(str(error), f"The error of {what} says nothing: {error!r}.")
                except Exception as error:
                    raise AssertionError(f"A {what} that fails raises {error!r}. Raise an LLMError from it.") from error
                else:
                    raise AssertionError(
                        f"The model that is given as failing= answers: {reply!r}. Give one that cannot."
                    )
            _, ended = seen.only(f"A {what} that fails")
            must(
                isinstance(ended, LLMError), f"The operation of a {what} that fails ends with {ended!r}, not its error."
            )


def _reply(reply: object) -> Reply:
    """It, if it is one."""
    if not isinstance(reply, Reply):
        raise AssertionError(f"It answers with {reply!r}. Return a Reply.")  # noqa: TRY004 because a check fails
    must(reply.message.role == "assistant", f"Its message has the role {reply.message.role!r}. Make it 'assistant'.")
    return reply


def _together(deltas: Iterable[Delta]) -> dict[str, Any]:
    """What deltas are, put together."""
    said: dict[str, str] = {}
    calls: dict[int, dict[str, str | None]] = {}
    for delta in deltas:
        if delta.type != "tool_call":
            said[delta.type] = said.get(delta.type, "") + delta.text
            continue
        call = calls.setdefault(delta.index, {"id": delta.id, "name": delta.name, "arguments": ""})
        call["arguments"] = f"{call['arguments']}{delta.text}"
    kept = {kind: text for kind, text in said.items() if text}
    return {**kept, "tool_calls": [calls[index] for index in sorted(calls)]}


def _dumped(models: Iterable[ChatMessage | ToolDefinition]) -> list[dict[str, Any]]:
    return [model.model_dump() for model in models]


async def _chat(model: ChatModel, messages: Sequence[ChatMessage], **options: Any) -> Reply:
    return await model.chat(messages, **options)


async def _stream(model: ChatModel, messages: Sequence[ChatMessage], **options: Any) -> Reply:
    async with model.stream(messages, **options) as stream:
        return await stream.read()
