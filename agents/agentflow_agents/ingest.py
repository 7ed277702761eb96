"""Documents put into a store, so that agents find them; what has not changed is left as it is.

```text
IngestInput ─► load ─► Loaded ─► compare ─► Batch ─► store_batch ─► Stored ─► forget ─► IngestResult
```
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, Field

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow.errors import shown
from agentflow_llm import (
    ChatModel,
    ContentFilterError,
    ContextLengthError,
    Document,
    DocumentError,
    Embedder,
    LLMBadRequestError,
    LLMError,
    MissingExtraError,
    StorageError,
    VectorStore,
    VectorStoreIndex,
)
from agentflow_llm.index import by_id
from agentflow_llm.loading import KINDS, files_at, read
from agentflow_llm.splitting import split

from .errors import AgentConfigurationError, DocumentsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentflow import Handler
    from agentflow_llm.index import Splitter

    Source = Document | str | Path
    Sources = Source | Iterable[Source] | Mapping[str, str | Path]
    Tell = Callable[["IngestProgress"], None]

_BATCH = 32
"""Documents that are embedded and stored together."""


class IngestInput(StartEvent):
    """What is to be put into the store: documents, and files and folders with the prefix of their documents' ids."""

    documents: list[Document] = Field(default_factory=list[Document])
    paths: list[tuple[str, str]] = Field(default_factory=list[tuple[str, str]])


class IngestProgress(Event):
    """What became of a document. Shown on the stream; `reason` says why one was skipped."""

    id: str
    what: Literal["read", "skipped", "added", "changed", "unchanged", "removed"]
    reason: str = ""


class Loaded(Event):
    """All documents that could be read."""

    documents: list[Document]


class Batch(Event):
    """Documents to be split, embedded and stored."""

    documents: list[Document]


class Stored(Event):
    """Those of a batch that were stored, and of how many chunks they are."""

    ids: list[str]
    chunks: int


class IngestResult(StopEvent):
    """What has become of the documents, by id.

    - `added`, `changed`: they were split, embedded and stored. `chunks` is how many chunks that made.
    - `unchanged`: the store had them.
    - `removed`: they were in the store, and are not in their folder any more.
    - `skipped`: why each could not be read or stored. What the store had of it stays there.
    """

    added: list[str]
    changed: list[str]
    unchanged: list[str]
    removed: list[str]
    skipped: dict[str, str]
    chunks: int

    def __str__(self) -> str:
        counts = {name: len(self[name]) for name in ("added", "changed", "unchanged", "removed", "skipped")}
        return f"{', '.join(f'{count:,} {name}' for name, count in counts.items())}; {self.chunks:,} chunks stored"


class IngestState(BaseModel):
    """The state of a run."""

    known: list[str] = Field(default_factory=list[str])
    """What the store had."""
    there: list[str] = Field(default_factory=list[str])
    """What was read."""
    folders: list[str] = Field(default_factory=list[str])
    """The prefixes of folders: what is in the store under these, and was not read, is gone."""
    skipped: dict[str, str] = Field(default_factory=dict[str, str])
    emptied: list[str] = Field(default_factory=list[str])
    """Of these, files without anything in them: nothing of them is to stay."""
    batches: int = 0


def no_store() -> VectorStore:
    """Replaced by the store that `Ingest` is given."""
    raise AgentConfigurationError("Ingest() has no store.")


def no_embedder() -> Embedder | None:
    """Replaced by the embedder that `Ingest` is given: without one, documents are found by their words alone."""
    return None


Store = Annotated[VectorStore, Resource(no_store)]
Embedding = Annotated[Embedder | None, Resource(no_embedder)]


