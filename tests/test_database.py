"""A SQLite file for tasks, threads and processes."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from agentflow_llm import StorageError
from agentflow_llm.database import Database, shared_database

TABLES = "CREATE TABLE item (name TEXT);\nCREATE INDEX items ON item (name);\n"
OTHER = "CREATE VIRTUAL TABLE word USING fts5(text);\n"


def names(db: sqlite3.Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM item ORDER BY rowid")]


@pytest.mark.parametrize("kept", [True, False])
async def test_what_is_written_is_read(tmp_path: Path, kept: bool) -> None:  # noqa: FBT001 because it is a case
    database = Database(tmp_path / "a.db" if kept else None, TABLES)
    await database.write(lambda db: db.execute("INSERT INTO item VALUES ('a')"))
    database.now(lambda db: db.execute("INSERT INTO item VALUES ('b')"))
    assert await database.query(names) == database.read(names) == ["a", "b"]


def test_file_is_still_there_when_it_is_opened_again(tmp_path: Path) -> None:
    Database(tmp_path / "a.db", TABLES).now(lambda db: db.execute("INSERT INTO item VALUES ('a')"))
    assert Database(tmp_path / "a.db", TABLES).read(names) == ["a"]


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", TABLES)

    def work(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO item VALUES ('a')")
        raise LookupError

    with pytest.raises(LookupError):
        database.now(work)
    with pytest.raises(StorageError, match=r"a\.db.*no such table: absent"):
        database.now(lambda db: db.execute("SELECT * FROM absent"))
    assert database.read(names) == []


def test_reading_cannot_write(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", TABLES)
    with pytest.raises(StorageError, match="readonly"):
        database.read(lambda db: db.execute("INSERT INTO item VALUES ('a')"))


def test_all_that_is_read_is_of_one_moment(tmp_path: Path) -> None:
    one, two = Database(tmp_path / "a.db", TABLES), Database(tmp_path / "a.db", TABLES)

    def work(db: sqlite3.Connection) -> tuple[list[str], list[str]]:
        before = names(db)
        two.now(lambda db: db.execute("INSERT INTO item VALUES ('a')"))
        return before, names(db)

    assert one.read(work) == ([], [])
    assert one.read(names) == ["a"]


def test_reading_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", TABLES)
    writing, go_on = Event(), Event()

    def work(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO item VALUES ('a')")
        writing.set()
        go_on.wait()

    writer = Thread(target=database.now, args=[work])
    writer.start()
    writing.wait()
    try:
        assert database.read(names) == []
    finally:
        go_on.set()
        writer.join()
    assert database.read(names) == ["a"]


async def test_writing_that_was_begun_is_finished_where_the_caller_is_cancelled(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", TABLES)
    writing, go_on = asyncio.Event(), Event()
    loop = asyncio.get_running_loop()

    def work(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO item VALUES ('a')")
        loop.call_soon_threadsafe(writing.set)
        go_on.wait()

    task = asyncio.create_task(database.write(work))
    await writing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await database.write(lambda db: db.execute("INSERT INTO item VALUES ('b')"))
    assert database.read(names) == ["a", "b"]


def test_several_sets_of_tables_share_a_file(tmp_path: Path) -> None:
    one, two = Database(tmp_path / "a.db", TABLES, version=3), Database(tmp_path / "a.db", OTHER, version=7)
    one.now(lambda db: db.execute("INSERT INTO item VALUES ('a')"))
    two.now(lambda db: db.execute("INSERT INTO word VALUES ('b')"))
    assert Database(tmp_path / "a.db", TABLES, version=3).read(names) == ["a"]


@pytest.mark.parametrize(("version", "written_by"), [(1, "a newer"), (3, "an older")])
def test_file_of_another_version_is_refused(tmp_path: Path, version: int, written_by: str) -> None:
    Database(tmp_path / "a.db", TABLES, version=2)
    with pytest.raises(StorageError, match=f"'item' are of version 2, written by {written_by} agentflow-otel"):
        Database(tmp_path / "a.db", TABLES, version=version)


def test_file_of_somebody_else_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "theirs.db"
    theirs = sqlite3.connect(file)
    theirs.execute("CREATE TABLE theirs (x)")
    theirs.close()
    before = file.read_bytes()
    with pytest.raises(StorageError, match=r"theirs\.db.*tables of something else"):
        Database(file, TABLES)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.db"]


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database at all, but a text of some length" * 100)
    with pytest.raises(StorageError, match=r"notes\.txt.*not a database"):
        Database(tmp_path / "notes.txt", TABLES)
    with pytest.raises(StorageError, match=r"There is no folder .*absent': make it first"):
        Database(tmp_path / "absent" / "a.db", TABLES)
    with pytest.raises(StorageError, match="It is a folder: name a file in it"):
        Database(tmp_path, TABLES)


def test_one_that_was_closed_says_so(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", TABLES)
    database.close()
    database.close()
    with pytest.raises(StorageError, match="was closed"):
        database.read(names)


def test_users_of_a_file_share_one_that_is_closed_when_nobody_holds_it(tmp_path: Path) -> None:
    one, two = shared_database(tmp_path / "a.db", TABLES), shared_database(f"{tmp_path}/./a.db", TABLES)
    assert one is two
    assert shared_database(tmp_path / "a.db", OTHER) is not one
    assert shared_database(None, TABLES) is not shared_database(None, TABLES)
    del one, two
    gc.collect()
    assert not list(tmp_path.glob("*-wal"))  # the last one that closes a file tidies up


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_process_that_was_forked_off_opens_the_file_anew(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", TABLES)
    database.now(lambda db: db.execute("INSERT INTO item VALUES ('parent')"))
    child = os.fork()
    if not child:
        try:
            database.now(lambda db: db.execute("INSERT INTO item VALUES ('child')"))
            os._exit(0 if database.read(names) == ["parent", "child"] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    database.now(lambda db: db.execute("INSERT INTO item VALUES ('parent again')"))
    assert database.read(names) == ["parent", "child", "parent again"]


PROGRAM = """
import sys
from agentflow_llm.database import Database

