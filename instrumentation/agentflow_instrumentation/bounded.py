"""Values of dimensions: as many as a back end can bear, whatever the program does."""

from __future__ import annotations

from . import names
from .cutting import clean

MOST = 200
"""So many values of one dimension go out; those that come later are `_other`."""
_LONGEST = 200


class Bounded:
    """The values that each dimension has had."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def value(self, dimension: str, value: str) -> str:
        """The value as it goes out: without secrets, not too long, and `_other` if there were too many."""
        known = self._known.get(dimension)
        if known is None:
            known = self._known.setdefault(dimension, {})
        found = known.get(value)
        if found is not None:
            return found
        if len(known) >= MOST:
            return names.OTHER
        shown = known[value] = clean(str(value), _LONGEST)
        return shown

    def values(self, given: dict[str, str | None]) -> dict[str, str]:
        """Those of several dimensions; what is None or empty is left out."""
        return {dimension: self.value(dimension, value) for dimension, value in given.items() if value}
