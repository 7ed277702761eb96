"""Ingest: folders, files and documents into a store; only what changed is worked on, what is gone is forgotten."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from agentflow import Resource, draw_all_possible_flows
from agentflow_agents.errors import AgentConfigurationError, DocumentsError
from agentflow_agents.ingest import Ingest, IngestProgress, IngestResult, no_store
from agentflow_llm import (
    BaseEmbedder,
    Document,
    DocumentError,
    EmbeddingsCall,
    HashEmbedder,
    LLMBadRequestError,
    LLMServerError,
    SqliteVectorStore,
    VectorStoreIndex,
)
from agentflow_llm.loading import Loaded
from agentflow_llm.model import Embeddings


class Embedder(BaseEmbedder):
    """Refuses texts with "poison" in them, is down where it is said to be, and counts what goes on at once."""

    def __init__(self) -> None:
        super().__init__("tests", "tests")
        self.texts: list[str] = []
        self.down = False
        self.now = self.most = 0
        self.together: asyncio.Barrier | None = None

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.together is not None:
            await self.together.wait()
        self.now -= 1
        if self.down:
            raise LLMServerError("the server is down")
        if any("poison" in text for text in call.texts):
            raise LLMBadRequestError("it is poisonous")
        self.texts += call.texts
        return Embeddings([[1.0, 0.0] for _ in call.texts])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two documents, one of them in a folder of its own, and what is none."""
    folder = tmp_path / "farm"
    (folder / "birds").mkdir(parents=True)
    (folder / "cows.md").write_text("# Cows\n\nCows give milk.\n\n## Calves\n\nThey drink it.\n")
    (folder / "birds" / "hens.txt").write_text("Hens lay eggs.")
    (folder / "logo.txt").write_bytes(b"\x89PNG\x00\x01")
    return folder


def told(result: IngestResult) -> dict[str, Any]:
    """What is not empty of a result."""
    return {name: result[name] for name in IngestResult.model_fields if result[name]}


async def found(store: SqliteVectorStore, query: str) -> list[str]:
    return [passage.id for passage in await store.search(query)]


async def test_folder_is_put_into_a_store_and_what_changed_is_put_again(folder: Path, tmp_path: Path) -> None:
    embedder, store = Embedder(), SqliteVectorStore(tmp_path / "farm.db")
    ingest = Ingest(store, embedder)
    skipped = {"farm/logo.txt": "no text"}
    first = await ingest.run(folder)
    assert told(first) == {"added": ["farm/cows.md", "farm/birds/hens.txt"], "skipped": skipped, "chunks": 3}
    assert str(first) == "2 added, 0 changed, 0 unchanged, 0 removed, 1 skipped; 3 chunks stored"
    assert await found(store, "milk") == ["farm/cows.md:1"]

    embedder.texts = []
    again = await ingest.run(str(folder))
    assert told(again) == {"unchanged": ["farm/cows.md", "farm/birds/hens.txt"], "skipped": skipped}
    assert embedder.texts == []

    (folder / "birds" / "hens.txt").unlink()
    (folder / "cows.md").write_text("Cows eat grass.")
    (folder / "dogs.md").write_text("Dogs bark.")
    later = await ingest.run(folder)
    assert told(later) == {
        "added": ["farm/dogs.md"],
        "changed": ["farm/cows.md"],
        "removed": ["farm/birds/hens.txt"],
        "skipped": skipped,
        "chunks": 2,
    }
    assert sorted(embedder.texts) == ["Cows eat grass.", "Dogs bark."]
    assert await found(store, "eggs milk grass") == ["farm/cows.md:1"]


async def test_other_embedder_or_splitter_means_all_anew(folder: Path) -> None:
    store = SqliteVectorStore()
    assert len((await Ingest(store).run(folder)).added) == 2
    assert len((await Ingest(store, HashEmbedder()).run(folder)).changed) == 2


async def test_each_step_on_the_way_is_shown(folder: Path) -> None:
    ingest = Ingest(SqliteVectorStore())
    await ingest.run(folder)
    (folder / "cows.md").write_text("Cows eat grass.")
    (folder / "birds" / "hens.txt").unlink()
    (folder / "dogs.md").write_text("Dogs bark.")
    (folder / "cats.md").write_text("Cats sleep.")
    await ingest.run([Document("Cats sleep.", "farm/cats.md", {"source": "farm/cats.md"}, markup="markdown")])
    handler = ingest.run(folder)
    events = [event async for event in handler.stream_events() if isinstance(event, IngestProgress)]
    assert [(event.what, event.id) for event in events] == [
        ("read", "farm/cats.md"),
        ("read", "farm/cows.md"),
        ("read", "farm/dogs.md"),
        ("skipped", "farm/logo.txt"),
        ("unchanged", "farm/cats.md"),
        ("added", "farm/dogs.md"),
        ("changed", "farm/cows.md"),
        ("removed", "farm/birds/hens.txt"),
    ]
    assert events[3].reason == "no text"
    assert isinstance(await handler, IngestResult)


