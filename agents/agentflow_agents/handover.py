"""The tools by which an agent hands a conversation over to its colleagues."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .conversation import Conversation, Handoff
from .errors import ToolError
from .tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable

_TAKES = {
    "type": "object",
    "properties": {"message": {"type": "string", "description": "What the colleague needs to know."}},
    "required": ["message"],
    "additionalProperties": False,
}
_OTHER = re.compile(r"[^a-zA-Z0-9_-]+")
_LONGEST_NAME = 48


def tool_name(name: str) -> str:
    """An agent's name as one that servers accept for a tool."""
    return _OTHER.sub("_", name)[:_LONGEST_NAME] or "agent"


def handover_tools(talk: Conversation, prompt: Callable[..., str]) -> list[Tool[..., Any]]:
    """One for each colleague. Calling it notes in the conversation to whom it goes; the first call counts."""
    return [_handover(talk, prompt, to, description) for to, description in talk.handoffs.items()]


def _handover(talk: Conversation, prompt: Callable[..., str], to: str, description: str) -> Tool[..., Any]:
    async def hand_over(arguments: dict[str, Any]) -> str:
        if talk.handoff is not None:
            raise ToolError(f"The conversation was handed over to {talk.handoff.to} already.")
        talk.handoff = Handoff(to=to, message=str(arguments.get("message", "")))
        return prompt("handed_over", name=to)

    told = prompt("hand_over", name=to, description=description)
    return Tool.of_schema(f"hand_over_to_{tool_name(to)}", told, _TAKES, hand_over)
