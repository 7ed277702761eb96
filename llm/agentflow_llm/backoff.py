"""When a model that could not answer is asked again: where that may help, and no sooner than it asks."""

from __future__ import annotations

from dataclasses import replace

from agentflow.retry import Retry, RetryPolicy

from .errors import LLMError, LLMUnavailableError

LONGEST_WAIT = 60.0
"""Seconds. A server that asks for a longer wait is not asked again: the caller has something better to do."""


def checked(policy: RetryPolicy | None) -> RetryPolicy | None:
    """The policy. Raises `LLMError` where it is none."""
    if policy is None or (not isinstance(policy, type) and isinstance(policy, RetryPolicy)):
        return policy
    raise LLMError(f"retry={policy!r} is no retry policy. Write retry=Retry(attempts=3), or retry=None.")


def wait_before_retry(
    policy: RetryPolicy | None, error: LLMError, *, attempts: int, elapsed: float, left: float | None
) -> float | None:
    """Seconds to wait before another attempt, or None where the error stands.

    `attempts` have failed, the first of them `elapsed` seconds ago, and the caller's patience ends in
    `left` seconds: no wait outlasts it. A wait that the server asks for takes the place of a `Retry`'s own;
    any other policy sees the error, and so its `retry_after`, and decides itself.
    """
    asked = error.retry_after
    if policy is None or not isinstance(error, LLMUnavailableError) or (asked is not None and asked > LONGEST_WAIT):
        return None
    if isinstance(policy, Retry) and asked is not None:
        policy = replace(policy, wait=asked)
    delay = policy.next(elapsed, attempts, error)
    return None if delay is None or (left is not None and delay >= left) else delay
