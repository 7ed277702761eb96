"""Prompts with names in braces, and the models that are sent them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agentflow.errors import shown

from .model import ChatModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMES = re.compile(r"\{(\w+)\}")
"""Finds the names in braces."""


def filled(prompt: str, values: Mapping[str, str]) -> str:
    """The prompt with values in place of the names in braces; braces in the values stay as they are."""
    return NAMES.sub(lambda name: values.get(name[1], name[0]), prompt)


def check_prompt(kind: str, prompt: object, names: Iterable[str], error: type[Exception]) -> None:
    """Raise `error` where a prompt of a class `kind` lacks a name."""
    wanted = [f"{{{name}}}" for name in names]
    missing = [name for name in wanted if not isinstance(prompt, str) or name not in prompt]
    if missing:
        raise error(f"{kind}(prompt={shown(prompt)}): it lacks {' and '.join(missing)}, for what is to stand there.")


def check_model(kind: str, llm: object, error: type[Exception]) -> None:
    """Raise `error` where what a class `kind` was given is no model."""
    if isinstance(llm, type) or not isinstance(llm, ChatModel):
        raise error(f'{kind}({shown(llm)}): it is no model. Write {kind}(OpenAI("gpt-4o-mini"), ...).')
