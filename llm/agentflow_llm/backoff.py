"""When a model that could not answer is asked again: where that may help, and no sooner than it asks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agentflow.clock import current_clock
from agentflow.retry import Retry, RetryPolicy

from .errors import LLMError, LLMUnavailableError

if TYPE_CHECKING:
    from .records import ChatCall, EmbeddingsCall

LONGEST_WAIT = 60.0
"""Seconds. A server that asks for a longer wait is not asked again: the caller has something better to do."""


def checked(policy: RetryPolicy | None) -> RetryPolicy | None:
    """The policy. Raises `LLMError` where it is none."""
    if policy is None or (not isinstance(policy, type) and isinstance(policy, RetryPolicy)):
        return policy
    raise LLMError(f"retry={policy!r} is no retry policy. Write retry=Retry(attempts=3), or retry=None.")


class Attempts:
    """The attempts of one call under a policy."""

    __slots__ = ("_call", "_clock", "_failed", "_first_failure", "_policy", "http_requests")

    def __init__(self, policy: RetryPolicy | None, call: ChatCall | EmbeddingsCall) -> None:
        self._policy = policy
        self._call = call
        self._clock = current_clock()
        self._failed = 0
        self._first_failure = 0.0
        self.http_requests = 0
        """Those of the attempts that failed."""

    async def wait(self, error: LLMError, *, again: bool = True) -> None:
        """Wait as long as the policy says, and note that. Raises the error where it stands, or not `again`."""
        self._failed += 1
        self.http_requests += error.http_requests
        delay = self._delay(error) if again else None
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
        await self._clock.sleep(delay)

    def _delay(self, error: LLMError) -> float | None:
        """Seconds to wait before another attempt, or None where the error stands.

        No wait outlasts the caller's patience. A wait that the server asks for takes the place of a `Retry`'s own;
        any other policy sees the error, and so its `retry_after`, and decides itself.
        """
        now = self._clock.monotonic()
        if self._failed == 1:
            self._first_failure = now
        asked = error.retry_after
        policy = self._policy
        if policy is None or not isinstance(error, LLMUnavailableError) or (asked is not None and asked > LONGEST_WAIT):
            return None
        if isinstance(policy, Retry) and asked is not None:
            policy = replace(policy, wait=asked)
        delay = policy.next(now - self._first_failure, self._failed, error)
        left = None if self._call.deadline is None else self._call.deadline - now
        return None if delay is None or (left is not None and delay >= left) else delay
