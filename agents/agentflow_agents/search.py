"""Search in the documents of a folder, by SQLite's full-text index: no service, no model, no network."""

from __future__ import annotations

import codecs
import os
import re
import sqlite3
from difflib import get_close_matches
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any
from weakref import finalize

from pydantic import Field

from agentflow.errors import shown
from agentflow.log import logger
from agentflow.observe import Kind, operation
from agentflow_llm.loose import well_formed
from agentflow_llm.records import Passage, RetrievalCall

from .errors import DocumentsError, ToolError
from .passages import Markup, split

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_MARKUP: dict[str, Markup] = {".markdown": "markdown", ".md": "markdown", ".rst": "rst", ".txt": "text"}
_LEFT_OUT = {"__pycache__", "node_modules", "site-packages"}
_LARGEST = 2_000_000
_MOST_DOCUMENTS = 10_000
_MOST_WORDS = 64
_LONGEST_READ = 20_000
_MOST_SHOWN = 3
_MOST_FOUND = 1_000_000
_ENGLISH = """
    a about an and any are as at be been but by can could did do does for from had has have how i if in into is it
    its many me much my no not of on or our should so some than that the their them then there these they this those
    to us was we were what when where which who whom whose why will with would you your
"""
_FILLER = frozenset(_ENGLISH.split())
"""Words that say little, and in few documents would decide what is found."""
_VERSION = 1
"""Of the tables and of how documents are split: what another version wrote is made anew."""
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose BOM it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_CONTROL = r"[\x00-\x08\x0e-\x1f\x7f]"
_TABLES = """
    CREATE TABLE document (name TEXT PRIMARY KEY, stamp TEXT);
    CREATE VIRTUAL TABLE passage USING fts5(
        document, heading, text, line UNINDEXED, section UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2');
"""
_RANKED = """
    SELECT document, line, heading, text, -bm25(passage, 1.0, 2.0, 1.0) FROM passage
    WHERE passage MATCH ? ORDER BY bm25(passage, 1.0, 2.0, 1.0), rowid LIMIT ?
"""


