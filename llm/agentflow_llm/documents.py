"""Documents, the chunks that they are kept in, and what a store of chunks can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from agentflow.errors import AgentflowError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .records import Passage

Markup = Literal["markdown", "rst", "text"]


class DocumentError(AgentflowError, ValueError):
    """What was given as a document, a chunk, a vector or a query cannot be taken as one."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found again.

    - `id`: another document of this id replaces it; by default it is made of the text.
    - `metadata`: facts that JSON can hold, to filter by and to be handed out with what is found.
    - `version`: says whether it has changed; by default it is made of the text, metadata and markup.
    - `markup`: how its headings are written; plain text has none.

    Raises `DocumentError`.
    """

    text: str
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: str = ""
    markup: Markup = "text"

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise DocumentError(f"Document(text={shown(self.text)}): text is a string. Read the file's text first.")
        if not self.id:
            object.__setattr__(self, "id", _digest(self.text))
        if not self.version:
            facts = sorted((str(key), repr(value)) for key, value in self.metadata.items())
            object.__setattr__(self, "version", _digest(f"{self.markup}\0{facts}\0{self.text}"))


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, as a store keeps it.

    - `id`: as passages that are found have it.
    - `vector`: None where it is to be found by its words alone. Its length does not matter, its direction does.
    - `metadata`: facts that JSON can hold. Those named "title" and "heading" are searched as the text is; a heading's
      words count twice.

    Raises `DocumentError`.
    """

    id: str
    text: str
    vector: Sequence[float] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        texts: tuple[object, ...] = (self.id, self.text)
        if not all(isinstance(text, str) for text in texts):
            raise DocumentError(f"Chunk({shown(self.id)}, {shown(self.text)}): id and text are strings.")
        if self.vector is not None and not hasattr(self.vector, "__len__"):
            raise DocumentError(f"Chunk(vector={shown(self.vector)}): a vector is a list of numbers, or None.")


@runtime_checkable
class VectorStore(Protocol):
    """Keeps the chunks of documents, and finds those that say most about something."""

    async def add(self, document_id: str, chunks: Sequence[Chunk], *, version: str = "") -> None:
        """Keep the chunks of a document, in place of those that it had; all of them, or on an error none."""
        ...

    async def delete(self, document_ids: Iterable[str]) -> None:
        """Forget documents; those that are not there are gone already."""
        ...

    async def search(
        self,
        query: str,
        *,
        vector: Sequence[float] | None = None,
        top_k: int = 5,
        where: Mapping[str, Any] | None = None,
        weight: float = 1.0,
    ) -> list[Passage]:
        """The `top_k` chunks that match best, the best first, by the query's words, by its vector, or by both.

        - `where`: what their metadata must say: a value, or a list of which it is any.
        - `weight`: what the order by vectors counts beside the order by words.
        """
        ...

    async def versions(self) -> dict[str, str]:
        """By document, the version that it was added with."""
        ...
