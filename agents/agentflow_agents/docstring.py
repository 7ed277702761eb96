"""Docstrings: what they say of a function and of its parameters, in the styles of Google, NumPy and Sphinx."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


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

    quiet: Any = {"warnings": False}
    styles: Any = {"google": quiet, "numpy": quiet, "sphinx": quiet}
    sections = griffe.Docstring(text).parse("auto", per_style_options=styles)
    told: list[str] = []
    parameters: dict[str, str] = {}
    for section in sections:
        value: Any = section.value
        if section.kind is griffe.DocstringSectionKind.text:
            told.append(value)
        elif section.kind is griffe.DocstringSectionKind.parameters:
            parameters.update({found.name.lstrip("*"): " ".join(found.description.split()) for found in value})
    return Described("\n\n".join(told).strip(), parameters)
