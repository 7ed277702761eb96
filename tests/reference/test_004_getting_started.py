"""Document 004, getting started: its page, `getting_started.py`, is run. README.md has the numbers."""

import asyncio
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from agentflow import StartEvent

from .stand_ins import Parrot, critique_of


@pytest.fixture
def page(parrot: Parrot) -> Iterator[Any]:
    """The page, read anew: its models are made where the server's address is known."""
    name = f"{__package__}.getting_started"
    yield importlib.import_module(name)
    del sys.modules[name]


def test_the_page_runs_as_a_script(page: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """004.1 to 004.7."""
    asyncio.run(page.main())
    assert capsys.readouterr().out == critique_of("pirates") + "\n"


async def test_functions_at_the_level_of_a_module_make_the_same_workflow(
    page: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """004.8, with the verbose output that it asks for."""
    assert await page.joke_flow.run(topic="pirates") == await page.JokeFlow().run(topic="pirates")
    assert capsys.readouterr().out.splitlines() == [
        "Running step generate_joke",
        "Step generate_joke produced event JokeEvent",
        "Running step critique_joke",
        "Step critique_joke produced event StopEvent",
    ]


async def test_an_attached_function_is_still_a_function(page: Any) -> None:
    """004.8: unbound functions, which can be called by themselves."""
    joke = await page.generate_joke(StartEvent(topic="ships"))
    assert joke == page.JokeEvent(joke="[Write your best joke about ships.]")
