"""The index and its retriever: what is added is found, what has not changed is not embedded again."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agentflow.testing import record
from agentflow_llm.documents import Document, DocumentError
from agentflow_llm.embedding import BaseEmbedder
from agentflow_llm.errors import LLMServerError
from agentflow_llm.hash_embedder import HashEmbedder
from agentflow_llm.index import VectorStoreIndex
from agentflow_llm.loading import Loaded
from agentflow_llm.model import Embeddings
from agentflow_llm.splitting import split
from agentflow_llm.vector_store import SqliteVectorStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agentflow_llm.records import EmbeddingsCall

BOAT = Document("A boat floats on water.", "boat")
KNOT = Document("A bowline never slips.", "knot", {"kind": "rope"})


class Counting(BaseEmbedder):
    """Says that everything is the same, and counts what it was asked."""

    def __init__(self, model: str = "counting") -> None:
        super().__init__(model, "tests")
        self.texts: list[str] = []
        self.failing = 0

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        await asyncio.sleep(0)
        if self.failing:
            self.failing -= 1
            raise LLMServerError("down")
        self.texts += call.texts
        return Embeddings([[1.0, 0.0] for _ in call.texts])

    def taken(self) -> list[str]:
        taken, self.texts = self.texts, []
        return taken


async def ids(index: VectorStoreIndex, query: str, **options: Any) -> list[str]:
    return [passage.id for passage in await index.as_retriever(**options).aretrieve(query)]


async def test_documents_are_found_by_a_retriever() -> None:
    index = VectorStoreIndex.from_documents([Document(text="A boat floats on water."), KNOT])
    retriever = index.as_retriever(similarity_top_k=1)
    [found] = await retriever.aretrieve("What never slips?")
    assert (found.id, found.text) == ("knot:1", "A bowline never slips.")
    assert found.score > 0
    assert found.metadata == {"document": "knot", "kind": "rope", "line": 1, "heading": ""}
    assert "similarity_top_k=1" in repr(retriever)


async def test_documents_are_cut_at_their_headings_and_these_are_embedded_with_them() -> None:
    embedder = Counting()
    guide = Document("# Boats\n\nThey float.\n\n## Sails\n\nThey pull.\n", "guide", markup="markdown")
    index = VectorStoreIndex.from_documents([guide], embedder)
    assert await ids(index, "sails") == ["guide:2", "guide:1"]
    assert embedder.taken() == ["Boats\nThey float.", "Boats > Sails\nThey pull.", "sails"]


async def test_splitter_can_be_chosen() -> None:
    text = "One is here. Two is here. Three is here."
    index = VectorStoreIndex.from_documents([Document(text, "a")], splitter=partial(split, size=26))
    found = await index.as_retriever().aretrieve("here")
    assert {passage.id: passage.text for passage in found} == {
        "a:1": "One is here. Two is here.",
        "a:2": "Three is here.",
    }


async def test_what_is_found_may_be_filtered() -> None:
    index = VectorStoreIndex.from_documents([BOAT, KNOT], HashEmbedder())
    assert await ids(index, "boat", where={"kind": "rope"}) == ["knot:1"]
    assert await ids(index, "boat", where={"document": ["boat"]}) == ["boat:1"]


async def test_only_what_has_changed_is_embedded_again(tmp_path: Path) -> None:
    embedder = Counting()
    store = SqliteVectorStore(tmp_path / "a.db")
    await VectorStoreIndex.from_documents([BOAT, KNOT], embedder, store).refresh()
    assert embedder.taken() == [BOAT.text, KNOT.text]

    index = VectorStoreIndex.from_documents([BOAT, KNOT], embedder, SqliteVectorStore(tmp_path / "a.db"))
    await index.refresh()
    assert embedder.taken() == []
    index.add([Document("A boat sinks.", "boat"), KNOT])
    assert await ids(index, "sinks") == ["boat:1", "knot:1"]
    assert embedder.taken() == ["A boat sinks.", "sinks"]

    other = VectorStoreIndex.from_documents([KNOT], Counting("other"), store)
    await other.refresh()
    assert isinstance(other.embedder, Counting)
    assert other.embedder.taken() == [KNOT.text], "vectors of another model cannot be compared"


async def test_documents_may_be_compared_and_put_without_waiting(tmp_path: Path) -> None:
    embedder = Counting()
    index = VectorStoreIndex(embedder, SqliteVectorStore(tmp_path / "a.db"))
    assert await index.changed([BOAT, KNOT]) == [BOAT, KNOT]
    assert await index.put([BOAT, Document("# A\n\nOne.\n\n# B\n\nTwo.", "two", markup="markdown")]) == 3
    assert "waiting" not in repr(index)
    other = Document("A boat sinks.", "boat")
    assert await index.changed([other, KNOT]) == [other, KNOT]
    assert await index.changed([BOAT, KNOT]) == [KNOT]
    embedder.taken()
    assert await index.put([BOAT]) == 1
    assert embedder.taken() == [BOAT.text], "it is put whatever there is"
    with pytest.raises(DocumentError, match="two documents have the id 'boat'"):
        await index.changed([BOAT, other])


async def test_deleted_documents_are_gone() -> None:
    index = VectorStoreIndex.from_documents([BOAT])
    await index.refresh()
    index.add([KNOT])
    await index.delete(["boat", "knot"])
    assert await ids(index, "boat bowline") == []


async def test_what_could_not_be_embedded_is_embedded_next_time() -> None:
    embedder = Counting()
    embedder.failing = 1
    index = VectorStoreIndex.from_documents([BOAT], embedder)
    with pytest.raises(LLMServerError):
        await index.refresh()
    assert "1 documents waiting" in repr(index)
    assert await ids(index, "boat") == ["boat:1"]
    assert "waiting" not in repr(index)


async def test_retrievals_at_once_embed_documents_once() -> None:
    embedder = Counting()
    index = VectorStoreIndex.from_documents([BOAT], embedder)
    assert await asyncio.gather(*(ids(index, "boat") for _ in range(5))) == [["boat:1"]] * 5
    assert embedder.taken().count(BOAT.text) == 1


async def test_document_that_is_added_while_an_older_one_is_stored_is_not_lost() -> None:
    index = VectorStoreIndex.from_documents([BOAT], Counting())
    refreshing = asyncio.create_task(index.refresh())
    await asyncio.sleep(0)
    index.add([Document("A submarine dives.", "boat")])
    await refreshing
    [found] = await index.as_retriever().aretrieve("submarine")
    assert found.text == "A submarine dives."


def test_index_serves_one_event_loop_after_the_other() -> None:
    index = VectorStoreIndex.from_documents([BOAT], HashEmbedder())

    async def many() -> list[list[str]]:
        return await asyncio.gather(*(ids(index, "boat") for _ in range(3)))

    assert asyncio.run(many()) == [["boat:1"]] * 3
    index.add([KNOT])
    assert [found[0] for found in asyncio.run(many())] == ["boat:1"] * 3


async def test_many_documents_are_embedded_in_batches() -> None:
    embedder = Counting()
    index = VectorStoreIndex.from_documents((Document(f"boat {n}", str(n)) for n in range(1_100)), embedder)
    with record() as seen:
        await index.refresh()
    assert [len(op.subject.texts) for op in seen.find("embeddings")] == [512, 512, 76]
    assert len(await index.store.versions()) == 1_100


async def test_retrieval_is_an_operation_with_the_embedding_inside() -> None:
    index = VectorStoreIndex.from_documents([BOAT, KNOT], HashEmbedder(), name="harbour")
    await index.refresh()
    with record() as seen:
        found = await index.as_retriever(2).aretrieve("boat")
    assert seen.tree() == "retrieval harbour\n  embeddings hash-384"
    [op] = seen.find("retrieval")
    assert op.result == found
    assert (op.subject.source, op.subject.query, op.subject.top_k) == ("harbour", "boat", 2)


async def test_failed_retrieval_is_seen_as_one() -> None:
    embedder = Counting()
    embedder.failing = 1
    with record() as seen, pytest.raises(LLMServerError):
        await VectorStoreIndex.from_documents([BOAT], embedder).as_retriever().aretrieve("boat")
    assert seen.tree() == "retrieval documents error\n  embeddings counting error"


def test_what_is_no_document_and_no_number_is_refused_at_once() -> None:
    wrong: Sequence[Any] = ["text"]
    with pytest.raises(DocumentError, match=r"'text' is no Document. Write Document\(text=...\)"):
        VectorStoreIndex.from_documents(wrong)
    with pytest.raises(DocumentError, match="top_k=0"):
        VectorStoreIndex().as_retriever(0)


@pytest.mark.parametrize("wrong", ["install.md", 7, [7]])
async def test_ids_to_delete_are_a_list(wrong: Any) -> None:
    index = VectorStoreIndex.from_documents([Document("A boat.", "i")])
    with pytest.raises(DocumentError, match="takes a list of ids"):
        await index.delete(wrong)
    assert await ids(index, "boat") == ["i:1"]


async def test_different_documents_of_one_id_are_refused_together_and_replace_each_other_one_by_one() -> None:
    index = VectorStoreIndex()
    two = [KNOT, Document("A boat.", "a", {"source": "one/a"}), Document("A ship.", "a", {"source": "two/a"})]
    with pytest.raises(
        DocumentError, match=r"the id 'a': 'A boat\.' from 'one/a' and 'A ship\.' from 'two/a'.*prefix="
    ):
        index.add(two)
    assert await ids(index, "bowline") == []
    index.add([KNOT, KNOT])
    for document in two:
        index.add([document])
    assert sorted(await ids(index, "boat ship bowline")) == ["a:1", "knot:1"]
    assert await ids(index, "ship") == ["a:1"]


async def test_document_is_cut_anew_where_the_splitter_cuts_otherwise(tmp_path: Path) -> None:
    document = Document("One is here. Two is here. Three is here.", "a")
    store = SqliteVectorStore(tmp_path / "a.db")

    async def pieces(**options: Any) -> int:
        embedder = Counting()
        index = VectorStoreIndex.from_documents([document], embedder, store, **options)
        await index.refresh()
        taken = len(embedder.taken())
        assert len(await ids(index, "here", similarity_top_k=9)) == (taken or len(store.chunks_now("a")))
        return taken

    assert await pieces() == 1
    assert await pieces() == 0
    assert await pieces(splitter=partial(split, size=26)) == 2
    assert await pieces(splitter=partial(split, size=26)) == 0
    assert await pieces(splitter=partial(split, size=14)) == 3


@pytest.mark.parametrize("query", ["", "  "])
async def test_query_without_words_is_not_embedded(query: str) -> None:
    embedder = Counting()
    index = VectorStoreIndex.from_documents([BOAT], embedder)
    assert await ids(index, query) == []
    assert embedder.taken() == [BOAT.text]


async def test_query_that_is_no_text_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(DocumentError, match=r"aretrieve\(None\): the query is a string"):
        await VectorStoreIndex().as_retriever().aretrieve(nothing)


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        (Loaded([BOAT], {}), r"Write load\(\.\.\.\)\.documents\."),
        (BOAT, r"Write \[Document\(text="),
        ("text", r"'text' is no list of documents"),
        (None, r"None is no list of documents"),
        (["x" * 10_000], r"is no Document\. Write Document\(text="),
    ],
)
def test_what_is_no_list_of_documents_is_refused_in_short(documents: Any, said: str) -> None:
    with pytest.raises(DocumentError, match=said) as caught:
        VectorStoreIndex.from_documents(documents)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"embedder": SqliteVectorStore()}, r"embedder=.*has no embed\(texts\)\. Write store="),
        ({"embedder": HashEmbedder}, r"Write embedder=HashEmbedder\(\)"),
        ({"embedder": "ada"}, r"embedder='ada'"),
        ({"store": "a.db"}, r"store='a\.db'\): it is no store\. Write store=SqliteVectorStore\("),
        ({"store": SqliteVectorStore}, r"it is no store"),
        ({"splitter": 500}, r"splitter=500\): it is a function"),
    ],
)
def test_wrong_parts_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        VectorStoreIndex(**settings)


def test_wrong_filter_is_refused_where_it_is_given() -> None:
    wrong: Any = "source"
    with pytest.raises(DocumentError, match=r"where='source': it is a dict"):
        VectorStoreIndex().as_retriever(where=wrong)
