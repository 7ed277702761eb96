"""Server-sent events, as streamed answers come in: bytes as they were read, made into events with their JSON."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic_core import from_json

_BOM = b"\xef\xbb\xbf"
_DONE = b"[DONE]"
_FIELDS = {b"data", b"event", b"id", b"retry"}
_LINE_FEED, _CARRIAGE_RETURN = b"\n", b"\r"

Event = tuple[str, dict[str, Any]]
"""An event's name, mostly empty, and its data, decoded. Data that are no JSON object mean nothing, and are left out."""


class EventReader:
    """Puts events together from bytes, wherever these were split: `feed` what was read, and at the end `end`.

    - `done`: the server said `[DONE]`; what comes after it counts for nothing.
    - `plain`: what came are no events. `text` is then all of it, which may be JSON.
    - `broken`: the data of an event that are no JSON; no more events come then.
    """

    __slots__ = ("_data", "_head", "_name", "_pieces", "_skip_line_feed", "broken", "done", "plain")

    def __init__(self) -> None:
        self.done = False
        self.plain = False
        self.broken: bytes | None = None
        self._head: list[bytes] | None = []  # all that came until it is known whether these are events
        self._pieces: list[bytes] = []  # of a line that has no end yet
        self._skip_line_feed = False
        self._name = b""
        self._data: list[bytes] = []

    @property
    def text(self) -> str:
        """All that came, where it is `plain`."""
        return b"".join(self._head or ()).decode("utf-8", "replace").removeprefix("\ufeff")

    def feed(self, read: bytes) -> list[Event]:
        """The events that these bytes complete."""
        if not read or self.done or self.broken is not None:
            return []
        if self._head is not None:
            self._head.append(read)
            if self.plain:
                return []
        if self._skip_line_feed:
            self._skip_line_feed = False
            if read.startswith(_LINE_FEED):
                read = read[1:]
        end = max(read.rfind(_LINE_FEED), read.rfind(_CARRIAGE_RETURN)) + 1
        if not end:
            self._pieces.append(read)
            return []
        self._skip_line_feed = read.endswith(_CARRIAGE_RETURN)
        whole, rest = (read, b"") if end == len(read) else (read[:end], read[end:])
        if self._pieces:
            self._pieces.append(whole)
            whole = b"".join(self._pieces)
            self._pieces = []
        if rest:
            self._pieces.append(rest)
        return self._events(whole.splitlines())

    def end(self) -> list[Event]:
        """The event that no empty line completed, if there is one."""
        if self.done or self.plain or self.broken is not None:
            return []
        rest = b"".join(self._pieces)
        events = self._events([rest, b""])  # an empty line more ends whatever is open
        if rest:
            self.broken = None  # a line that was cut is no fault of who wrote it
        return events

    def _events(self, lines: list[bytes]) -> list[Event]:
        if self._head is not None and not self._are_events(lines):
            return []
        events: list[Event] = []
        data = self._data
        for line in lines:
            if line.startswith(b"data: "):
                data.append(line[6:])
            elif not line:
                if data:
                    self._complete(events)
                    if self.done or self.broken is not None:
                        break
                self._name = b""
            else:
                self._other(line)
        return events

    def _are_events(self, lines: list[bytes]) -> bool:
        """Whether they are, as far as is known. The first line that says something decides."""
        for at, line in enumerate(lines):
            said = line.removeprefix(_BOM).lstrip()
            if said.startswith(b":") or not said:
                lines[at] = b"" if not said else b":"
            elif said.partition(b":")[0].rstrip() in _FIELDS:
                lines[at] = said
                self._head = None
                return True
            else:
                self.plain = True
                return False
        return True

    def _complete(self, events: list[Event]) -> None:
        data = self._data
        said = data[0] if len(data) == 1 else b"\n".join(data)
        data.clear()
        if said.startswith(_DONE):
            self.done = True
            return
        try:
            value = decoded(said)
        except ValueError:
            if said.strip():
                self.broken = said
            return
        if isinstance(value, dict):
            name = self._name.decode("utf-8", "replace") if self._name else ""
            events.append((name, cast("dict[str, Any]", value)))

    def _other(self, line: bytes) -> None:
        """A line that is written in another way than nearly all are."""
        name, _, value = line.lstrip().partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._name = value.strip()


def decoded(data: bytes) -> Any:
    """What the JSON says. Raises `ValueError` where it is none.

    Bytes that are no UTF-8 become U+FFFD; halves of surrogate pairs stay what they are.
    """
    try:
        return from_json(data, cache_strings="keys")
    except ValueError:
        try:
            return json.loads(data.decode("utf-8", "replace"))
        except RecursionError as error:
            raise ValueError("It is nested too deeply.") from error
