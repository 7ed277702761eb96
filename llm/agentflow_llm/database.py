"""A SQLite file that several tasks, threads and processes use at once."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import time
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary, finalize

from agentflow.errors import shown

from .errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_PATIENCE = 30.0
"""Seconds that a writer waits for other processes to finish writing."""
_PAUSE = 0.002
_TABLE = re.compile(r"CREATE\s+(?:VIRTUAL\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)", re.IGNORECASE)
_VERSIONS = "agentflow_versions"
"""The table that says which of our tables a file has, and of which version."""


class Database:
    """A file with tables of ours, for all threads: one writes at a time, and readers do not wait for it (WAL).

    - `file`: where it is kept; None for memory.
    - `tables`: the statements that make the tables, each ended by `;` at the end of a line. The first table gives
      the set its name: several sets with tables of different names share a file.
    - `version`: of this set of tables. A file that holds another version of it, or tables of somebody else, is refused.

    In a process that was forked off it opens the file anew. Raises `StorageError`, which says which file and why.
    """

    def __init__(self, file: str | Path | None, tables: str, *, version: int = 1) -> None:
        self.file = ":memory:" if file is None else str(_path(file).absolute())
        self._tables = tables
        self._version = version
        self._closed = False
        self._open()

    def __repr__(self) -> str:
        return f"Database({self.file!r})"

    def now(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work` as one transaction, here and now. Raises `StorageError`."""
        self._ready()
        if not self.is_there():
            raise StorageError(f"{self.file!r} was deleted or replaced while it was in use. Open it anew.")
        with self._writing:
            return self._transaction(self._writer, "BEGIN IMMEDIATE", work)

    def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work`, which only reads, here and now; all that it reads is of one moment. Raises `StorageError`."""
        self._ready()
        with self._reading:
            return self._transaction(self._reader, "BEGIN", work)

    async def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work` as one transaction, in a thread. Once begun it is finished, also where the caller is cancelled."""
        return await asyncio.to_thread(self.now, work)

    async def query(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work`, which only reads, in a thread."""
        return await asyncio.to_thread(self.read, work)

    def is_there(self) -> bool:
        """Whether the file is still the one that was opened."""
        return self.file == ":memory:" or self._identity == _identity(self.file)

    def close(self) -> None:
        """Close it. Without this, that happens when nobody holds it any more."""
        self._closed = True
        self._release()

    def _transaction(self, db: sqlite3.Connection, begin: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            db.execute(begin)
            try:
                result = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite itself rolls back where the disk is full
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StorageError(f"{self.file!r}: {error}.") from error
        return result

    def _open(self) -> None:
        opened: list[sqlite3.Connection] = []
        try:
            opened.append(_connect(self.file))
            _check_owner(opened[0])
            if self.file != ":memory:":
                _share(opened[0])
                opened[0].execute("PRAGMA synchronous = NORMAL")
            _make(opened[0], self._tables, self._version)
            if self.file != ":memory:":
                opened.append(_connect(self.file))
                opened[1].execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            _close(opened)
            raise StorageError(
                f"{self.file!r} cannot be used as a database: {error}.{_hint(self.file, error)}"
            ) from error
        self._writer, self._reader = opened[0], opened[-1]
        self._writing = Lock()
        self._reading = Lock() if len(opened) > 1 else self._writing
        self._process = os.getpid()
        self._identity = _identity(self.file)
        self._release = finalize(self, _close, opened)

    def _ready(self) -> None:
        """Make sure that the connections are this process's own. Raises `StorageError`."""
        if self._closed:
            raise StorageError(f"{self.file!r} was closed.")
        if self._process != os.getpid() and self.file != ":memory:":
            # a connection that came through a fork must not be touched, not even to close it
            _INHERITED.append((self._writer, self._reader))
            self._release.detach()
            self._open()


def shared_database(file: str | Path | None, tables: str, *, version: int = 1) -> Database:
    """The `Database` of this file that this process already has, for as many users as there are; or a new one.

    Nobody closes it: that happens when nobody holds it any more. One in memory is always new.
    """
    if file is None:
        return Database(None, tables, version=version)
    key = str(_path(file).resolve()), tables, version
    with _SHARING:
        known = _SHARED.get(key)
        if known is None or not known.is_there():
            known = _SHARED[key] = Database(file, tables, version=version)
        return known


_SHARED: WeakValueDictionary[tuple[str, str, int], Database] = WeakValueDictionary()
_SHARING = Lock()
_INHERITED: list[tuple[sqlite3.Connection, sqlite3.Connection]] = []


def _path(file: object) -> Path:
    if isinstance(file, str | Path) and str(file) != ":memory:":
        return Path(file).expanduser()
    raise StorageError(f"file={shown(file)}: it is the path of a file, or None for memory.")


def _identity(file: str) -> tuple[int, int] | None:
    """Which file it is, whatever its name; None where there is none."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(file: str) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=_PATIENCE, check_same_thread=False, isolation_level=None)


def _share(db: sqlite3.Connection) -> None:
    """Let readers go on beside a writer. SQLite itself does not wait where another process is at this, too."""
    patience_ends = time.monotonic() + _PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience_ends:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _close(opened: list[sqlite3.Connection]) -> None:
    for db in opened:
        db.close()


def _hint(file: str, error: sqlite3.Error) -> str:
    if "fts5" in str(error):
        return " This Python's SQLite was built without FTS5."
    folder = str(Path(file).parent)
    if not os.path.exists(folder):  # noqa: PTH110 because a method of Path raises where it may not look
        return f" There is no folder {folder!r}: make it first, or get leave to look into it."
    is_folder = os.path.isdir(file)  # noqa: PTH112 as above, because it raises
    return " It is a folder: name a file in it." if is_folder else ""


def _check_owner(db: sqlite3.Connection) -> None:
    """Refuse a file with tables, none of them ours, before anything in it is changed."""
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if names and _VERSIONS not in names:
        raise sqlite3.DatabaseError("it holds tables of something else; name a file of its own")


def _make(db: sqlite3.Connection, tables: str, version: int) -> None:
    """Make the tables where the file does not have them; two processes may be here at once."""
    first = _TABLE.search(tables)
    assert first, "a set of tables has at least one"
    name = first[1]
    if _is_made(db, name, version):  # without waiting for writers
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _is_made(db, name, version):
            db.execute(f"CREATE TABLE IF NOT EXISTS {_VERSIONS} (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
            for statement in filter(None, map(str.strip, tables.split(";\n"))):
                db.execute(statement)
            db.execute(f"INSERT INTO {_VERSIONS} VALUES (?, ?)", (name, version))  # noqa: S608 because the name is ours
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _is_made(db: sqlite3.Connection, name: str, version: int) -> bool:
    """Whether the tables are there. Raises `sqlite3.DatabaseError` where they are of another version."""
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (_VERSIONS,)).fetchone():
        return False
    found = db.execute(f"SELECT version FROM {_VERSIONS} WHERE name = ?", (name,)).fetchone()  # noqa: S608 because the name is ours
    if found is not None and found[0] != version:
        newer = "a newer" if found[0] > version else "an older"
        raise sqlite3.DatabaseError(
            f"its {name!r} are of version {found[0]}, written by {newer} agentflow-otel; this one has version {version}"
        )
    return found is not None