class DocumentIndex:
    """The Markdown, reStructuredText and text files of a folder and of those in it, to be searched.

    Its methods `search_documents` and `read_document` are tools: `FunctionAgent(tools=[index.search_documents, ...])`.

    - `folder`: hidden folders, virtual environments, `node_modules` and the like are left out.
    - `file`: where the index is kept; documents that have not changed since are not read again. By default it is
      in memory.
    - `name`: how it is called in traces; the folder's name by default.

    Safe in threads. Reading is done when it is made, and by `refresh`. Raises `DocumentsError` where the folder is
    missing or has no such documents.
    """

    def __init__(self, folder: str | Path, *, file: str | Path | None = None, name: str | None = None) -> None:
        self.folder = Path(folder).expanduser().resolve()
        if not self.folder.is_dir():
            what = "is no folder" if self.folder.exists() else "does not exist"
            raise DocumentsError(f"{str(folder)!r} {what}. Give the folder that holds the documents.")
        self.name = name or _readable(self.folder.name) or "documents"
        self.skipped: dict[str, str] = {}
        """By document or folder, why it was left out."""
        self._lock = Lock()
        self._db = _opened(":memory:" if file is None else Path(file).expanduser())
        self._close = finalize(self, self._db.close)
        self.refresh()

    def __repr__(self) -> str:
        return f"<DocumentIndex {self.name!r}: {len(self)} documents>"

    def __len__(self) -> int:
        return len(self.documents)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database. Without it, that happens when the index is not used any more."""
        self._close()

    @property
    def documents(self) -> list[str]:
        """The names of the documents: their paths in the folder, with "/"."""
        return [name for (name,) in self._rows("SELECT name FROM document ORDER BY name")]

    def refresh(self) -> None:
        """Read the documents that are new or have changed, and forget those that are gone.

        Raises `DocumentsError` where none is left.
        """
        self.skipped = {}
        there: dict[str, tuple[Path, str]] = {}
        for path in self._paths():
            name = self._name_of(path)
            found = path.stat()
            there[name] = path, f"{found.st_mtime_ns}:{found.st_size}"
        with self._lock, self._db:
            known: dict[str, str] = dict(self._db.execute("SELECT name, stamp FROM document"))
            for name in known.keys() - there.keys():
                self._forget(name)
            for name, (path, stamp) in there.items():
                if known.get(name) != stamp:
                    self._forget(name)
                    self._read(path, name, stamp)
        if self.skipped:
            said = f"left out of the search index of {self.name!r}: {_listed(self.skipped)}"
            logger().warning(said, index=self.name, skipped=self.skipped)
        if not self:
            kinds = ", ".join(sorted(_MARKUP))
            why = f" It has some that cannot be read: {_listed(self.skipped)}" if self.skipped else ""
            raise DocumentsError(f"{str(self.folder)!r} has no documents to search: no files {kinds} with text.{why}")

    def search(self, query: str, top_k: int = 5) -> list[Passage]:
        """The passages that have most in common with the words of `query`, the best first.

        Any text is a query; `top_k` is 1 or more. In `metadata` each has `source` ("README.md:12", the line where it
        begins) and `heading`.
        """
        most = _most(top_k)
        with operation(Kind.RETRIEVAL, self.name, RetrievalCall(self.name, query, top_k)) as seen:
            words = list(dict.fromkeys(re.findall(r"\w+", query)))
            words = ([word for word in words if word.casefold() not in _FILLER] or words)[:_MOST_WORDS]
            matching = " OR ".join(f'"{word}"' for word in words)
            rows = self._rows(_RANKED, matching, most) if words else []
            found = [
                Passage(f"{document}:{line}", text, score, {"source": f"{document}:{line}", "heading": heading})
                for document, line, heading, text, score in rows
            ]
            if seen is not None:
                seen.op.result = found
            return found

    def read(self, source: str) -> str:
        """The whole section that a passage is from ("README.md:12"), or a whole document ("README.md").

        Cut behind 20,000 characters. Raises `ToolError` where there is no such document.
        """
        source = well_formed(source)
        document, _, line = source.strip().rpartition(":")
        if not (document and line.isdecimal()):
            document, line = source.strip(), ""
        rows = self._rows("SELECT section, line, text FROM passage WHERE document = ? ORDER BY rowid", document)
        if not rows:
            names = self.documents
            near = get_close_matches(document, names, n=3, cutoff=0.3) or names[:3]
            raise ToolError(
                f"There is no document {document!r}. Take a source from a search, as it stands there, or one of: "
                f"{', '.join(near)}"
            )
        if line:
            section = max((row for row in rows if row[1] <= int(line)), key=lambda row: row[1], default=rows[0])[0]
            rows = [row for row in rows if row[0] == section]
        text = _joined([(at, text) for _, at, text in rows])
        return text if len(text) <= _LONGEST_READ else f"{text[:_LONGEST_READ]}\n... (cut)"

    def search_documents(self, query: str, limit: Annotated[int, Field(ge=1, le=20)] = 5) -> list[dict[str, Any]]:
        """Search the documents for passages about something. Returns passages with their sources, the best first.

        Args:
            query: What to look for: a question, or words that the passages should have.
            limit: How many passages to return at most.
        """
        return [
            {**passage.metadata, "text": passage.text, "score": round(passage.score, 3)}
            for passage in self.search(query, limit)
        ]

    def read_document(self, source: str) -> str:
        """Read the whole section of a document that a passage of search_documents is from.

        Args:
            source: The source of the passage, such as README.md:12.
        """
        return self.read(source)

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def _paths(self) -> Iterator[Path]:
        """The files to read, in a fixed order."""

        def unreadable(error: OSError) -> None:
            self.skipped[self._name_of(Path(error.filename))] = str(error.strerror)

        count = 0
        for top, folders, files in os.walk(self.folder, onerror=unreadable):
            folders[:] = sorted(inner for inner in folders if not _is_left_out(Path(top, inner)))
            for path in (Path(top, file) for file in sorted(files) if Path(file).suffix.lower() in _MARKUP):
                reason = self._refusal(path)
                if reason is None and count >= _MOST_DOCUMENTS:
                    reason = f"more than {_MOST_DOCUMENTS:,} documents"
                if reason is None:
                    count += 1
                    yield path
                else:
                    self.skipped[self._name_of(path)] = reason

    def _name_of(self, path: Path) -> str:
        return _readable(path.relative_to(self.folder).as_posix())

    def _refusal(self, path: Path) -> str | None:
        """Why a file is not to be read, or None."""
        name = path.relative_to(self.folder).as_posix()
        if _readable(name) != name:
            return "its name is no UTF-8"
        try:
            if not path.resolve().is_relative_to(self.folder):
                return "a link out of the folder"
            size = path.stat().st_size
        except (OSError, RuntimeError) as error:  # a link in a circle is a RuntimeError
            return str(getattr(error, "strerror", None) or error)
        if not path.is_file():
            return "no plain file"
        return f"larger than {_LARGEST:,} bytes" if size > _LARGEST else None

    def _read(self, path: Path, name: str, stamp: str) -> None:
        try:
            text = _decoded(path.read_bytes())
        except OSError as error:
            self.skipped[name] = str(error.strerror or error)
            return
        if text is None:
            self.skipped[name] = "no text"
            return
        pieces = [
            (name, piece.heading, piece.text, piece.line, piece.section)
            for piece in split(text, _MARKUP[path.suffix.lower()])
        ]
        if pieces:
            self._db.executemany("INSERT INTO passage VALUES (?, ?, ?, ?, ?)", pieces)
            self._db.execute("INSERT INTO document VALUES (?, ?)", (name, stamp))

    def _forget(self, name: str) -> None:
        self._db.execute("DELETE FROM passage WHERE document = ?", (name,))
        self._db.execute("DELETE FROM document WHERE name = ?", (name,))


def _opened(file: str | Path) -> sqlite3.Connection:
    """A database with our tables. One connection serves all threads, one at a time."""
    db: sqlite3.Connection | None = None
    try:
        db = sqlite3.connect(file, check_same_thread=False)
        if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            db.executescript(f"DROP TABLE IF EXISTS document; DROP TABLE IF EXISTS passage; {_TABLES}")
            db.execute(f"PRAGMA user_version = {_VERSION}")
    except sqlite3.Error as error:
        if db is not None:
            db.close()
        hint = " This Python's SQLite was built without FTS5." if "fts5" in str(error) else ""
        raise DocumentsError(f"the index cannot be kept in {str(file)!r}: {error}.{hint}") from error
    return db


def _is_left_out(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in _LEFT_OUT or (folder / "pyvenv.cfg").exists()


def _most(top_k: object) -> int:
    """How many passages to look for, as SQLite can count them."""
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise DocumentsError(f"search(top_k={shown(top_k)}): it is a whole number of 1 or more.")
    return min(top_k, _MOST_FOUND)


def _decoded(data: bytes) -> str | None:
    """The text of a file, in the encoding that it shows; None where it is none, but something binary."""
    bom = next((bom for bom in _BOMS if data.startswith(bom)), b"")
    for encoding in [_BOMS[bom]] if bom else ["utf-8", "cp1252"]:
        try:
            text = data[len(bom) :].decode(encoding)
        except UnicodeDecodeError:
            continue
        binary = _CONTROL if encoding == "cp1252" else "\0"  # which nearly any bytes are
        return None if re.search(binary, text) else text.replace("\r\n", "\n").replace("\r", "\n")
    return None


def _readable(name: str) -> str:
    """A name of the file system, with a backslash escape for each byte of it that is no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _joined(passages: list[tuple[int, str]]) -> str:
    """Passages that follow each other, as they stood: a long block or line had been cut."""
    text, next_line = "", 0
    for line, passage in passages:
        if text:
            text += "\n" if line == next_line else "\n\n" if line > next_line else " "
        text += passage
        next_line = line + passage.count("\n") + 1
    return text


def _listed(skipped: dict[str, str]) -> str:
    told = [f"{name} ({reason})" for name, reason in list(skipped.items())[:_MOST_SHOWN]]
    more = len(skipped) - _MOST_SHOWN
    return "; ".join([*told, f"and {more:,} more"] if more > 0 else told)