async def test_folders_of_one_store_leave_each_other_alone(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "farm"
    other.mkdir(parents=True)
    (other / "pigs.md").write_text("Pigs roll in the mud.")
    ingest = Ingest(SqliteVectorStore())
    await ingest.run([Document("A barn is red.", "barn")])
    with pytest.raises(DocumentsError, match=r'two of the files or folders have the name \'farm\'.*"other/"'):
        await ingest.run([folder, other])
    both = await ingest.run({"one": folder, "other/": other})
    assert both.added == ["one/cows.md", "one/birds/hens.txt", "other/pigs.md"]
    (other / "pigs.md").unlink()
    assert (await ingest.run({"one": folder})).removed == []
    assert (await ingest.run({"other": other})).removed == ["other/pigs.md"]


async def test_file_alone_is_known_by_its_name_and_nothing_is_forgotten_for_it(folder: Path) -> None:
    ingest = Ingest(SqliteVectorStore())
    assert (await ingest.run([folder / "cows.md", Document("A barn is red.", "barn")])).added == ["barn", "cows.md"]
    assert told(await ingest.run(folder / "logo.txt")) == {"skipped": {"logo.txt": "no text"}}
    assert told(await ingest.run(folder / "cows.md")) == {"unchanged": ["cows.md"]}
    assert told(await ingest.run([])) == {}


async def test_what_cannot_be_read_any_more_stays_and_what_was_emptied_goes(folder: Path) -> None:
    store = SqliteVectorStore()
    ingest = Ingest(store)
    await ingest.run(folder)
    (folder / "cows.md").write_bytes(b"\0\0")
    (folder / "birds" / "hens.txt").write_text(" \n")
    result = await ingest.run(folder)
    assert result.removed == ["farm/birds/hens.txt"]
    assert result.skipped.keys() == {"farm/birds/hens.txt", "farm/cows.md", "farm/logo.txt"}
    assert await found(store, "milk eggs") == ["farm/cows.md:1"]


@pytest.mark.parametrize("closed", ["farm", "birds"])
async def test_folder_that_may_not_be_looked_into_keeps_its_documents(
    folder: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    ingest = Ingest(SqliteVectorStore())
    await ingest.run(folder)
    look = os.scandir

    def look_unless_closed(path: Any) -> Any:
        if Path(path).name == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", look_unless_closed)
    result = await ingest.run({"farm": folder})
    assert result.removed == []
    assert result.skipped["farm" if closed == "farm" else "farm/birds"] == "Permission denied"


async def test_document_that_the_embedder_refuses_is_skipped_and_the_others_go_on() -> None:
    store = SqliteVectorStore()
    ingest = Ingest(store, Embedder())
    await ingest.run([Document("The old text.", "b")])
    documents = [Document(f"Text {n}.", f"{n}") for n in range(40)] + [Document("poison", "b")]
    result = await ingest.run(documents)
    assert len(result.added) == 40
    assert result.skipped == {"b": "it is poisonous"}
    assert "b:1" in await found(store, "old text"), "what the store had of it stays"


async def test_splitter_that_fails_over_one_document_leaves_the_others() -> None:
    def careful(text: str, markup: Any) -> Any:
        if "mess" in text:
            raise ValueError("what a mess")
        return VectorStoreIndex()._splitter(text, markup)  # noqa: SLF001 because the default is what it wants

    result = await Ingest(SqliteVectorStore(), splitter=careful).run([Document("a mess", "a"), Document("fine", "b")])
    assert told(result) == {"added": ["b"], "skipped": {"a": "what a mess"}, "chunks": 1}


async def test_server_that_is_down_ends_the_run_and_what_was_stored_stays() -> None:
    embedder, store = Embedder(), SqliteVectorStore()
    ingest = Ingest(store, embedder)
    await ingest.run([Document("One.", "1")])
    embedder.down = True
    with pytest.raises(LLMServerError):
        await ingest.run([Document("One.", "1"), Document("Two.", "2"), Document("Three.", "3")])
    embedder.down = False
    assert (await ingest.run([Document("One.", "1"), Document("Two.", "2")])).unchanged == ["1"]


async def test_what_is_wrong_with_all_documents_is_an_error() -> None:
    store = SqliteVectorStore(dimensions=7)
    with pytest.raises(DocumentError, match="have 7 dimensions"):
        await Ingest(store, Embedder()).run([Document("One.", "first"), Document("Two.", "second")])


async def test_no_more_than_four_batches_are_embedded_at_once() -> None:
    embedder = Embedder()
    embedder.together = asyncio.Barrier(4)
    result = await Ingest(SqliteVectorStore(), embedder).run([Document(f"Text {n}.", f"{n}") for n in range(512)])
    assert len(result.added) == 512
    assert embedder.most == 4


async def test_two_documents_of_one_id_are_an_error(folder: Path) -> None:
    with pytest.raises(DocumentError, match=r"two documents have the id 'cows.md'"):
        await Ingest(SqliteVectorStore()).run([folder / "cows.md", Document("Other.", "cows.md")])


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("no/such/folder", "'no/such/folder' does not exist"),
        ("A text, not a path.", r'For a text write Document\("..."\)'),
        ([3], "3 is no Document, file or folder"),
        (Loaded([], {}), r"Write load\(...\).documents"),
        ({"": "."}, "'' is no prefix"),
        ({3: "."}, "3 is no prefix"),
        ("a\0b", "may not be read"),
    ],
)
async def test_wrong_sources_are_refused_at_once(sources: Any, said: str) -> None:
    with pytest.raises(DocumentsError, match=said):
        await Ingest(SqliteVectorStore()).run(sources)


