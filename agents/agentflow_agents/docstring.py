"""Docstrings: what they say of a function and of its parameters, in the styles of Google, NumPy and Sphinx."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


_STYLES = {
    "sphinx": re.compile(
        r"^\s*:(param|parameter|arg|argument|key|keyword|type|returns?|rtype|raises?)\b[^\n]*?:", re.MULTILINE
    ),
    "numpy": re.compile(r"^[ \t]*[A-Z][A-Za-z ]+\n[ \t]*-{3,}[ \t]*$", re.MULTILINE),
    "google": re.compile(r"^[ \t]*[A-Z][A-Za-z ]+:[ \t]*\n[ \t]+\S", re.MULTILINE),
}
"""By what each style is known, the surest sign first."""


class Described(NamedTuple):
    """What a docstring says."""

    text: str
    """Everything but the lists of parameters, results, errors and examples."""
    parameters: Mapping[str, str]


def read_docstring(documented: object) -> Described:
    """What the docstring of a function says; nothing where there is none."""
    text = inspect.getdoc(documented) or ""
    if "\n" not in text.strip():
        return Described(text.strip(), {})
    import griffe  # noqa: PLC0415 because it costs as much as the engine, and a docstring of one line does without

    style: Any = next((name for name, sign in _STYLES.items() if sign.search(text)), None)
    if style is None:
        return Described(text.strip(), {})
    sections = griffe.Docstring(text).parse(style, warnings=False)
    told: list[str] = []
    parameters: dict[str, str] = {}
    for section in sections:
        value: Any = section.value
        match section.kind:
            case griffe.DocstringSectionKind.text:
                told.append(value)
            case griffe.DocstringSectionKind.admonition:  # "Note:", "Warning:" and whatever else stands over a block
                told.append(f"{section.title or value.kind}: {value.contents}")
            case griffe.DocstringSectionKind.parameters | griffe.DocstringSectionKind.other_parameters:
                parameters.update({found.name.lstrip("*"): " ".join(found.description.split()) for found in value})
            case _:
                pass
    return Described("\n\n".join(told).strip(), parameters)
