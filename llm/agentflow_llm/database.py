"""A SQLite file that several tasks, threads and processes use at once."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar
from weakref import finalize

from .errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_PATIENCE = 30.0
"""Seconds that a writer waits for other processes to finish writing."""


class Database:
    """One connection, for all threads, one at a time; readers and one writer of other processes go on beside it (WAL).

    - `file`: where it is kept; None for memory.
    - `tables`: the statements that make the tables, run when the file's `user_version` is not `version`: a file of
      another version is refused.

    Raises `StorageError`, which says which file and what to do.
    """

    def __init__(self, file: str | Path | None, tables: str, *, version: int = 1) -> None:
        self.file = ":memory:" if file is None else str(Path(file).expanduser())
        self._lock = Lock()
        db: sqlite3.Connection | None = None
        try:
            db = sqlite3.connect(self.file, timeout=_PATIENCE, check_same_thread=False, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            _make(db, tables, version)
        except sqlite3.Error as error:
            if db is not None:
                db.close()
            hint = " This Python's SQLite was built without FTS5." if "fts5" in str(error) else ""
            raise StorageError(f"{self.file!r} cannot be used as a database: {error}.{hint}") from error
        self._db = db
        self._close = finalize(self, db.close)

    def __repr__(self) -> str:
        return f"Database({self.file!r})"

    def now(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work` as one transaction, here and now. Raises `StorageError`."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    result = work(self._db)
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise StorageError(f"{self.file!r}: {error}.") from error
            return result

    def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work`, which only reads, here and now. Raises `StorageError`."""
        with self._lock:
            try:
                return work(self._db)
            except sqlite3.Error as error:
                raise StorageError(f"{self.file!r}: {error}.") from error

    async def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work` as one transaction, in a thread. Once begun it is finished, also where the caller is cancelled."""
        return await asyncio.to_thread(self.now, work)

    async def query(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work`, which only reads, in a thread."""
        return await asyncio.to_thread(self.read, work)

    def close(self) -> None:
        """Close it. Without this, that happens when nobody holds it any more."""
        self._close()


def _make(db: sqlite3.Connection, tables: str, version: int) -> None:
    """Make the tables in a file that is new; two processes may be here at once."""
    db.execute("BEGIN IMMEDIATE")
    try:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0 and not db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            for statement in filter(None, map(str.strip, tables.split(";\n"))):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {version:d}")
        else:
            _check(found, version)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _check(found: int, version: int) -> None:
    if found != version:
        raise sqlite3.DatabaseError(f"it holds version {found} of something else; version {version} is expected")
