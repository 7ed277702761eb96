"""What is known of a thing as long as it lives, by what it is: others' providers may have no hash, and equal others."""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import ref

T = TypeVar("T")


class ByIdentity(Generic[T]):
    """A weak dictionary whose keys need no hash."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[ref[object], T]] = {}

    def __setitem__(self, key: object, value: T) -> None:
        number = id(key)
        self._kept[number] = ref(key, lambda _: self._forget(number)), value

    def __getitem__(self, key: object) -> T:
        return self._kept[id(key)][1]

    def __contains__(self, key: object) -> bool:
        return id(key) in self._kept

    def get(self, key: object) -> T | None:
        """What is known of it, or None."""
        known = self._kept.get(id(key))
        return None if known is None else known[1]

    def discard(self, key: object) -> None:
        """Know nothing of it."""
        self._forget(id(key))

    def _forget(self, number: int) -> None:
        self._kept.pop(number, None)
