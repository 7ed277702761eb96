"""What of the user's data goes out: the level, what the environment hides, the caps of a span."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from . import names, tally
from .cutting import Cutter, size
from .redactors import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.util.types import AttributeValue

    from .redactors import Redactor

Content = Literal["none", "preview", "full"]
Attributes = dict[str, "AttributeValue"]

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
WITHHELD = "__REDACTED__"
"""Stands where a text would, were texts not hidden; OpenInference's own."""

_KiB = 1024
_SPAN = 240 * _KiB
"""All content of a span, its events included: with names, times and counts that makes less than 256 kB."""
_SHORTEST = 16
_YES = frozenset({"true", "1", "yes", "on"})
_CAPTURED: dict[str, frozenset[str]] = {
    "span": _YES | {"span_only", "span_and_event"},
    "event": _YES | {"event_only", "span_and_event"},
}
_LENGTHS = ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")


def level_from_environment(on: Literal["span", "event"] = "span") -> Content:
    """The level that the standard variable asks for: full where it wants message content on spans, or on events."""
    return "full" if os.environ.get(CAPTURE, "").strip().lower() in _CAPTURED[on] else "none"


class Limits:
    """How long things may be, in bytes of UTF-8."""

    __slots__ = ("attribute", "text", "value")

    def __init__(self, text: int, value: int, attribute: int) -> None:
        self.text = text
        """One text inside a message."""
        self.value = value
        """The input or the output of a span."""
        self.attribute = attribute
        """The messages of a span, or its documents."""

    def within(self, longest: int | None) -> Limits:
        """These, where an attribute may have so many characters."""
        if longest is None:
            return self
        return Limits(min(self.text, longest), min(self.value, longest), min(self.attribute, longest))


LIMITS: dict[Content, Limits] = {
    "none": Limits(0, 0, 0),
    "preview": Limits(_KiB, _KiB, 64 * _KiB),
    "full": Limits(8 * _KiB, 8 * _KiB, 64 * _KiB),
}


class Policy:
    """What may go out through one observer. The environment is read when it is made.

    - `content`: the level; by default what the standard variable says, else "none".
    - `redactors`: see `redactors`; they come before those that are always on.
    - `longest`: how many characters an attribute may have, where the provider would cut it, whatever it holds.

    The variables `OPENINFERENCE_HIDE_...` hide whatever the level is. Raises `TypeError` for a redactor that is none.
    """

    def __init__(
        self,
        content: Content | None = None,
        redactors: Iterable[Redactor] = (),
        *,
        longest: int | None = None,
        on: Literal["span", "event"] = "span",
    ) -> None:
        self.level: Content = level_from_environment(on) if content is None else content
        self.redactors = checked(redactors)
        self.longest = longest
        self.limits = LIMITS[self.level].within(longest)
        self.glance = LIMITS["preview"].within(longest).value
        shows = self.level != "none"
        self.shows = shows
        """May anything go out that is the user's?"""
        self.inputs = shows and not _hides("INPUTS")
        self.outputs = shows and not _hides("OUTPUTS")
        self.input_messages = self.inputs and not _hides("INPUT_MESSAGES", "PROMPTS")
        self.output_messages = self.outputs and not _hides("OUTPUT_MESSAGES", "CHOICES")
        self.input_text = self.input_messages and not _hides("INPUT_TEXT")
        self.output_text = self.output_messages and not _hides("OUTPUT_TEXT")
        self.images = not _hides("INPUT_IMAGES")
        self.tools = self.inputs and not _hides("LLM_TOOLS")
        self.documents = not _hides("RETRIEVAL_DOCUMENTS")
        """The texts and metadata of documents; ids and scores are not hidden."""
        self.embedded = self.input_text and not _hides("EMBEDDINGS_TEXT")
        self.parameters = not _hides("LLM_INVOCATION_PARAMETERS")
        """Temperature and so on, which are no content: they go out at every level."""
        self._silent = None if shows else Teller(self)

    def at(self, level: Content) -> Policy:
        """The same at another level."""
        return Policy(level, self.redactors, longest=self.longest)

    def teller(self) -> Teller:
        """What tells the content of a span that begins now."""
        return self._silent or Teller(self)