def test_wrong_parts_are_refused_when_it_is_made() -> None:
    with pytest.raises(AgentConfigurationError, match=r'Write Ingest\(SqliteVectorStore\("documents.db"\)'):
        Ingest()
    with pytest.raises(DocumentError, match="it has no embed"):
        Ingest(SqliteVectorStore(), 3)  # type: ignore[arg-type] # because it is wrong
    with pytest.raises(DocumentError, match="it is a function"):
        Ingest(SqliteVectorStore(), splitter=3)  # type: ignore[arg-type] # because it is wrong


async def test_store_may_be_made_by_a_factory() -> None:
    made = SqliteVectorStore()
    await Ingest(resources={no_store: Resource(lambda: made)}).run([Document("One.", "1")])
    assert await made.versions() != {}


def test_it_runs_in_plain_code_and_is_drawn(tmp_path: Path) -> None:
    assert Ingest(SqliteVectorStore()).run_sync([Document("One.", "1")]).added == ["1"]
    draw_all_possible_flows(Ingest, str(tmp_path / "ingest.mmd"))
    drawn = (tmp_path / "ingest.mmd").read_text()
    assert all(name in drawn for name in ("load", "compare", "store_batch", "forget"))


async def test_file_that_stands_alone_is_skipped_once_and_forgotten_when_it_is_emptied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cows, hens = tmp_path / "cows.md", tmp_path / "hens.md"
    cows.write_text("Cows give milk.")
    hens.write_text("")
    ingest = Ingest(SqliteVectorStore())
    assert told(await ingest.run([cows, hens, cows])) == {
        "added": ["cows.md"],
        "skipped": {"hens.md": "no text in it"},
        "chunks": 1,
    }
    cows.write_text("")
    assert (await ingest.run([cows])).removed == ["cows.md"]
    assert caplog.text == ""


async def test_files_that_cannot_be_told_apart_or_read_are_refused_at_once(tmp_path: Path) -> None:
    ingest = Ingest(SqliteVectorStore())
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "read.me").write_text("Cows give milk.")
        (tmp_path / name / "cows.md").write_text(f"Cows give milk, says {name}.")
    with pytest.raises(DocumentsError, match=r"the name 'cows.md', so .* Give each a prefix"):
        await ingest.run([tmp_path / "a" / "cows.md", tmp_path / "b" / "cows.md"])
    with pytest.raises(DocumentsError, match=r"read.me' is no document that can be read: .* none of .htm, .html"):
        await ingest.run(tmp_path / "a" / "read.me")
    for nothing in ("", " "):
        with pytest.raises(DocumentsError, match=r'Write "." for the folder you are in'):
            await ingest.run(nothing)
