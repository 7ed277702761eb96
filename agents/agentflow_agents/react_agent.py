"""An agent for models without tool calling: they write in plain text what they think, do and answer.

The model is sent a transcript, `Thought:`, `Action:`, `Action Input:`, `Observation:`, and goes on with it; what it
writes is read by `reasoning`. The conversation itself is kept as every agent keeps it, with calls and their results:
memories, approvals, budgets and the rest are those of `FunctionAgent`, whose steps these are.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar

from agentflow.log import logger
from agentflow_llm import (
    ChatMessage,
    Delta,
    LLMBadRequestError,
    LLMOutputError,
    ReasoningPart,
    Reply,
    TextPart,
    ToolCallPart,
)

from .errors import UnreadableReplyError
from .events import OutputT
from .function_agent import FunctionAgent
from .reasoning import STOP, ReasoningReader, read_reasoning
from .state import state_of
from .transcription import described, transcribed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentflow import Context
    from agentflow_llm import ChatModel, ToolDefinition
    from agentflow_llm.messages import AnyPart

    from .budget import Accounts
    from .reasoning import Piece, Reasoning

_REPAIRS = 2
"""So often in a row the model is told that what it said cannot be read; then that is the answer."""
_STOP = re.compile(r"\bstop\b", re.IGNORECASE)


class ReActAgent(FunctionAgent[OutputT]):
    """Calls tools until it can answer, with a model that need not know of tools.

    ```
    result = await ReActAgent(tools=[search], llm=model).run("question")
    ```

    The options are those of `FunctionAgent`. What the model writes is read tolerantly. Where it cannot be read, the
    model is told so, twice in a row at most; then its text is the answer, and the log has a warning. A run never fails
    because of the form of an answer, unless it is to be an `output` and is none.
    """

    PROMPTS: ClassVar[Mapping[str, str]] = {
        "tools": (
            "You have these tools:\n\n{tools}\n\n"
            "To use a tool, write:\n\n"
            "Thought: what you need to find out\n"
            "Action: the name of the tool\n"
            'Action Input: a JSON object with its arguments, such as {"name": "value"}\n\n'
            "Then stop. You will be told the result as an Observation; never write one yourself. To use several tools "
            "at once, write an Action and an Action Input for each. As soon as you need no tool, write:\n\n"
            "Thought: why you can answer\n"
            "Answer: your answer, in the language of the question\n\n"
            "Keep the words Thought, Action, Action Input and Answer as they are, in whatever language you write."
        ),
        "no_tools": (
            "You have no tools. Write:\n\nThought: what you think\nAnswer: your answer, in the language of the question"
        ),
        "shape": "The Answer is one JSON object, and nothing else. It has this JSON Schema: {schema}",
        "repair": (
            "This could not be read. {problem} Write either\n\n"
            "Thought: what you need to find out\n"
            "Action: the name of a tool\n"
            "Action Input: a JSON object\n\n"
            "or\n\n"
            "Thought: why you can answer\n"
            "Answer: your answer"
        ),
    }

    _refusing_stop: frozenset[tuple[str, str]] = frozenset()
    """The models, by provider and name, that take no texts to stop at."""

    async def ask(
        self,
        llm: ChatModel,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolDefinition],
        tell: Callable[[Delta], None] | None,
    ) -> Reply:
        """Ask the model in plain text; what it says becomes thoughts, calls and text.

        Raises `UnreadableReplyError`, and `LLMOutputError` for an answer that is not the `output`.
        """
        transcript = self.transcript(messages, tools)
        model = (llm.provider, llm.model)
        if model in self._refusing_stop:
            return await self._heard(llm, transcript, tools, tell, None)
        try:
            return await self._heard(llm, transcript, tools, tell, list(STOP))
        except LLMBadRequestError as error:
            if not _STOP.search(str(error)):
                raise
        reply = await self._heard(llm, transcript, tools, tell, None)
        self._refusing_stop |= {model}
        return reply

    async def asked(
        self,
        ctx: Context[Any],
        accounts: Accounts,
        llm: ChatModel,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolDefinition] = (),
    ) -> Reply:
        """As for every agent; what cannot be read, though the model was told so, is the answer."""
        try:
            return await super().asked(ctx, accounts, llm, messages, tools)
        except UnreadableReplyError as error:
            talk = state_of(ctx).conversation
            if self.output is not None or (tools and talk.corrections < _REPAIRS):
                raise
            logger().warning(
                f"what the model of {self.name!r} wrote cannot be read, and is taken for the answer as it is"
            )
            text = read_reasoning(error.reply.text, tools).thought or error.reply.text.strip()
            self._tell(ctx, Delta(text=text))
            return _with(error.reply, [TextPart(text=text)])

    def transcript(self, messages: Sequence[ChatMessage], tools: Sequence[ToolDefinition]) -> list[ChatMessage]:
        """What the model is sent: the conversation in words, behind the tools and the form of an answer."""
        told = self.prompt("tools", tools=described(tools)) if tools else self.prompt("no_tools")
        if self.output is not None:
            schema = json.dumps(self.output.schema, ensure_ascii=False)
            told = f"{told}\n\n{self.prompt('shape', schema=schema)}"
        front, said = messages[:1], messages[1:]
        if not front or front[0].role != "system":
            system, said = ChatMessage(role="system", content=told, id="msg_react"), messages
        else:
            system = front[0].model_copy(update={"content": (TextPart(text=f"{front[0].text}\n\n{told}"),)})
        return [system, *transcribed(said)]

    async def _heard(
        self,
        llm: ChatModel,
        transcript: Sequence[ChatMessage],
        tools: Sequence[ToolDefinition],
        tell: Callable[[Delta], None] | None,
        stop: Sequence[str] | None,
    ) -> Reply:
        """The reply, read; its pieces are told as they come."""
        reader = ReasoningReader(tools)
        if tell is None:
            reply = await llm.chat(transcript, stop=stop)
            reader.feed(reply.text)
            reader.close()
        else:
            async with llm.stream(transcript, stop=stop) as stream:
                async for delta in stream:
                    if delta.type == "text":
                        _tell_pieces(reader.feed(delta.text), tell)
                    else:
                        tell(delta)
            reply = stream.reply
            _tell_pieces(reader.close(), tell)
        return self._read(reply, reader.reasoning)

    def _read(self, reply: Reply, reasoning: Reasoning) -> Reply:
        """The reply with what was read in place of its text."""
        if reply.refusal or reply.tool_calls:  # some servers make calls of markup by themselves
            return reply
        if reasoning.note:
            logger().info(f"{self.name!r}: {reasoning.note}")
        if reasoning.problem:
            raise UnreadableReplyError(self.prompt("repair", problem=reasoning.problem), reply)
        parts: list[AnyPart] = [part for part in reply.message.content if isinstance(part, ReasoningPart)]
        if reasoning.thought:
            parts.append(ReasoningPart(text=reasoning.thought))
        parts += [ToolCallPart(id="", name=each.name, arguments=each.arguments) for each in reasoning.actions]
        if reasoning.answer is not None:
            parts.append(TextPart(text=reasoning.answer))
        read = _with(reply, parts)
        if self.output is not None and reasoning.answer is not None:
            try:
                self.output.read(reasoning.answer)
            except LLMOutputError as error:
                error.reply = read
                raise
        return read


def _with(reply: Reply, parts: Sequence[AnyPart]) -> Reply:
    return reply.model_copy(update={"message": reply.message.model_copy(update={"content": tuple(parts)})})


def _tell_pieces(pieces: Sequence[Piece], tell: Callable[[Delta], None]) -> None:
    for piece in pieces:
        if piece.label != "action":
            tell(Delta(type="reasoning" if piece.label == "thought" else "text", text=piece.text))
