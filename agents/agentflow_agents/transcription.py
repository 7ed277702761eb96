"""A conversation with tools as plain text, for models that know of no tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agentflow_llm import ChatMessage, ReasoningPart, TextPart

from .conversation import said
from .marker import mark_of_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentflow_llm import ToolDefinition


def described(tools: Iterable[ToolDefinition]) -> str:
    """The tools, for a prompt: name, description, and the JSON Schema of what each takes."""
    return "\n\n".join(
        f"Tool: {tool.name}\nDescription: {tool.description}\n"
        f"Its Action Input has this JSON Schema: {json.dumps(tool.parameters, ensure_ascii=False)}"
        for tool in tools
    )


def transcribed(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """The messages, with calls and results told in words. The user and the model take turns, as many servers want it.

    Each keeps its id, so that it can be recognised.
    """
    told: list[ChatMessage] = []
    for message in messages:
        plain = message
        if message.role == "assistant":
            plain = message.model_copy(update={"content": (TextPart(text=_said_by_model(message)),)})
        elif message.role == "tool":
            plain = message.model_copy(update={"role": "user", "content": (TextPart(text=_results(message)),)})
        if plain.role == "user" and told and told[-1].role == "user":
            before = told.pop()
            plain = before.model_copy(update={"content": (*before.content, TextPart(text="\n\n"), *plain.content)})
        told.append(plain)
    return told


def _said_by_model(message: ChatMessage) -> str:
    thought = "\n".join(part.text for part in message.content if isinstance(part, ReasoningPart)).strip()
    text = said(message).strip()
    calls = message.tool_calls
    if text and not calls and mark_of_line(text):  # just as the model said it, since it could not be read
        return text
    lines: list[str] = []
    if thought or (calls and text):
        lines.append(f"Thought: {thought or text}")
    lines += [f"Action: {call.name}\nAction Input: {call.arguments or '{}'}" for call in calls]
    if not calls and (text or not thought):
        lines.append(f"Answer: {text}")
    return "\n".join(lines)


def _results(message: ChatMessage) -> str:
    results = message.tool_results
    if len(results) == 1:
        return f"Observation: {results[0].content}"
    return "\n\n".join(f"Observation: the result of {result.name}:\n{result.content}" for result in results)
