"""When a model that could not answer is asked again: where that may help, and no sooner than it asks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agentflow.clock import current_clock
from agentflow.retry import GiveUp, Retry, RetryPolicy, is_tenacity, verdict

from .errors import LLMError, LLMUnavailableError

if TYPE_CHECKING:
    import tenacity

    from .records import ChatCall, EmbeddingsCall

    Policy = RetryPolicy | tenacity.BaseRetrying

LONGEST_WAIT = 60.0
"""Seconds. A server that asks for a longer wait is not asked again: the caller has something better to do."""


def checked(policy: Policy | None) -> Policy | None:
    """The policy. Raises `LLMError` where it is none."""
    if policy is None or is_tenacity(policy) or (not isinstance(policy, type) and isinstance(policy, RetryPolicy)):
        return policy
    raise LLMError(f"retry={policy!r} is no retry policy. Write retry=Retry(attempts=3), or retry=None.")


class Attempts:
    """The attempts of one call under a policy."""

    __slots__ = (
        "_before",
        "_begun",
        "_call",
        "_clock",
        "_failed",
        "_first_failure",
        "_idle",
        "_policy",
        "http_requests",
    )

    def __init__(self, policy: Policy | None, call: ChatCall | EmbeddingsCall) -> None:
        self._policy = policy
        self._call = call
        call.progress.attempts += 1
        self._before = call.progress.http_requests
        self._clock = current_clock()
        self._begun = self._clock.monotonic() if policy is not None else 0.0
        self._failed = 0
        self._first_failure = 0.0
        self._idle = 0.0
        self.http_requests = 0
        """Those of the attempts that failed."""

    async def wait(self, error: LLMError, *, again: bool = True) -> None:
        """Wait as long as the policy says, and note that. Raises the error where it stands, or not `again`."""
        self._failed += 1
        self.http_requests += error.http_requests
        self._call.progress.counted(self._before + self.http_requests)
        delay = await self._delay(error) if again else None
        if delay is None:
            error.attempts = self._failed
            error.http_requests = self.http_requests
            raise error
        if self._call.noting is not None:
            facts = {
                "attempt": self._failed,
                "wait": delay,
                "error": error,
                "status": error.status,
                "retry_after": error.retry_after,
            }
            self._call.noting("retry", facts)
        self._idle += delay
        await self._clock.sleep(delay)
        self._call.progress.attempts += 1

    async def _delay(self, error: LLMError) -> float | None:
        """Seconds to wait before another attempt, or None where the error stands. No wait outlasts the caller."""
        asked = error.retry_after
        if not isinstance(error, LLMUnavailableError) or (asked is not None and asked > LONGEST_WAIT):
            return None
        now = self._clock.monotonic()
        if self._failed == 1:
            self._first_failure = now
        delay = await self._asked_for(error, now)
        left = None if self._call.deadline is None else self._call.deadline - now
        return None if delay is None or (left is not None and delay >= left) else max(0.0, delay)

    async def _asked_for(self, error: LLMError, now: float) -> float | None:
        """What the policy says; what the server says in its place, or where that is longer.

        A wait that the server asks for takes the place of a `Retry`'s own, and a tenacity object's is at least as
        long; any other policy sees the error, and so its `retry_after`, and decides itself.
        """
        policy = self._policy
        if policy is None:
            return None
        if is_tenacity(policy):
            try:
                delay = await verdict(policy, self._failed, now - self._begun, self._idle, error)
            except GiveUp:
                return None
            # in place of an error it may have a value, which is no answer
            return None if isinstance(delay, tuple) else max(delay, error.retry_after or 0.0)
        if isinstance(policy, Retry) and error.retry_after is not None:
            policy = replace(policy, wait=error.retry_after)
        return policy.next(now - self._first_failure, self._failed, error)
