"""The messages of conversations, in memory or in a SQLite file, and how far each has been digested."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from .database import shared_database
from .errors import StorageError
from .loose import well_formed
from .messages import ChatMessage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_T = TypeVar("_T")

TABLES = """
CREATE TABLE memory_messages (
    session TEXT NOT NULL, position INTEGER NOT NULL, id TEXT NOT NULL, role TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (session, position), UNIQUE (session, id));
CREATE INDEX memory_systems ON memory_messages (session, position) WHERE role = 'system';
CREATE TABLE memory_digests (
    session TEXT NOT NULL, kind TEXT NOT NULL, upto INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (session, kind));
"""
# positions of a session count from 0 without gaps: a newest one tells how many there are
_APPEND = "INSERT INTO memory_messages VALUES (?, ?, ?, ?, ?) ON CONFLICT (session, id) DO NOTHING"


class Digest(NamedTuple):
    """What was made of the oldest messages of a conversation: of the first `upto`."""

    upto: int = 0
    text: str = ""


class Put(NamedTuple):
    """What was put: the position of the first, and the messages, without those that were there already."""

    first: int
    added: list[ChatMessage]


class View(Protocol):
    """A conversation at one moment. Positions count from 0."""

    @property
    def length(self) -> int:
        """How many messages there are."""
        ...

    def newest_first(self, start: int = 0) -> Iterator[ChatMessage]:
        """The messages from the newest back to position `start`, read as they are asked for."""
        ...

    def between(self, start: int, stop: int) -> list[ChatMessage]:
        """The messages from one position to another, without that."""
        ...

    def systems(self) -> list[ChatMessage]:
        """All messages of the system."""
        ...

    def digest(self, kind: str) -> Digest:
        """How far it has been digested."""
        ...


class Transcript(ABC):
    """The messages of one conversation, for all threads. What is put together stays together, in its order."""

    @abstractmethod
    async def put(self, messages: Sequence[ChatMessage]) -> Put:
        """Append messages, all or none; one whose id is there already is not put again."""

    @abstractmethod
    def put_now(self, messages: Sequence[ChatMessage]) -> Put:
        """As `put`, in this very thread."""

    @abstractmethod
    async def look(self, work: Callable[[View], _T]) -> _T:
        """What `work` makes of the conversation as it is at one moment."""

    @abstractmethod
    def look_now(self, work: Callable[[View], _T]) -> _T:
        """As `look`, in this very thread."""

    @abstractmethod
    async def advance(self, kind: str, old: Digest, new: Digest, last: ChatMessage) -> bool:
        """Replace one digest by another, which goes up to `last`. False where somebody else was faster."""

    @abstractmethod
    async def clear(self) -> None:
        """Forget everything."""


class MemoryTranscript(Transcript):
    """In memory."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._messages: list[ChatMessage] = []
        self._systems: list[ChatMessage] = []
        self._ids: set[str] = set()
        self._digests: dict[str, Digest] = {}

    @property
    def length(self) -> int:
        """See `View`."""
        return len(self._messages)

    def newest_first(self, start: int = 0) -> Iterator[ChatMessage]:
        """See `View`."""
        return islice(reversed(self._messages), len(self._messages) - start)

    def between(self, start: int, stop: int) -> list[ChatMessage]:
        """See `View`."""
        return self._messages[start:stop]

    def systems(self) -> list[ChatMessage]:
        """See `View`."""
        return list(self._systems)

    def digest(self, kind: str) -> Digest:
        """See `View`."""
        return self._digests.get(kind, Digest())

    async def put(self, messages: Sequence[ChatMessage]) -> Put:
        """See `Transcript`."""
        return self.put_now(messages)

    def put_now(self, messages: Sequence[ChatMessage]) -> Put:
        """See `Transcript`."""
        with self._lock:
            first = len(self._messages)
            added: list[ChatMessage] = []
            for message in messages:
                if message.id not in self._ids:
                    self._ids.add(message.id)
                    added.append(message)
            self._messages += added
            self._systems += [message for message in added if message.role == "system"]
            return Put(first, added)

    async def look(self, work: Callable[[View], _T]) -> _T:
        """See `Transcript`."""
        return self.look_now(work)

    def look_now(self, work: Callable[[View], _T]) -> _T:
        """See `Transcript`."""
        with self._lock:
            return work(self)

    async def advance(self, kind: str, old: Digest, new: Digest, last: ChatMessage) -> bool:
        """See `Transcript`."""
        with self._lock:
            there = self._messages[new.upto - 1 : new.upto]
            if self.digest(kind) != old or not there or there[0].id != last.id:
                return False
            self._digests[kind] = new
            return True

    async def clear(self) -> None:
        """See `Transcript`."""
        with self._lock:
            self._messages, self._systems, self._ids, self._digests = [], [], set(), {}


