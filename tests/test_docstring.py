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


def test_docstring_of_one_line_needs_no_parser() -> None:
    code = "import sys; from agentflow_agents import tool\n@tool\ndef f() -> int:\n    'One.'\n    return 1\n"
    code += "assert f.description == 'One.'; assert 'griffe' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
