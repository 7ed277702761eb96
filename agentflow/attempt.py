"""The attempts of a step that has a retry policy: what the policy says after each, and what is remembered."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

from .effects import Ledger
from .retry import GiveUp, is_tenacity, verdict

if TYPE_CHECKING:
    from .delivery import Worker
    from .port import Port


class TryAgain(Exception):  # noqa: N818 because it is a verdict, not an error
    """A tenacity object wants another attempt though the step returned."""

    def __init__(self, delay: float) -> None:
        super().__init__("the retry policy asked for another attempt")
        self.delay = delay


class Final(Exception):  # noqa: N818 because it is a verdict, not an error
    """The policy has given up already; `error` stands."""

    def __init__(self, error: Exception) -> None:
        super().__init__("the retry policy gave up")
        self.error = error


async def begin(run: Port, me: Worker) -> None:
    """An attempt begins: every one starts from the context variables of the delivery."""
    policy = me.plan.policy
    me.variables = me.before or copy_context()
    if me.ledger is None:
        me.ledger = Ledger()
    if not me.ledger.failures:
        me.ledger.started_at = run.clock.time()
    if is_tenacity(policy):
        await verdict(policy, me.ledger.failures + 1, *_elapsed(run, me.ledger), None)


async def judge(run: Port, me: Worker, out: object) -> object:
    """Let a tenacity object look at what a step returned. Raises `TryAgain`, or `Final` where it gives up."""
    policy, ledger = me.plan.policy, me.ledger
    if ledger is None or not is_tenacity(policy):
        return out
    try:
        answer = await verdict(policy, ledger.failures + 1, *_elapsed(run, ledger), (out,))
    except GiveUp as error:
        raise Final(error.__cause__ if isinstance(error.__cause__, Exception) else error) from None
    if isinstance(answer, tuple):
        return answer[0]
    raise TryAgain(answer)


async def decide(run: Port, me: Worker, error: Exception) -> float | tuple[object] | None:
    """Ask the policy after a failure: a delay, a value to go on with, or None to give up."""
    policy, ledger, now = me.plan.policy, me.ledger, run.clock.time()
    if isinstance(error, TryAgain):
        return error.delay
    if policy is None or ledger is None:
        return None
    if not ledger.failures:
        ledger.failed_at = now
    if not is_tenacity(policy):
        delay = policy.next(now - ledger.failed_at, ledger.failures + 1, error)
        return None if delay is None else max(0.0, float(delay))
    try:
        return await verdict(policy, ledger.failures + 1, *_elapsed(run, ledger), error)
    except GiveUp:
        return None


def remember(run: Port, ledger: Ledger, delay: float) -> None:
    """An attempt has failed and another will follow: count it, and undo what it took out."""
    if not ledger.failures:
        ledger.failed_at = run.clock.time()
    ledger.failures += 1
    ledger.idle += delay
    ledger.again()


def _elapsed(run: Port, ledger: Ledger) -> tuple[float, float]:
    return run.clock.time() - ledger.started_at, ledger.idle
