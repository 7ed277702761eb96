"""Lists of checks that a client of some kind must pass, and what the running of one is told with."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentflow.clock import current_clock
from agentflow.observe import Observer, add_observer, remove_observer

from .errors import LLMError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator, Mapping

    from agentflow.observe import Kind, Operation

_TURNS = 1000
"""Of the event loop: so long a task that was cancelled may take to end."""


@dataclass(frozen=True)
class Checked:
    """What was checked, and what was left out."""

    subject: str
    passed: tuple[str, ...]
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        left_out = f"; not checked: {', '.join(self.skipped)}" if self.skipped else ""
        return f"{self.subject} passed {', '.join(self.passed)}{left_out}."


async def run_checks(
    subject: object,
    checks: Mapping[str, Callable[[], Awaitable[None]]],
    skip: Collection[str],
    timeout: float,
) -> Checked:
    """Run them one after the other, each within `timeout` seconds.

    Raises one `AssertionError` for all that failed, and `LLMError` where `skip` names what is no check.
    """
    skip = [skip] if isinstance(skip, str) else skip
    unknown = [name for name in skip if name not in checks]
    if unknown:
        raise LLMError(f"skip={list(skip)!r}: {unknown[0]!r} is no check. There are {', '.join(checks)}.")
    failed: list[str] = []
    for name, check in checks.items():
        if name in skip:
            continue
        limit = current_clock().timeout(timeout)
        try:
            async with limit:
                await check()
        except AssertionError as error:
            failed.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 because whatever it raises is what is to be told
            late = f"It did not come to its end within {timeout:g} s." if limit.expired() else None
            failed.append(f"{name}: {late or f'It raises {type(error).__name__}: {error}'}")
    if failed:
        done = len(checks) - len(skip)
        told = "\n".join(f"- {line}" for line in failed)
        raise AssertionError(f"{subject!r} fails {len(failed)} of {done} checks:\n{told}")
    skipped = tuple(name for name in checks if name in skip)
    return Checked(repr(subject), tuple(name for name in checks if name not in skip), skipped)


def must(fact: object, what: str) -> None:
    """Raise `AssertionError`, unless it is so. `what` says what is wrong, and how to mend it."""
    if not fact:
        raise AssertionError(what)


class Watching(Observer):
    """The operations of one kind that began, and those that ended, with their errors."""

    def __init__(self, kind: Kind) -> None:
        self.kinds = frozenset({kind})
        self.begun: list[Operation] = []
        self.ended: list[tuple[Operation, BaseException | None]] = []

    def started(self, op: Operation) -> None:
        """Keep an operation."""
        self.begun.append(op)

    def finished(self, op: Operation, error: BaseException | None) -> None:
        """Keep how it ended."""
        self.ended.append((op, error))

    def only(self, after: str) -> tuple[Operation, BaseException | None]:
        """The one that began and ended. Raises `AssertionError` where it is not one."""
        kind = next(iter(self.kinds))
        must(
            len(self.begun) == 1,
            f"{after} is {len(self.begun)} {kind} operations, not one. Open it once for each call: derive from the "
            "base class of agentflow_llm, or use agentflow.observe.operation.",
        )
        must(len(self.ended) == 1, f"The operation of {after} has not ended. Close it on every path.")
        return self.ended[0]


@contextmanager
def watching(kind: Kind) -> Generator[Watching]:
    """Look on at the operations of a kind that begin inside the block."""
    watch = Watching(kind)
    add_observer(watch)
    try:
        yield watch
    finally:
        remove_observer(watch)


@asynccontextmanager
async def nothing_left(after: str) -> AsyncGenerator[None]:
    """Raise `AssertionError` where a task that was begun inside the block goes on after it."""
    before = asyncio.all_tasks()
    yield
    left: list[str] = []
    for _ in range(_TURNS):
        left = [task.get_name() for task in asyncio.all_tasks() - before]
        if not left:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{after} leaves tasks running: {', '.join(left)}. Cancel and await them in a finally block.")