sys.stdin.readline()
database = Database(sys.argv[1], sys.argv[2])
for number in range(25):
    database.now(lambda db: db.execute("INSERT INTO item VALUES (?)", (f"{sys.argv[3]} {number}",)))
"""


def test_processes_that_begin_at_once_make_the_tables_once_and_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(file), TABLES, str(n)], stdin=subprocess.PIPE)
        for n in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert sorted(Database(file, TABLES).read(names)) == sorted(f"{n} {k}" for n in range(3) for k in range(25))


def remove(folder: Path) -> None:
    for file in folder.glob("a.db*"):
        file.unlink()


async def test_file_that_was_deleted_is_made_anew_and_its_old_holder_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    old = shared_database(file, TABLES)
    await old.write(lambda db: db.execute("INSERT INTO item VALUES ('old')"))
    remove(tmp_path)
    new = shared_database(file, TABLES)
    assert new is not old
    await new.write(lambda db: db.execute("INSERT INTO item VALUES ('new')"))
    with pytest.raises(StorageError, match=r"a\.db' was deleted or replaced while it was in use"):
        await old.write(lambda db: db.execute("INSERT INTO item VALUES ('lost')"))
    assert Database(file, TABLES).read(names) == ["new"]


@pytest.mark.parametrize("file", [3, b"a.db", ":memory:"])
def test_what_is_no_path_is_refused(file: Any) -> None:
    with pytest.raises(StorageError, match=r"it is the path of a file, or None for memory"):
        shared_database(file, TABLES)
    with pytest.raises(StorageError, match=r"it is the path of a file, or None for memory"):
        Database(file, TABLES)
