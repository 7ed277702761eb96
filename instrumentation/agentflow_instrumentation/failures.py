"""What a span tells of an error: its class always, its text only where content may go out."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from opentelemetry.trace import StatusCode

from . import names
from .content import LIMITS, Teller

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from .content import Policy

_DESCRIPTION = 256
_STACK = LIMITS["full"].text


def error_type(error: BaseException) -> str:
    """The error's class, with its module unless it is a builtin."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def message_of(error: BaseException, tell: Teller, limit: int = _DESCRIPTION) -> str:
    """The error's text, redacted and cut."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 because an error whose text cannot be made must not raise a second one
        return ""
    return tell.text(names.EXCEPTION_MESSAGE, text, limit)


def fail(span: Span, error: BaseException | None, kind: str | None, tell: Teller, at: int) -> None:
    """Mark a span as failed. `kind`: the type of the error where that is no class, such as "timeout"."""
    if error is None:
        span.set_attribute(names.ERROR_TYPE, kind or "_OTHER")
        span.set_status(StatusCode.ERROR, kind)
        return
    span.set_attribute(names.ERROR_TYPE, kind or error_type(error))
    span.set_status(StatusCode.ERROR, _description(error, tell))
    span.add_event(names.EXCEPTION_EVENT, exception_facts(error, tell), at)


def _description(error: BaseException, tell: Teller) -> str:
    name = type(error).__name__
    text = message_of(error, tell, _DESCRIPTION - len(name) - 2) if tell.may.shows else ""
    return f"{name}: {text}" if text else name


def told_of(error: BaseException, policy: Policy) -> dict[str, AttributeValue]:
    """The attributes of an exception on a log record that tells no other content."""
    tell = policy.teller()
    return exception_facts(error, tell) | tell.facts()


def exception_facts(error: BaseException, tell: Teller) -> dict[str, AttributeValue]:
    """The attributes of an exception, on an event of a span or on a log record."""
    facts: dict[str, AttributeValue] = {names.EXCEPTION_TYPE: error_type(error)}
    if getattr(error, "says_all", False):  # such as what a tool tells the model to correct
        if tell.may.shows:
            facts[names.EXCEPTION_MESSAGE] = message_of(error, tell, tell.may.limits.text)
        return facts
    if not tell.may.shows:
        tell = Teller(tell.may)  # the one that tells nothing is shared by all spans
    # a traceback that is printed whole holds the messages of all errors in its chain
    frames = "".join(traceback.format_tb(error.__traceback__, -32))
    if not tell.may.shows:
        text = f"Traceback (most recent call last):\n{frames}{type(error).__name__}\n"
    else:
        facts[names.EXCEPTION_MESSAGE] = message_of(error, tell, tell.may.limits.text)
        text = "".join(traceback.format_exception(error, limit=-32))
    if frames or tell.may.shows:
        # the end of a stack trace says what happened: where it is too long, the beginning goes
        facts[names.EXCEPTION_STACK] = tell.end(names.EXCEPTION_STACK, text, _STACK)
    return facts
