"""Retry policies: how long to wait before a failed step is tried again, or None to give up.

tenacity does the work; it is imported when a step first fails. Attempts count executions, from 1:
`attempts=3` runs a step at most three times. Delays and limits are in seconds.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .errors import WorkflowValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

    import tenacity
    from tenacity.retry import retry_base
    from tenacity.wait import wait_base
    from typing_extensions import TypeIs


@runtime_checkable
class RetryPolicy(Protocol):
    """Anything with this method can be a step's `retry_policy`."""

    def next(self, elapsed_time: float, attempts: int, error: Exception, /) -> float | None:
        """Seconds to wait before the next attempt, or None to let the error fail the run.

        `attempts` is the number of failures so far, `elapsed_time` the seconds since the first of
        them (0 at the first), `error` the newest.
        """
        ...


@dataclass(frozen=True)
class Retry:
    """The usual policy: a limit on attempts, on time, or both; exponential back-off with jitter.

    - `attempts`: executions at most, 3 by default; None for no limit.
    - `within`: no attempt begins later than this many seconds after the first failure.
    - `wait`: seconds, or what tenacity takes for it; by default random, exponentially growing, up to 30 s.
    - `on`: which errors are worth it: exception classes, a predicate, or a tenacity retry object.

    Raises `WorkflowValidationError` where a limit makes no sense.
    """

    attempts: int | None = 3
    within: float | None = None
    wait: float | Callable[[tenacity.RetryCallState], float] | None = None
    on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | retry_base = Exception

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            msg = f"Retry(attempts={self.attempts!r}): a step runs at least once. Write Retry(attempts=1) or more."
            raise WorkflowValidationError(msg)
        if self.within is not None and self.within < 0:
            msg = f"Retry(within={self.within!r}): a time limit is not negative. It is in seconds."
            raise WorkflowValidationError(msg)
        if isinstance(self.wait, int | float) and self.wait < 0:
            msg = f"Retry(wait={self.wait!r}): a delay is not negative. It is in seconds."
            raise WorkflowValidationError(msg)
        if self.attempts is None and self.within is None:
            msg = "Retry(attempts=None) without within= would try for ever. Write Retry(attempts=None, within=600)."
            raise WorkflowValidationError(msg)

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        """See `RetryPolicy.next`."""
        if self.attempts is not None and attempts >= self.attempts:
            return None
        policy = _parts(self)
        state = _call_state(policy, attempts, elapsed_time, error)
        if not policy.retry(state):
            return None
        delay = float(policy.wait(state))
        overslept = self.within is not None and elapsed_time + delay > self.within
        return None if overslept else delay


@dataclass(frozen=True)
class ConstantDelayRetryPolicy:
    """Try up to `maximum_attempts` times (3), with `delay` seconds (5) in between."""

    maximum_attempts: int = 3
    delay: float = 5

    def __post_init__(self) -> None:
        Retry(self.maximum_attempts, wait=self.delay)

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        """See `RetryPolicy.next`."""
        return Retry(self.maximum_attempts, wait=self.delay).next(elapsed_time, attempts, error)


@dataclass(frozen=True)
class ExponentialBackoffRetryPolicy:
    """Try up to `maximum_attempts` times (5); the delay starts at `initial_delay` and grows by `multiplier`.

    It never exceeds `max_delay`. With `jitter` each delay is drawn evenly between half of it and all of it.
    """

    maximum_attempts: int = 5
    initial_delay: float = 1.0
    multiplier: float = 2.0
    max_delay: float = 60.0
    jitter: bool = True

    def __post_init__(self) -> None:
        Retry(self.maximum_attempts, wait=self.initial_delay)
        if self.multiplier < 1 or self.max_delay < self.initial_delay:
            msg = (
                f"{self!r}: a back-off grows, up to a largest delay. Write multiplier=1 or more, and max_delay="
                f"{self.initial_delay!r} or more."
            )
            raise WorkflowValidationError(msg)

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        """See `RetryPolicy.next`."""
        import tenacity  # noqa: PLC0415 because only a failing step needs it

        wait: wait_base = tenacity.wait_exponential(self.initial_delay, self.max_delay, self.multiplier)
        if self.jitter:
            whole = float(wait(_call_state(tenacity.Retrying(), attempts, elapsed_time, error)))
            wait = tenacity.wait_random(whole / 2, whole)
        return Retry(self.maximum_attempts, wait=wait).next(elapsed_time, attempts, error)


