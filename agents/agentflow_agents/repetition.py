"""When a tool that failed is called again: what its retry policy says, within the time that the call has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.clock import current_clock
from agentflow.retry import GiveUp, is_tenacity, verdict

from .errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentflow_llm.backoff import Policy

    Noting = Callable[[str, dict[str, Any]], None]


class Repetition:
    """The attempts of one call under a policy.

    - `due`: when their time is over, by the clock's `monotonic`; no wait begins that would outlast it.
    - `noting`: notes each wait, where somebody listens.
    """

    def __init__(self, policy: Policy, due: float | None, noting: Noting | None) -> None:
        self._policy = policy
        self._noting = noting
        self._clock = current_clock()
        self._begun = self._clock.monotonic()
        self._due = due
        self._attempts = 0
        self._first_failure = 0.0
        self._idle = 0.0

    async def run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call until it succeeds or the policy gives up; then what it raised last is raised.

        A `ToolError` is final: it tells the model what to do. So is a cancellation.
        """
        while True:
            self._attempts += 1
            try:
                value = await call()
            except ToolError:
                raise
            except Exception as error:  # noqa: BLE001 because the policy says which are worth another attempt
                found = await self._after(error)
            else:
                # a tenacity object may look at values as well
                found = await self._after((value,)) if is_tenacity(self._policy) else (value,)
            if found is not None:
                return found[0]

    async def _after(self, outcome: Exception | tuple[Any]) -> tuple[Any] | None:
        """What is taken for the result; None when it is time for another attempt. Raises an error that stands."""
        now = self._clock.monotonic()
        error, value = (outcome, None) if isinstance(outcome, Exception) else (None, outcome)
        if is_tenacity(self._policy):
            try:
                said = await verdict(self._policy, self._attempts, now - self._begun, self._idle, outcome)
            except GiveUp as given_up:
                raise (error or given_up.__cause__ or given_up) from None
            if isinstance(said, tuple):
                return said
            delay: float | None = said
        else:
            assert error is not None
            if self._attempts == 1:
                self._first_failure = now
            delay = self._policy.next(now - self._first_failure, self._attempts, error)
        late = delay is not None and self._due is not None and now + delay >= self._due
        if delay is None or late:
            if error is None:
                return value
            raise error
        delay = max(0.0, float(delay))
        if self._noting is not None:
            self._noting("retry", {"attempt": self._attempts, "wait": delay, "error": error})
        self._idle += delay
        await self._clock.sleep(delay)
        return None
