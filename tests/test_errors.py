"""The tree of errors, and how messages show values and types."""

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import AgentflowError, Context, Event, Resource, StopEvent, Workflow, errors
from agentflow.errors import shown, type_name

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BaseException)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_can_be_caught_as_agentflowerror(kind: type[BaseException]) -> None:
    """One class to catch."""
    assert issubclass(kind, AgentflowError)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Each class stands below its base, and none is missing."""
    drawn: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│├└─ ]*)([A-Z]\w+)\s*(?:  |$)", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else None
    bases = {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}
    assert drawn == {**bases, "AgentflowError": None}


@pytest.mark.parametrize(
    ("annotation", "written"),
    [
        (int, "int"),
        (None, "None"),
        (type(None), "None"),
        ("Later | None", "Later | None"),
        (StopEvent | None, "StopEvent | None"),
        (Optional[Event], "Event | None"),  # noqa: UP045 because both ways of writing it are shown alike
        (list[StopEvent | int], "list[StopEvent | int]"),
        (dict[str, list[int]], "dict[str, list[int]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Callable[[int, str], None], "Callable[[int, str], None]"),
        (Callable[..., Any], "Callable[..., Any]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Annotated[int, Resource(len)], "Annotated[int, Resource(len)]"),
        (Context[Any], "Context[Any]"),
        (Workflow[Any, str], "Workflow[Any, str]"),
        (Any, "Any"),
    ],
)
def test_a_type_is_shown_as_it_is_written(annotation: object, written: str) -> None:
    """Without modules, and unions with a bar."""
    assert type_name(annotation) == written


@given(st.text(max_size=1000) | st.lists(st.integers()) | st.dictionaries(st.text(), st.binary()))
def test_a_value_is_shown_in_one_short_line(value: object) -> None:
    """Whatever it is."""
    text = shown(value)
    assert len(text) <= 600
    assert len(text.splitlines()) == 1


def test_a_value_that_cannot_be_shown_does_not_hide_the_error() -> None:
    """Its class is shown instead."""

    class Shy:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    assert "Shy" in shown(Shy())
