"""Docstrings: the text for the model, and the parameters, in three styles."""

import subprocess
import sys
from typing import Any

import pytest

from agentflow_agents.docstring import read_docstring


def documented(text: str | None) -> Any:
    def function() -> None: ...

    function.__doc__ = text
    return function


GOOGLE = """Find documents.

    Looks everywhere.

    Args:
        query: What to look for,
            in words.
        limit (int): How many.

    Returns:
        Passages.

    Raises:
        ValueError: Never.
    """
NUMPY = """Find documents.

    Looks everywhere.

    Parameters
    ----------
    query : str
        What to look for,
        in words.
    limit
        How many.

    Returns
    -------
    str
        Passages.
    """
SPHINX = """Find documents.

    Looks everywhere.

    :param query: What to look for,
        in words.
    :param int limit: How many.
    :returns: Passages.
    """


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_text_and_parameters_are_told_apart(text: str) -> None:
    found = read_docstring(documented(text))
    assert found.text == "Find documents.\n\nLooks everywhere."
    assert found.parameters == {"query": "What to look for, in words.", "limit": "How many."}


def test_text_without_parameters_is_all_there_is() -> None:
    assert read_docstring(documented("Find.\n\n    In two: lines.")) == ("Find.\n\nIn two: lines.", {})
    assert read_docstring(documented("  Find. ")) == ("Find.", {})
    assert read_docstring(documented(None)) == ("", {})


@pytest.mark.parametrize(
    "text",
    [
        "Find.\n\n    :param query: What to look for.",
        "Find.\n\n    :param list[str] query: What to look for.\n    :type query: list[str]",
        "Find.\n\n    Args:\n        query: What to look for.",
        "Find.\n\n    Arguments:\n        query (list[str], optional): What to look for.",
        "Find.\n\n    Keyword Args:\n        query: What to look for.",
        "Find.\n\n    Parameters\n    ----------\n    query\n        What to look for.",
        "Find.\n\n    Other Parameters\n    ----------------\n    query : str, optional\n        What to look for.",
    ],
)
def test_one_parameter_is_enough_to_know_the_style(text: str) -> None:
    assert read_docstring(documented(text)) == ("Find.", {"query": "What to look for."})


def test_notes_belong_to_the_text() -> None:
    text = "Find.\n\n    Args:\n        query: What.\n\n    Note:\n        Only in Europe."
    assert read_docstring(documented(text)) == ("Find.\n\nNote: Only in Europe.", {"query": "What."})


@pytest.mark.parametrize(
    "text", ["Find:\n\n    a - b", "Times: 10:30.\n\n    See: that.", "A list\n\n    - one\n    - two"]
)
def test_what_only_looks_like_a_section_is_text(text: str) -> None:
    found = read_docstring(documented(text))
    assert found.parameters == {}
    assert found.text.split() == text.split()


def test_docstring_of_one_line_needs_no_parser() -> None:
    code = "import sys; from agentflow_agents import tool\n@tool\ndef f() -> int:\n    'One.'\n    return 1\n"
    code += "assert f.description == 'One.'; assert 'griffe' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
