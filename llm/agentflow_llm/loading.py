"""Documents from files and folders: text, Markdown, reStructuredText, HTML and PDF."""

from __future__ import annotations

import codecs
import logging
import os
import re
import sys
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from .documents import Document, DocumentError
from .errors import MissingExtraError
from .html_text import title_and_text

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
    from typing import Self, TextIO

    from .documents import Markup

TEXTS: Mapping[str, Markup] = {".markdown": "markdown", ".md": "markdown", ".rst": "rst", ".txt": "text"}
"""The files that are read as they stand, by how their names end."""
_PAGES = (".htm", ".html")
KINDS = (*TEXTS, *_PAGES, ".pdf")
"""How the names of all files end that can be read."""
_LEFT_OUT = {"__pycache__", "node_modules", "site-packages"}
_LARGEST = 2_000_000
_LARGEST_PDF = 50_000_000
_MOST_FILES = 10_000
_MOST_SHOWN = 3
_QUIET = Lock()
_BAR = 30
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose BOM it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_CONTROL = r"[\x00-\x08\x0e-\x1f\x7f]"
_CHARSET = re.compile(rb"""<meta[^>]{1,200}charset\s*=\s*["']?([\w-]{1,40})""", re.IGNORECASE)


class UnreadableError(DocumentError):
    """A file has no text that could be read; the message is the reason alone."""


class File(NamedTuple):
    """A file that can be read."""

    path: Path
    name: str
    """Its path in its folder, with "/"."""
    stamp: str
    """Changes when the file does."""


class Loaded(NamedTuple):
    """The documents that were read, and by file or folder why it was left out."""

    documents: list[Document]
    skipped: dict[str, str]


def load(path: str | Path, *, kinds: Collection[str] = KINDS, prefix: str = "") -> Loaded:
    """Read a file, or those of a folder. What cannot be read is left out, and at the end logged and named in `skipped`.

    Of a folder the files of `kinds` are read, and those of the folders in it; not hidden folders, virtual
    environments, `node_modules` and the like, nor links that lead out. A document's id, and "source" in its metadata,
    is its path in the folder, behind `prefix`: give each folder another one where an index is to have several. On a
    terminal, a bar shows how far it is. It takes a while: in async code write
    `await asyncio.to_thread(load, "docs")`.

    Raises `DocumentError` where the path does not exist.
    """
    documents: list[Document] = []
    skipped: dict[str, str] = {}
    files = list(files_at(Path(path).expanduser(), kinds, skipped))
    with Progress(len(files)) as progress:
        for file in files:
            progress.step()
            try:
                documents.append(read(file.path, prefix + file.name))
            except DocumentError as error:
                skipped[file.name] = str(error)
    if skipped:
        logging.getLogger(__name__).warning("left out: %s", listed(skipped))
    return Loaded(documents, skipped)


def files_at(path: Path, kinds: Collection[str], skipped: dict[str, str]) -> Iterable[File]:
    """The file there, or those of these kinds in a folder, as `files_in` finds them.

    Raises `DocumentError` where nothing is there, and for a file that is none of those that can be read.
    """
    if os.path.isdir(path):  # noqa: PTH112 because a method of Path raises where it may not look
        return files_in(path.resolve(), kinds, skipped)
    if not os.path.lexists(path):
        raise DocumentError(f"{str(path)!r} does not exist. Give a file, or the folder that holds the documents.")
    if path.suffix.lower() not in KINDS:
        raise DocumentError(f"{str(path)!r} is no document that can be read: its name ends in none of {_all(KINDS)}.")
    name = readable(path.name)
    try:
        _refuse_file(path)
        return [File(path, name, _stamp(path))]
    except (OSError, UnreadableError) as error:
        skipped[name] = str(getattr(error, "strerror", None) or error)
        return []


def _all(kinds: Iterable[str]) -> str:
    return ", ".join(sorted(kinds))


def files_in(folder: Path, kinds: Collection[str], skipped: dict[str, str]) -> Iterator[File]:
    """The files of these kinds in a resolved folder and in those in it, in a fixed order.

    Those that cannot be read, and folders, are added to `skipped`, with the reason.
    """

    def unreadable(error: OSError) -> None:
        skipped[_name(Path(error.filename), folder)] = str(error.strerror)

    count = 0
    for top, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(inner for inner in folders if not _is_left_out(Path(top, inner)))
        for path in (Path(top, name) for name in sorted(names) if Path(name).suffix.lower() in kinds):
            try:
                _refuse(path, folder, count)
                file = File(path, _name(path, folder), _stamp(path))
            except (OSError, RuntimeError, UnreadableError) as error:  # a link in a circle may be a RuntimeError
                skipped[_name(path, folder)] = str(getattr(error, "strerror", None) or error)
            else:
                count += 1
                yield file