class _Asked(Generic[_T]):
    """Work for a thread, and what came of it."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self.done: Future[_T] = Future()
        self._work = work

    def do(self) -> None:
        try:
            self.done.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 because it is for who asked
            self.done.set_exception(error)


class FileTranscript(Transcript):
    """In a SQLite file, by the name of the session; other processes may use it at the same time."""

    def __init__(self, file: str | Path, session: str) -> None:
        self._db = shared_database(file, TABLES)
        self.session = session
        self._asked: deque[_Asked[Any]] = deque()
        """What is to be written, in the order in which it was asked for."""
        self._turn = Lock()

    async def put(self, messages: Sequence[ChatMessage]) -> Put:
        """See `Transcript`."""
        return await self._in_turn(lambda: self.put_now(messages))

    async def _in_turn(self, work: Callable[[], _T]) -> _T:
        """Do `work` in a thread, after all that was asked for before: one that was cancelled may still be at it."""
        asked = _Asked(work)
        self._asked.append(asked)
        try:
            await asyncio.to_thread(self._go_on)
        except asyncio.CancelledError:
            with suppress(ValueError):  # then it has been begun
                self._asked.remove(asked)
            raise
        return asked.done.result()

    def _go_on(self) -> None:
        with self._turn:
            while self._asked:
                self._asked.popleft().do()

    def put_now(self, messages: Sequence[ChatMessage]) -> Put:
        """See `Transcript`."""
        texts = list(map(_written, messages))  # while others may still write

        def work(db: sqlite3.Connection) -> Put:
            first = position = _Rows(db, self).length
            added: list[ChatMessage] = []
            for message, text in zip(messages, texts, strict=True):
                row = self.session, position, well_formed(message.id), message.role, text
                if db.execute(_APPEND, row).rowcount:
                    position += 1
                    added.append(message)
            return Put(first, added)

        return self._db.now(work)

    async def look(self, work: Callable[[View], _T]) -> _T:
        """See `Transcript`."""
        return await self._db.query(lambda db: work(_Rows(db, self)))

    def look_now(self, work: Callable[[View], _T]) -> _T:
        """See `Transcript`."""
        return self._db.read(lambda db: work(_Rows(db, self)))

    async def advance(self, kind: str, old: Digest, new: Digest, last: ChatMessage) -> bool:
        """See `Transcript`."""

        def work(db: sqlite3.Connection) -> bool:
            place = self.session, new.upto - 1, well_formed(last.id)
            there = db.execute("SELECT 1 FROM memory_messages WHERE session = ? AND position = ? AND id = ?", place)
            if _Rows(db, self).digest(kind) != old or not there.fetchone():
                return False
            row = self.session, kind, new.upto, well_formed(new.text)
            db.execute("INSERT OR REPLACE INTO memory_digests VALUES (?, ?, ?, ?)", row)
            return True

        return await self._db.write(work)

    async def clear(self) -> None:
        """See `Transcript`."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM memory_messages WHERE session = ?", (self.session,))
            db.execute("DELETE FROM memory_digests WHERE session = ?", (self.session,))

        await self._in_turn(lambda: self._db.now(work))

    def message(self, text: str) -> ChatMessage:
        """A message as it is kept, read. Raises `StorageError`."""
        try:
            return ChatMessage.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "its JSON"
            newer = " A newer agentflow-otel wrote it: update this one." if first["type"] == "extra_forbidden" else ""
            raise StorageError(
                f"{self._db.file!r} holds a message of session {self.session!r} that cannot be read: {where}: "
                f"{first['msg']}.{newer}"
            ) from error


class _Rows:
    """A conversation in a file as a transaction sees it."""

    def __init__(self, db: sqlite3.Connection, of: FileTranscript) -> None:
        self._db = db
        self._of = of

    @property
    def length(self) -> int:
        found = self._db.execute(
            "SELECT position + 1 FROM memory_messages WHERE session = ? ORDER BY position DESC LIMIT 1",
            (self._of.session,),
        ).fetchone()
        return 0 if found is None else int(found[0])

    def newest_first(self, start: int = 0) -> Iterator[ChatMessage]:
        return self._read("position >= ? ORDER BY position DESC", start)

    def between(self, start: int, stop: int) -> list[ChatMessage]:
        return list(self._read("position >= ? AND position < ? ORDER BY position", start, stop))

    def systems(self) -> list[ChatMessage]:
        return list(self._read("role = 'system' ORDER BY position"))

    def _read(self, which: str, *values: int) -> Iterator[ChatMessage]:
        query = f"SELECT message FROM memory_messages WHERE session = ? AND {which}"  # noqa: S608 because it is ours
        return (self._of.message(text) for (text,) in self._db.execute(query, (self._of.session, *values)))

    def digest(self, kind: str) -> Digest:
        found = self._db.execute(
            "SELECT upto, text FROM memory_digests WHERE session = ? AND kind = ?", (self._of.session, kind)
        ).fetchone()
        return Digest() if found is None else Digest(*found)


def _written(message: ChatMessage) -> str:
    try:
        return message.model_dump_json()
    except PydanticSerializationError:  # a text has halves of characters, which no UTF-8 can hold
        return well_formed(json.dumps(message.model_dump(mode="json"), ensure_ascii=False))
