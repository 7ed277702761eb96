"""Documents, the chunks that they are kept in, and what a store of chunks can do."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args, runtime_checkable

from agentflow.errors import AgentflowError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
        names: tuple[object, ...] = (self.id, self.version)
        if not all(isinstance(name, str) for name in names):
            raise DocumentError(f"Document(id={shown(self.id)}, version={shown(self.version)}): both are strings.")
        if self.markup not in get_args(Markup):
            raise DocumentError(f"Document(markup={shown(self.markup)}): it is one of {', '.join(get_args(Markup))}.")
        metadata_as_json(self.metadata, f"Document(id={shown(self.id)})")
        if not self.id:
            object.__setattr__(self, "id", _digest(self.text))
        if not self.version:
            facts = sorted((str(key), repr(value)) for key, value in self.metadata.items())
            object.__setattr__(self, "version", _digest(f"{self.markup}\0{facts}\0{self.text}"))


def metadata_as_json(metadata: Any, whose: str) -> str:
    """Metadata as they are kept. Raises `DocumentError` where JSON cannot hold them."""
    problem = "it is no dict"
    if isinstance(metadata, Mapping):
        try:
            return json.dumps(dict(cast("Mapping[str, Any]", metadata)), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            problem = str(error)
    raise DocumentError(
        f"the metadata of {whose} is {shown(cast('object', metadata))}, which JSON cannot hold: {problem}. "
        "Give a dict of strings, numbers, booleans, and lists and dicts of them."
    )


_MOST_FILTERS = 100
_LARGEST = 2**63
"""SQLite's whole numbers are smaller."""


def check_where(where: object) -> None:
    """Refuse what is no filter by metadata. Raises `DocumentError`."""
    if where is None:
        return
    if not isinstance(where, Mapping):
        raise DocumentError(f'where={shown(where)}: it is a dict. Write where={{"source": "a.md"}}.')
    filters = cast("Mapping[object, object]", where)
    if len(filters) > _MOST_FILTERS:
        raise DocumentError(f"where= has {len(filters):,} fields: {_MOST_FILTERS} at most. A field may have a list.")
    for key, wanted in filters.items():
        if not isinstance(key, str) or set(key) & {'"', "\\"} or not all(map(_can_be_asked_for, options_of(wanted))):
            raise DocumentError(
                f"where={{{shown(key)}: {shown(wanted)}}}: a filter is the name of a metadata field, without quotes, "
                "and a string, a finite number or a boolean, or a list of them. "
                'Write where={"source": ["a.md", "b.md"]}.'
            )


def options_of(wanted: object) -> list[Any]:
    """The values of which a filter takes any."""
    several = isinstance(wanted, list | tuple | set | frozenset)
    return list(cast("Iterable[Any]", wanted)) if several else [wanted]


def _can_be_asked_for(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < _LARGEST)


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

        - `where`: what their metadata must say: a value, or a list of which it is any. Metadata that are a list
          themselves say each of its values.
        - `weight`: what the order by vectors counts beside the order by words.
        """
        ...

    async def versions(self) -> dict[str, str]:
        """By document, the version that it was added with."""
        ...