class Ingest(Workflow[IngestInput, IngestResult]):
    """Puts documents, files and folders into a store.

    ```
    result = await Ingest(SqliteVectorStore("guide.db"), embedder=embedder).run("guide")
    ```

    - `store`: where they are kept.
    - `embedder`: makes vectors of them; None for words alone. Search with the same one.
    - `splitter`: cuts a document into pieces, as that of `VectorStoreIndex`.

    Do it again when documents have changed: only those are embedded again, and those that are not in their folder any
    more are forgotten. A document that cannot be read, or that the embedder refuses, is skipped, and the others go on;
    what the store had of it stays. Where the embedder or the store fails altogether the run does, with all
    that was stored until then. The other options are those of `Workflow`. Raises `AgentConfigurationError`.
    """

    def __init__(  # noqa: PLR0913 because these are the options that it and its workflow have
        self,
        store: VectorStore | None = None,
        embedder: Embedder | None = None,
        *,
        splitter: Splitter = split,
        timeout: float | None = None,
        verbose: bool = False,
        num_concurrent_runs: int | None = None,
        resources: Mapping[Callable[..., Any], Any] | None = None,
        name: str | None = None,
    ) -> None:
        if store is None and no_store not in (resources or {}):
            raise AgentConfigurationError(
                'Ingest() has no store. Write Ingest(SqliteVectorStore("documents.db"), embedder=...).'
            )
        VectorStoreIndex(embedder, store, splitter=splitter)  # it says what is wrong with them
        given: dict[Callable[..., Any], Any] = {no_store: store, no_embedder: embedder, **(resources or {})}
        super().__init__(timeout, verbose, num_concurrent_runs, given, name)
        self.splitter: Splitter = splitter

    def run(
        self,
        sources: Sources | None = None,
        *,
        ctx: Context[Any] | None = None,
        start_event: IngestInput | None = None,
        stepwise: bool = False,
        detached: bool = False,
        **fields: Any,
    ) -> Handler[IngestResult]:
        """Put these into the store: `await ingest.run("guide")`. Otherwise as `Workflow.run`.

        - `sources`: a folder, a file, a `Document`, or a list of them; or a dict of folders, by the prefix that the ids
          of their documents are to have: `{"guide/": "src/docs"}`. By default that is the folder's name, and for a
          file nothing. All that is in the store under a folder's prefix is taken to be from that folder.

        Raises `DocumentsError` where they are none, or do not exist.
        """
        if sources is not None:
            fields.update(sources_of(sources))
        return super().run(ctx=ctx, start_event=start_event, stepwise=stepwise, detached=detached, **fields)

    def run_sync(self, sources: Sources | None = None, **arguments: Any) -> IngestResult:
        """As `run`, in plain code. See `Workflow.run_sync`."""
        return super().run_sync(sources=sources, **arguments)

    @step
    async def load(self, ctx: Context[IngestState], ev: IngestInput) -> Loaded:
        """Read the files, in a thread."""
        async with ctx.store.edit_state() as state:
            found = await asyncio.to_thread(_read, ev.paths, state, ctx.write_event_to_stream)
        return Loaded(documents=[*ev.documents, *found])

    @step
    async def compare(self, ctx: Context[IngestState], ev: Loaded, store: Store, embedder: Embedding) -> list[Batch]:
        """Leave alone what the store has already."""
        changed = await self.index(store, embedder).changed(ev.documents)
        left = {document.id for document in changed}
        async with ctx.store.edit_state() as state:
            state.known = list(await store.versions())
            state.there = list(dict.fromkeys(document.id for document in ev.documents))
            batches = [Batch(documents=changed[at : at + _BATCH]) for at in range(0, len(changed), _BATCH)]
            batches = batches or [Batch(documents=[])]
            state.batches = len(batches)
        for ident in state.there:
            if ident not in left:
                ctx.write_event_to_stream(IngestProgress(id=ident, what="unchanged"))
        return batches

    @step(num_workers=4)
    async def store_batch(self, ctx: Context[IngestState], ev: Batch, store: Store, embedder: Embedding) -> Stored:
        """Split, embed and store some documents; where that fails for them together, one after the other."""
        index = self.index(store, embedder)
        try:
            return Stored(ids=[document.id for document in ev.documents], chunks=await index.put(ev.documents))
        except Exception as error:
            if not _is_of_a_document(error):
                raise
        stored = Stored(ids=[], chunks=0)
        failed: dict[str, str] = {}
        for document in ev.documents:
            try:
                stored.chunks += await index.put([document])
                stored.ids.append(document.id)
            except Exception as error:
                failed[document.id] = str(error) or type(error).__name__
                causes = {reason.replace(ident, "") for ident, reason in failed.items()}
                in_common = len(failed) == len(ev.documents) > 1 and len(causes) == 1
                if in_common or not _is_of_a_document(error):
                    raise
        async with ctx.store.edit_state() as state:
            state.skipped.update(failed)
        for ident, reason in failed.items():
            ctx.write_event_to_stream(IngestProgress(id=ident, what="skipped", reason=reason))
        return stored

    @step
    async def forget(self, ctx: Context[IngestState], ev: Stored, store: Store) -> IngestResult | None:
        """When all batches are stored, forget what is gone, and say what was done."""
        state = await ctx.store.get_state()
        batches = ctx.collect_events(ev, {Stored: state.batches})
        if batches is None:
            return None
        gone = sorted(set(_gone(state)))
        if gone:
            await store.delete(gone)
        known = set(state.known)
        stored = {ident for batch in batches for ident in batch.ids}
        result = IngestResult(
            added=[ident for ident in state.there if ident in stored - known],
            changed=[ident for ident in state.there if ident in stored & known],
            unchanged=[ident for ident in state.there if ident not in stored and ident not in state.skipped],
            removed=gone,
            skipped=state.skipped,
            chunks=sum(batch.chunks for batch in batches),
        )
        done: list[tuple[Literal["added", "changed", "removed"], list[str]]]
        done = [("added", result.added), ("changed", result.changed), ("removed", result.removed)]
        for what, ids in done:
            for ident in ids:
                ctx.write_event_to_stream(IngestProgress(id=ident, what=what))
        return result

    def index(self, store: VectorStore, embedder: Embedder | None) -> VectorStoreIndex:
        """The index that does the work."""
        return VectorStoreIndex(embedder, store, splitter=self.splitter)