def read(path: Path, name: str) -> Document:
    """The document in a file, by the name that it is to have. Raises `UnreadableError`."""
    kind = path.suffix.lower()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableError(str(error.strerror or error)) from error
    facts: dict[str, Any] = {"source": name}
    if kind == ".pdf":
        return Document(_pdf(data), name, facts)
    text = _decoded(data, _charset(data) if kind in _PAGES else "")
    title = ""
    if kind in _PAGES:
        title, text = title_and_text(text)
    if not text.strip():
        raise UnreadableError("no text in it")
    if kind in _PAGES:
        return Document(text, name, {**facts, "title": title} if title else facts, markup="markdown")
    return Document(text, name, facts, markup=TEXTS.get(kind, "text"))


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_mtime_ns}:{found.st_size}"


def _name(path: Path, folder: Path) -> str:
    return readable(path.relative_to(folder).as_posix())


def readable(name: str) -> str:
    """A name of the file system, with a backslash escape for each byte of it that is no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_left_out(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in _LEFT_OUT:
        return True
    return os.path.exists(folder / "pyvenv.cfg")  # noqa: PTH110 because a method of Path raises where it may not look


def _refuse(path: Path, folder: Path, count: int) -> None:
    """Raise where a file is not to be read, so many having been found before it."""
    name = path.relative_to(folder).as_posix()
    if readable(name) != name:
        raise UnreadableError("its name is no UTF-8")
    if not path.resolve().is_relative_to(folder):
        raise UnreadableError("a link out of the folder")
    _refuse_file(path)
    if count >= _MOST_FILES:
        raise UnreadableError(f"more than {_MOST_FILES:,} documents")


def _refuse_file(path: Path) -> None:
    size = path.stat().st_size
    if not path.is_file():
        raise UnreadableError("no plain file")
    most = _LARGEST_PDF if path.suffix.lower() == ".pdf" else _LARGEST
    if size > most:
        raise UnreadableError(f"larger than {most:,} bytes")


def _decoded(data: bytes, charset: str) -> str:
    """The text of a file, in the encoding that it shows. Raises `UnreadableError` where it is something binary."""
    bom = next((bom for bom in _BOMS if data.startswith(bom)), b"")
    for encoding in [_BOMS[bom]] if bom else filter(None, ["utf-8", charset, "cp1252"]):
        try:
            text = data[len(bom) :].decode(encoding)
        except (UnicodeDecodeError, LookupError):  # the latter where what a page names is no encoding of text
            continue
        binary = "\0" if encoding in _BOMS.values() else _CONTROL  # any bytes are text in the others
        if not re.search(binary, text):
            return text.replace("\r\n", "\n").replace("\r", "\n")
    raise UnreadableError("no text")


def _charset(data: bytes) -> str:
    """The encoding that an HTML page names, where Python knows it."""
    found = _CHARSET.search(data[:2_000])
    try:
        return codecs.lookup(found[1].decode("ascii")).name if found else ""
    except LookupError:
        return ""


def _pdf(data: bytes) -> str:
    """The text of a PDF, its pages as paragraphs."""
    try:
        from pypdf import PdfReader  # noqa: PLC0415 because it is an extra
    except ImportError as error:
        remedy = "reading PDF needs pypdf. Run: pip install 'agentflow-otel[documents]'"
        raise UnreadableError(remedy) from MissingExtraError(f"{remedy}: {error}")
    try:
        with _quiet("pypdf"):
            pages = [page.extract_text() for page in PdfReader(BytesIO(data)).pages]
    except Exception as error:  # what it raises over a broken file may be anything
        raise UnreadableError(f"no PDF that can be read: {error}") from error
    text = "\n\n".join(page.strip() for page in pages)
    if not text.strip():
        raise UnreadableError("no text in it: its pages are pictures")
    return text


@contextmanager
def _quiet(library: str) -> Generator[None]:
    """Let a library log nothing: what it cannot read is told once, at the end."""
    log = logging.getLogger(library)
    with _QUIET:  # else the levels of two threads could be put back in the wrong order
        before = log.level
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            log.setLevel(before)


def listed(skipped: Mapping[str, str]) -> str:
    """The first of what was left out, and why, in one line."""
    told = [f"{name} ({reason})" for name, reason in list(skipped.items())[:_MOST_SHOWN]]
    more = len(skipped) - _MOST_SHOWN
    return "; ".join([*told, f"and {more:,} more"] if more > 0 else told)


class Progress:
    """A bar on standard error that shows how much of `total` is done; nothing where that is no terminal."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._shown = -1
        self._out: TextIO | None = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._out is not None and self._shown >= 0:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def step(self) -> None:
        """One more is begun."""
        self._done += 1
        filled = _BAR * self._done // self._total
        if self._out is not None and filled != self._shown:
            self._shown = filled
            bar = "#" * filled + "-" * (_BAR - filled)
            self._out.write(f"\rreading [{bar}] {self._done:,} of {self._total:,}")
            self._out.flush()
