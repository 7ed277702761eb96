"""Search in the documents of a folder, by SQLite's full-text index: no service, no model, no network."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from agentflow.log import logger
from agentflow.observe import Kind, operation
from agentflow_llm.documents import Chunk, DocumentError
from agentflow_llm.errors import StorageError
from agentflow_llm.loading import TEXTS, files_in, listed, read, readable
from agentflow_llm.loose import well_formed
from agentflow_llm.records import Passage, RetrievalCall
from agentflow_llm.splitting import VERSION, split
from agentflow_llm.vector_store import SqliteVectorStore, checked_top_k

from .errors import DocumentsError, ToolError

if TYPE_CHECKING:
    from typing import Self

    from agentflow_llm.loading import File

_LONGEST_READ = 20_000
_VERSION = 1
"""Of how documents are split and kept: what another version wrote is read anew."""


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
        if not os.path.isdir(self.folder):  # noqa: PTH112 because a method of Path raises where it may not look
            there = os.path.exists(self.folder)  # noqa: PTH110 as above, because it raises
            what = "is no folder" if there else "does not exist"
            raise DocumentsError(f"{str(folder)!r} {what}. Give the folder that holds the documents.")
        self.name = name or readable(self.folder.name) or "documents"
        self.skipped: dict[str, str] = {}
        """By document or folder, why it was left out."""
        try:
            # others may keep theirs in the same file
            self._store = SqliteVectorStore(file, collection=f"files of {readable(str(self.folder))}")
        except StorageError as error:
            raise DocumentsError(f"the index cannot be kept in {str(file)!r}: {error}") from error
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
        self._store.close()

    @property
    def documents(self) -> list[str]:
        """The names of the documents: their paths in the folder, with "/"."""
        return list(self._store.versions_now())

    def refresh(self) -> None:
        """Read the documents that are new or have changed, and forget those that are gone.

        Raises `DocumentsError` where none is left.
        """
        skipped: dict[str, str] = {}
        there = {file.name: file for file in files_in(self.folder, TEXTS, skipped)}
        known = self._store.versions_now()
        self._store.delete_now(known.keys() - there.keys())
        for file in there.values():
            stamp = f"{_VERSION}.{VERSION}:{file.stamp}"
            if known.get(file.name) != stamp:
                try:
                    self._read(file, stamp)
                except DocumentError as error:
                    skipped[file.name] = str(error)
                    self._store.delete_now([file.name])
        self.skipped = skipped
        if self.skipped:
            said = f"left out of the search index of {self.name!r}: {listed(self.skipped)}"
            logger().warning(said, index=self.name, skipped=self.skipped)
        if not self:
            kinds = ", ".join(sorted(TEXTS))
            why = f" It has some that cannot be read: {listed(self.skipped)}" if self.skipped else ""
            raise DocumentsError(f"{str(self.folder)!r} has no documents to search: no files {kinds} with text.{why}")

    def search(self, query: str, top_k: int = 5) -> list[Passage]:
        """The passages that have most in common with the words of `query`, the best first.

        Any text is a query; `top_k` is 1 or more. In `metadata` each has `source` ("README.md:12", the line where it
        begins) and `heading`.
        """
        try:
            most = checked_top_k(top_k)
        except DocumentError as error:
            raise DocumentsError(str(error)) from None
        with operation(Kind.RETRIEVAL, self.name, RetrievalCall(self.name, query, top_k)) as seen:
            found = [
                Passage(passage.id, passage.text, passage.score, {"source": passage.id, "heading": heading})
                for passage in self._store.search_now(query, top_k=most)
                for heading in [passage.metadata["heading"]]
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
        rows = [
            (chunk.metadata["section"], chunk.metadata["line"], chunk.text)
            for chunk in self._store.chunks_now(document)
        ]
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

    def _read(self, file: File, stamp: str) -> None:
        document = read(file.path, file.name)
        chunks = [
            Chunk(
                f"{file.name}:{piece.line}",
                piece.text,
                metadata={"title": file.name, "heading": piece.heading, "line": piece.line, "section": piece.section},
            )
            for piece in split(document.text, document.markup)
        ]
        if chunks:
            self._store.add_now(file.name, chunks, version=stamp)
        else:
            self._store.delete_now([file.name])


def _joined(passages: list[tuple[int, str]]) -> str:
    """Passages that follow each other, as they stood: a long block or line had been cut."""
    text, next_line = "", 0
    for line, passage in passages:
        if text:
            text += "\n" if line == next_line else "\n\n" if line > next_line else " "
        text += passage
        next_line = line + passage.count("\n") + 1
    return text