def sources_of(sources: object) -> dict[str, Any]:
    """Sources as the fields of `IngestInput`. Raises `DocumentsError`."""
    if isinstance(sources, Mapping):
        by_prefix = cast("Mapping[object, object]", sources)
        named = [(_prefix(prefix), _path(path)) for prefix, path in by_prefix.items()]
        return {"documents": [], "paths": [(prefix, str(path)) for prefix, path in named]}
    if hasattr(sources, "documents"):
        raise DocumentsError(f"{shown(sources)} has documents, but is none of them. Write load(...).documents.")
    given: list[object] = [sources]
    if isinstance(sources, Iterable) and not isinstance(sources, str):
        given = list(cast("Iterable[object]", sources))
    documents = [one for one in given if isinstance(one, Document)]
    by_id(documents)  # it says which are one too many
    paths = list(
        {path.resolve(): path for path in (_path(one) for one in given if not isinstance(one, Document))}.values()
    )
    often = Counter(path.resolve().name if path.is_dir() else path.name for path in paths).most_common(1)
    if often and often[0][1] > 1:
        raise DocumentsError(
            f"two of the files or folders have the name {often[0][0]!r}, so their documents cannot be told apart. Give "
            'each a prefix: {"one/": "path/of/one", "other/": "path/of/other"}.'
        )
    prefixed = [(f"{path.resolve().name}/" if path.is_dir() else "", str(path)) for path in paths]
    return {"documents": documents, "paths": prefixed}


def _prefix(prefix: object) -> str:
    if not isinstance(prefix, str) or not prefix.strip("/"):
        raise DocumentsError(
            f"{shown(prefix)} is no prefix: the ids of a folder's documents begin with it, which tells them from "
            'others. Write {"guide/": "path/of/guide"}.'
        )
    return f"{prefix.rstrip('/')}/"


def _path(path: object) -> Path:
    if isinstance(path, str) and not path.strip():
        raise DocumentsError(f'{path!r} is no file or folder. Write "." for the folder you are in.')
    if not isinstance(path, str | Path):
        line = " A model is given as llm=." if isinstance(path, ChatModel) else ""
        raise DocumentsError(f"{shown(path)} is no Document, file or folder.{line}")
    found = Path(path).expanduser()
    try:
        found.stat()
    except (OSError, ValueError) as error:
        text = ' For a text write Document("...").' if isinstance(path, str) and " " in path.strip() else ""
        raise DocumentsError(
            f"{shown(str(path))} does not exist, or may not be read: {error}. Give a file or a folder.{text}"
        ) from error
    if not found.is_dir() and found.suffix.lower() not in KINDS:
        raise DocumentsError(
            f"{shown(str(path))} is no document that can be read: its name ends in none of {', '.join(sorted(KINDS))}."
        )
    return found


def _read(paths: Iterable[tuple[str, str]], state: IngestState, tell: Tell) -> list[Document]:
    """The documents in files and folders."""
    found: list[Document] = []
    for prefix, place in paths:
        for document in _documents_at(prefix, Path(place), state, tell):
            tell(IngestProgress(id=document.id, what="read"))
            found.append(document)
    return found


def _documents_at(prefix: str, path: Path, state: IngestState, tell: Tell) -> Iterator[Document]:
    skipped: dict[str, str] = {}
    if path.is_dir():
        state.folders.append(prefix)
    for file in files_at(path, KINDS, skipped):
        try:
            yield read(file.path, prefix + file.name)
        except DocumentError as error:
            skipped[file.name] = str(error)
            if _is_empty(file.path):
                state.emptied.append(prefix + file.name)
    for name, reason in skipped.items():
        ident = prefix[:-1] if name == "." else prefix + name  # the folder itself
        state.skipped[ident] = reason
        tell(IngestProgress(id=ident, what="skipped", reason=reason))


def _is_empty(path: Path) -> bool:
    try:
        return not path.read_bytes().strip()
    except OSError:
        return False


def _gone(state: IngestState) -> Iterator[str]:
    """What the store has of the folders, and they have no more. What could not be read may still be there."""
    for ident in state.known:
        if ident in state.emptied:
            yield ident
        elif ident in state.there or ident in state.skipped or not ident.startswith(tuple(state.folders)):
            continue
        elif not any(ident.startswith(f"{folder}/") for folder in state.skipped):
            yield ident


def _is_of_a_document(error: Exception) -> bool:
    """Whether it is the document that something is wrong with, and not the server, the key or the file."""
    if isinstance(error, LLMError):
        return isinstance(error, LLMBadRequestError | ContextLengthError | ContentFilterError)
    return not isinstance(error, StorageError | MissingExtraError)