def is_tenacity(policy: object) -> TypeIs[tenacity.BaseRetrying]:
    """Is it a tenacity object? Where tenacity was never imported, nothing is."""
    # another thread may be importing it just now: what it has not defined yet, no policy is
    return isinstance(policy, getattr(sys.modules.get("tenacity"), "BaseRetrying", ()))


def check_policy(policy: object, where: str) -> None:
    """Refuse what cannot be a retry policy, when the step is declared."""
    if is_tenacity(policy) or (not isinstance(policy, type) and isinstance(policy, RetryPolicy)):
        return
    if isinstance(policy, type):
        msg = f"{where}: retry_policy={policy.__name__} is a class. Write retry_policy={policy.__name__}(...)."
    elif callable(getattr(policy, "retry", None)) or hasattr(policy, "statistics"):
        msg = f"{where}: retry_policy={policy!r} is a decorated function. Pass the tenacity object: AsyncRetrying(...)."
    else:
        msg = (
            f"{where}: retry_policy={policy!r} has no method next(elapsed_time, attempts, error). "
            "Write retry_policy=Retry(attempts=3), a tenacity object, or your own policy."
        )
    raise WorkflowValidationError(msg)


class GiveUp(Exception):  # noqa: N818 because it is a verdict, not an error
    """A tenacity object's verdict that the last error stands."""


async def verdict(
    policy: tenacity.BaseRetrying,
    attempts: int,
    elapsed: float,
    idle: float,
    outcome: BaseException | tuple[object] | None,
) -> float | tuple[object]:
    """Ask a raw tenacity object, in its own order of callbacks, what to do after an attempt.

    `elapsed` counts from the start of the first attempt and `idle` is what of it was waiting, as
    tenacity has it. `outcome` is None before an attempt, then the exception, or the value in a 1-tuple.
    Returns the delay before the next attempt, or a 1-tuple with the value that the step is taken to
    have returned; raises `GiveUp` where the error stands.
    The object's own sleep is never called.
    """
    import tenacity  # noqa: PLC0415 because only a step with a tenacity policy needs it

    if not getattr(policy, "enabled", True):  # older ones cannot be switched off
        if isinstance(outcome, BaseException):
            raise GiveUp
        return outcome or (None,)
    state = _call_state(policy, attempts, elapsed, outcome)
    state.idle_for = idle
    single_use = policy.copy()
    single_use.begin()
    try:
        answer: Any = single_use.iter(state)
        if asyncio.iscoroutine(answer):
            answer = await answer
    except tenacity.RetryError as error:
        raise GiveUp from error
    except BaseException as error:
        if error is outcome:
            raise GiveUp from None
        raise
    return float(answer) if isinstance(answer, tenacity.DoSleep) else (answer,)


def _parts(retry: Retry) -> tenacity.BaseRetrying:
    import tenacity  # noqa: PLC0415 because only a failing step needs it

    if retry.wait is None:
        wait: Any = tenacity.wait_random_exponential(multiplier=0.5, max=30)
    elif isinstance(retry.wait, int | float):
        wait = tenacity.wait_fixed(retry.wait)
    else:
        wait = retry.wait
    on: Any = retry.on
    if isinstance(retry.on, type | tuple):
        on = tenacity.retry_if_exception_type(on)
    elif not isinstance(on, tenacity.retry_base):
        on = tenacity.retry_if_exception(on)
    return tenacity.Retrying(wait=wait, retry=on)


def _call_state(
    policy: tenacity.BaseRetrying, attempts: int, elapsed: float, outcome: BaseException | tuple[object] | None
) -> tenacity.RetryCallState:
    """What tenacity's parts are asked with. `outcome` is the exception, the value in a 1-tuple, or None."""
    import tenacity  # noqa: PLC0415 because only a failing step needs it

    state = tenacity.RetryCallState(policy, None, (), {})
    state.attempt_number = attempts
    if isinstance(outcome, BaseException):
        state.set_exception((type(outcome), outcome, outcome.__traceback__))
    elif outcome is not None:
        state.set_result(outcome[0])
    state.start_time, state.outcome_timestamp = 0.0, elapsed  # last: an outcome brings the real time with it
    return state
