"""The texts of agents: those of the classes, base classes first, and what takes their place."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import cast

from agentflow.errors import shown
from agentflow_llm.prompt import NAMES

from .errors import AgentConfigurationError


def merged_prompts(cls: type, given: Mapping[str, str], system: str | None = None) -> dict[str, str]:
    """The `PROMPTS` of a class and of its bases, with those given in their place. A text keeps the names in braces.

    `system` takes the place of the one of this name. Raises `AgentConfigurationError`.
    """
    merged: dict[str, str] = {}
    sources = [(base.__name__, vars(base).get("PROMPTS", {})) for base in reversed(cls.__mro__)]
    wanted: dict[str, set[str]] = {}
    if not isinstance(cast("object", given), Mapping):
        raise AgentConfigurationError(
            f"{cls.__name__}(prompts={shown(given)}): it must be a mapping of names to texts. Write "
            'prompts={"system": "..."}.'
        )
    given = given if system is None else {**given, "system": system}
    for where, texts in [*sources, (f"{cls.__name__}(prompts=...)", given)]:
        for name, text in texts.items():
            if not isinstance(text, str):
                raise AgentConfigurationError(
                    f"the prompt {name!r} of {where} is {shown(text)}: it must be a text. Write "
                    f'{cls.__name__}(prompts={{{name!r}: "..."}}).'
                )
            near = [] if name in merged else get_close_matches(name, merged, n=1, cutoff=0.8)
            if near or (texts is given and name not in merged):
                meant = f" Did you mean {near[0]!r}?" if near else ""
                raise AgentConfigurationError(
                    f"{where} has no prompt {name!r}.{meant} There are {', '.join(map(repr, merged))}."
                )
            missing = [f"{{{value}}}" for value in sorted(wanted.get(name, set()) - {*NAMES.findall(text)})]
            if missing:
                raise AgentConfigurationError(
                    f"the prompt {name!r} of {where} lacks {' and '.join(missing)}, for what is to stand there."
                )
            wanted.setdefault(name, {*NAMES.findall(text)})
        merged.update(texts)
    return merged
