"""What a span tells of an error: its class always, its text only where content may go out."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from opentelemetry.trace import StatusCode

from . import names
from .content import LIMITS, clean

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from .content import Content

_DESCRIPTION = 256
_STACK = LIMITS["full"].text


def error_type(error: BaseException) -> str:
    """The error's class, with its module unless it is a builtin."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def message_of(error: BaseException, limit: int = _DESCRIPTION) -> str:
    """The error's text, without secrets, cut."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 because an error whose text cannot be made must not raise a second one
        return ""
    return clean(text, limit)


def fail(span: Span, error: BaseException | None, kind: str | None, content: Content, at: int) -> None:
    """Mark a span as failed. `kind`: the type of the error where that is no class, such as "timeout"."""
    if error is None:
        span.set_attribute(names.ERROR_TYPE, kind or "_OTHER")
        span.set_status(StatusCode.ERROR, kind)
        return
    span.set_attribute(names.ERROR_TYPE, kind or error_type(error))
    span.set_status(StatusCode.ERROR, _description(error, content))
    span.add_event(names.EXCEPTION_EVENT, _exception(error, content), at)


def _description(error: BaseException, content: Content) -> str:
    name = type(error).__name__
    text = "" if content == "none" else message_of(error, _DESCRIPTION - len(name) - 2)
    return f"{name}: {text}" if text else name


def _exception(error: BaseException, content: Content) -> dict[str, AttributeValue]:
    facts: dict[str, AttributeValue] = {names.EXCEPTION_TYPE: error_type(error)}
    if getattr(error, "says_all", False):  # such as what a tool tells the model to correct
        if content != "none":
            facts[names.EXCEPTION_MESSAGE] = message_of(error, LIMITS[content].text)
        return facts
    # a traceback that is printed whole holds the messages of all errors in its chain
    frames = "".join(traceback.format_tb(error.__traceback__, -32))
    if content == "none":
        text = f"Traceback (most recent call last):\n{frames}{type(error).__name__}\n"
    else:
        facts[names.EXCEPTION_MESSAGE] = message_of(error, LIMITS[content].text)
        text = "".join(traceback.format_exception(error, limit=-32))
    if frames or content != "none":
        facts[names.EXCEPTION_STACK] = _last(text)
    return facts


def _last(text: str) -> str:
    """The end of a stack trace says what happened: where it is too long, the beginning goes."""
    return clean(text if len(text) <= _STACK else f"…{text[-_STACK + 8 :]}", _STACK)
