"""The texts of agents: those of the classes, base classes first, and what takes their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.errors import shown
from agentflow_llm.prompt import NAMES

from .errors import AgentConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


def merged_prompts(cls: type, given: Mapping[str, str]) -> dict[str, str]:
    """The `PROMPTS` of a class and of its bases, with those given in their place. A text keeps the names in braces.

    Raises `AgentConfigurationError`.
    """
    merged: dict[str, str] = {}
    sources = [(base.__name__, vars(base).get("PROMPTS", {})) for base in reversed(cls.__mro__)]
    wanted: dict[str, set[str]] = {}
    for where, texts in [*sources, (f"{cls.__name__}(prompts=...)", given)]:
        for name, text in texts.items():
            if not isinstance(text, str):
                raise AgentConfigurationError(
                    f"the prompt {name!r} of {where} is {shown(text)}: it is a text. Write "
                    f'{cls.__name__}(prompts={{{name!r}: "..."}}).'
                )
            if texts is given and name not in merged:
                raise AgentConfigurationError(
                    f"{cls.__name__} has no prompt {name!r}. There are {', '.join(map(repr, merged))}."
                )
            missing = [f"{{{value}}}" for value in sorted(wanted.get(name, set()) - {*NAMES.findall(text)})]
            if missing:
                raise AgentConfigurationError(
                    f"the prompt {name!r} of {where} lacks {' and '.join(missing)}, for what is to stand there."
                )
            wanted.setdefault(name, {*NAMES.findall(text)})
        merged.update(texts)
    return merged