def _hides(*what: str) -> bool:
    return any(os.environ.get(f"OPENINFERENCE_HIDE_{one}", "").strip().lower() in _YES for one in what)


def longest_value(provider_or_tracer: object) -> int | None:
    """How many characters a provider leaves of an attribute, else the environment; None where it leaves all.

    It would cut JSON in the middle.
    """
    limits: Any = getattr(provider_or_tracer, "_span_limits", None)
    found: list[Any] = [getattr(limits, name, None) for name in ("max_span_attribute_length", "max_attribute_length")]
    if limits is None:
        found = [int(text) for name in _LENGTHS if (text := os.environ.get(name, "").strip()).isdecimal()]
    return min((max(_SHORTEST, one) for one in found if isinstance(one, int)), default=None)


class Teller(Cutter):
    """Tells the content of one span, within what may go out and what the span may hold."""

    __slots__ = ("_left", "may")

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.redactors)
        self.may = policy
        self._left = _SPAN
        """Bytes."""

    def text(self, where: str, text: str, limit: int | None = None) -> str:
        """A text that becomes the attribute `where`."""
        return self.spend(self.clean(text, self.room(limit), where))

    def text_or_json(self, where: str, text: str) -> tuple[str, bool]:
        """A text that should be JSON, and whether it is."""
        shown, is_json = self.json_text(text, self.room(None), where)
        return self.spend(shown), is_json

    def json(self, where: str, value: object, limit: int | None = None) -> str:
        """A value as JSON that becomes the attribute `where`."""
        return self.spend(self.as_json(value, self.room(limit), where))

    def listed(self, items: Sequence[Any], left_out: Callable[[int], Any]) -> tuple[str, bool]:
        """Items that are cut already, as one attribute, and whether something is missing."""
        shown, missing = self.fit(items, self.room(self.may.limits.attribute), left_out)
        return self.spend(shown), missing

    def end(self, where: str, text: str, limit: int) -> str:
        """A text that becomes the attribute `where`, without its beginning where it is too long."""
        return self.spend(self.clean_end(text, self.room(limit), where))

    def leave_out(self, many: int) -> None:
        """So many items of a list do not go out, because it would be too long."""
        self.cut = True
        tally.CONTENT.add("limit", many=many)

    def input(self, value: object, *, glance: bool = False) -> Attributes:
        """What goes in, and of which type it is. At a glance: the whole of it stands in another attribute."""
        return self._shown(names.INPUT, names.INPUT_TYPE, value, glance=glance) if self.may.inputs else {}

    def output(self, value: object, *, glance: bool = False) -> Attributes:
        """What comes out, and of which type it is."""
        return self._shown(names.OUTPUT, names.OUTPUT_TYPE, value, glance=glance) if self.may.outputs else {}

    def _shown(self, key: str, type_key: str, value: object, *, glance: bool) -> Attributes:
        cut = self.cut
        text, is_json = self.as_value(value, self.room(self.may.glance if glance else None), key)
        self.cut = cut if glance else self.cut
        return {key: self.spend(text), type_key: names.JSON if is_json else names.TEXT}

    def spend(self, text: str) -> str:
        """The text, which goes out (once more)."""
        self._left -= size(text)
        return text

    def room(self, limit: int | None) -> int:
        """How much of `limit` the span may still hold; without it, of what a value may be."""
        return max(0, min(self.may.limits.value if limit is None else limit, self._left))

    def facts(self) -> Attributes:
        """Whether something is missing from what was told so far, and whether a redactor failed."""
        made: Attributes = {}
        if self.cut:
            made[names.TRUNCATED] = True
        if self.failure is not None:
            made[names.REDACTION_ERROR] = self.failure
        return made
