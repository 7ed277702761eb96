"""The tables of README.md and the tests name each other."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BLOCKS = {"000": 23, "001": 30, "002": 67, "003": 16, "004": 8}
"""How many blocks each document has, equal ones counted once."""


def rows() -> dict[str, list[str]]:
    """The tests that each block is said to be run by."""
    table = re.findall(r"^\| (\d{3}\.\d+) \|[^|]*\|([^|]*)\|", (HERE / "README.md").read_text("utf-8"), re.MULTILINE)
    assert len(table) == len(dict(table)), "a block is listed twice"
    return {block: re.findall(r"`(\w+)`", tests) for block, tests in table}


def documented() -> dict[str, str]:
    """Every test of the documents, with its docstring."""
    return {
        node.name: ast.get_docstring(node) or ""
        for path in HERE.glob("test_00*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("document", BLOCKS)
def test_no_block_is_missing_from_the_tables(document: str) -> None:
    """Numbered from 1, in order, to the last."""
    listed = [block for block in rows() if block.startswith(document)]
    assert listed == [f"{document}.{n}" for n in range(1, BLOCKS[document] + 1)]


def test_every_test_that_is_listed_exists_and_every_test_is_listed() -> None:
    """A renamed test is noticed."""
    assert {test for listed in rows().values() for test in listed} == set(documented())


def test_a_test_says_which_blocks_it_runs() -> None:
    """Its docstring begins with their numbers, and the first and the last of these list it."""
    listed = rows()
    for test, said in documented().items():
        start = re.match(r"(\d{3})\.(\d+)(?: (?:to|and) \d{3}\.(\d+))?", said)
        assert start is not None, test
        for number in {start[2], start[3] or start[2]}:
            assert test in listed[f"{start[1]}.{number}"], f"{test} is not listed at {start[1]}.{number}"
