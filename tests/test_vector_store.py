"""The SQLite store: found by words, by vectors or both, replaced and deleted by document, shared by many at once."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from array import array
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import AgentflowError
from agentflow_llm import nearest
from agentflow_llm.documents import Chunk, Document, DocumentError, VectorStore
from agentflow_llm.errors import StorageError
from agentflow_llm.vector_store import SqliteVectorStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agentflow_llm.records import Passage


@pytest.fixture(params=["numpy", "plain"], autouse=True)
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds with numpy and without."""
    if request.param == "plain":
        monkeypatch.setattr(nearest, "_numpy", lambda: None)


@pytest.fixture
def store() -> SqliteVectorStore:
    store = SqliteVectorStore()
    store.add_now(
        "boats.md",
        [
            Chunk("boats.md:1", "A boat floats on water.", [1.0, 0.0, 0.0], {"source": "boats.md", "year": 2020}),
            Chunk("boats.md:2", "The wind fills a sail.", [0.0, 3.0, 0.0], {"source": "boats.md", "year": 2021}),
        ],
        version="1",
    )
    knots = Chunk("knots.md:1", "It never slips.", [0.0, 1.0, 1.0], {"source": "knots.md", "heading": "A bowline"})
    store.add_now("knots.md", [knots], version="7")
    return store


def ids(found: Sequence[Passage]) -> list[str]:
    return [passage.id for passage in found]


async def test_chunks_are_found_by_their_words_best_first(store: SqliteVectorStore) -> None:
    assert isinstance(store, VectorStore)
    found = await store.search("Do boats float in the water, or the wind?")
    assert ids(found) == ["boats.md:1", "boats.md:2"]
    assert found[0].text == "A boat floats on water."
    assert found[0].metadata == {"source": "boats.md", "year": 2020}
    assert found[0].score > found[1].score > 0
    assert ids(await store.search("boat wind slips", top_k=2)) == ids((await store.search("boat wind slips"))[:2])


async def test_words_of_a_heading_and_a_title_are_found_and_a_headings_count_twice(store: SqliteVectorStore) -> None:
    assert ids(await store.search("bowline")) == ["knots.md:1"]
    await store.add("a", [Chunk("a", "Of bowlines."), Chunk("b", "Of hitches.", metadata={"title": "bowline"})])
    assert ids(await store.search("bowline"))[0] == "knots.md:1"
    assert set(ids(await store.search("bowline"))) == {"knots.md:1", "a", "b"}


async def test_chunks_are_found_by_their_vectors_with_the_cosine_as_score(store: SqliteVectorStore) -> None:
    found = await store.search("", vector=[0.0, 2.0, 0.0])
    assert ids(found) == ["boats.md:2", "knots.md:1", "boats.md:1"]
    assert [passage.score for passage in found] == pytest.approx([1.0, math.sqrt(0.5), 0.0], abs=1e-6)


async def test_what_both_words_and_vector_find_comes_first(store: SqliteVectorStore) -> None:
    assert ids(await store.search("boat wind", vector=[0.0, 1.0, 0.1]))[0] == "boats.md:2"
    assert ids(await store.search("boat", vector=[0.0, 1.0, 1.0])) == ["boats.md:1", "knots.md:1", "boats.md:2"]
    assert ids(await store.search("boat", vector=[0.0, 1.0, 1.0], weight=3))[0] == "knots.md:1"


async def test_first_that_stands_out_is_not_overturned_by_an_order_of_almost_equal_ones() -> None:
    store = SqliteVectorStore()
    chunks = [Chunk("right", "lynx lynx", [1.0, 0.05]), Chunk("other", "A lynx was here with us then.", [1.0, 0.0])]
    await store.add("a", [*chunks, *(Chunk(f"x{n}", "Nothing.", [0.0, 1.0]) for n in range(9))])
    assert ids(await store.search("lynx", vector=[1.0, 0.0]))[:2] == ["right", "other"]


async def test_chunks_without_a_vector_are_found_by_words_alone() -> None:
    store = SqliteVectorStore()
    await store.add("a", [Chunk("with", "a boat", [1.0, 0.0]), Chunk("without", "a boat, too")])
    assert set(ids(await store.search("boat"))) == {"with", "without"}
    assert ids(await store.search("", vector=[1.0, 0.0])) == ["with"]
    assert set(ids(await store.search("boat", vector=[1.0, 0.0]))) == {"with", "without"}
    bare = SqliteVectorStore()
    await bare.add("a", [Chunk("without", "a boat")])
    assert ids(await bare.search("boat", vector=[1.0, 0.0])) == ["without"]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"source": "knots.md"}, {"knots.md:1"}),
        ({"source": ["knots.md", "boats.md"]}, {"boats.md:1", "boats.md:2", "knots.md:1"}),
        ({"source": "boats.md", "year": 2021}, {"boats.md:2"}),
        ({"year": (2020, 2021)}, {"boats.md:1", "boats.md:2"}),
        ({"year": "2020"}, set()),
        ({"author": "nobody"}, set()),
        ({"source": []}, set()),
        ({}, {"boats.md:1", "boats.md:2", "knots.md:1"}),
    ],
)
async def test_only_chunks_whose_metadata_say_so_are_found(
    where: dict[str, Any], found: set[str], store: SqliteVectorStore
) -> None:
    words, vector = "boat wind bowline", [1.0, 1.0, 1.0]
    assert set(ids(await store.search(words, where=where))) == found
    assert set(ids(await store.search("", vector=vector, where=where))) == found
    assert set(ids(await store.search(words, vector=vector, where=where))) == found


async def test_metadata_may_have_any_names_and_values_of_json() -> None:
    store = SqliteVectorStore()
    facts = {"a.b": True, "ä '$[0]": 1.5, "deep": {"list": [1, None]}}
    await store.add("a", [Chunk("a", "boat", metadata=facts), Chunk("b", "boat", metadata={"a.b": False})])
    [found] = await store.search("boat", where={"a.b": True, "ä '$[0]": 1.5})
    assert found.metadata == facts


@pytest.mark.parametrize("where", [{'a"b': 1}, {"a\\": 1}, {"a": None}, {"a": {"b": 1}}, {"a": [[1]]}])
async def test_filter_that_cannot_be_is_refused(where: dict[str, Any], store: SqliteVectorStore) -> None:
    with pytest.raises(DocumentError, match="a filter is the name of a metadata field"):
        await store.search("boat", where=where)


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": math.nan}, {("a",): 1}])
async def test_metadata_that_json_cannot_hold_is_refused(metadata: Any, store: SqliteVectorStore) -> None:
    with pytest.raises(DocumentError, match=r"the metadata of chunk 'c' is .* JSON cannot hold"):
        await store.add("c", [Chunk("c", "text", metadata=metadata)])


async def test_document_that_is_added_again_takes_the_place_of_the_old_one(store: SqliteVectorStore) -> None:
    assert await store.search("", vector=[1.0, 0.0, 0.0])
    await store.add("boats.md", [Chunk("boats.md:1", "Now about submarines.", [0.0, 0.0, 1.0])], version="2")
    assert await store.versions() == {"boats.md": "2", "knots.md": "7"}
    assert ids(await store.search("boat water wind")) == []
    assert ids(await store.search("", vector=[0.0, 0.0, 1.0])) == ["boats.md:1", "knots.md:1"]
    await store.add("boats.md", [], version="3")
    assert await store.versions() == {"boats.md": "3", "knots.md": "7"}
    assert ids(await store.search("submarines", vector=[0.0, 0.0, 1.0])) == ["knots.md:1"]


async def test_deleted_documents_are_gone(store: SqliteVectorStore) -> None:
    assert await store.search("", vector=[1.0, 0.0, 0.0])
    await store.delete(["boats.md", "nobody"])
    assert await store.versions() == {"knots.md": "7"}
    assert ids(await store.search("boat bowline", vector=[1.0, 0.0, 0.0])) == ["knots.md:1"]
    with pytest.raises(DocumentError, match=r"Write delete\(\['knots.md'\]\)"):
        await store.delete("knots.md")


def test_chunks_of_a_document_are_handed_out_in_their_order(store: SqliteVectorStore) -> None:
    assert [(chunk.id, chunk.text, chunk.metadata["year"]) for chunk in store.chunks_now("boats.md")] == [
        ("boats.md:1", "A boat floats on water.", 2020),
        ("boats.md:2", "The wind fills a sail.", 2021),
    ]
    assert store.chunks_now("nobody") == []


async def test_collections_of_a_file_know_nothing_of_each_other(tmp_path: Path) -> None:
    one, other = (SqliteVectorStore(tmp_path / "a.db", collection=name) for name in ("one", "other"))
    await one.add("a", [Chunk("one", "a boat", [1.0, 0.0])])
    await other.add("a", [Chunk("other", "a boat", [1.0, 0.0, 0.0])], version="2")
    assert ids(await one.search("boat", vector=[1.0, 0.0])) == ["one"]
    assert ids(await other.search("boat", vector=[1.0, 0.0, 0.0])) == ["other"]
    await one.delete(["a"])
    assert (await one.versions(), await other.versions()) == ({}, {"a": "2"})
    assert ids(await other.search("boat")) == ["other"]


@given(st.text())
def test_any_text_is_a_query(text: str) -> None:
    assert isinstance(_made().search_now(text, vector=[1.0, 1.0]), list)


@given(st.text(alphabet='ab"*^:()-+{}_ \0éß`' + "\u0301\ud800"))
def test_syntax_of_the_index_is_no_syntax_of_queries(text: str) -> None:
    assert isinstance(_made().search_now(f"{text} NEAR AND OR NOT {text}"), list)


def _made() -> SqliteVectorStore:
    store = SqliteVectorStore()
    store.add_now("a", [Chunk("a", 'NEAR and or not "a" b_b', [1.0, 0.0])])
    return store


@given(st.text(), st.text(), st.text())
def test_any_text_can_be_kept(ident: str, text: str, fact: str) -> None:
    store = SqliteVectorStore()
    store.add_now(ident, [Chunk(ident, f"boat {text}", metadata={"fact": fact, "heading": text})], version=fact)
    [found] = store.search_now("boat", where={"fact": fact})
    assert found.text.startswith("boat")
    store.delete_now([ident])
    assert store.search_now("boat") == []


async def test_query_of_thousands_of_words_is_a_query(store: SqliteVectorStore) -> None:
    assert await store.search(" ".join(f"w{n}" for n in range(10_000))) == []
    assert await store.search("boat " * 10_000)
    assert ids(await store.search("what is it?")) == ["knots.md:1"], "where all words say little, all are looked for"


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        ([1.0, 2.0], r"chunk 'c' has a vector of 2, but .* have 3 dimensions.*Use that one"),
        ([1.0, math.nan, 0.0], "the vector of chunk 'c' has NaN or infinity"),
        ([1.0, math.inf, 0.0], "the vector of chunk 'c' has NaN or infinity"),
        ([], "the vector of chunk 'c' has no numbers"),
        (["a", "b", "c"], r"the vector of chunk 'c' is .*: it is a list of numbers"),
        ([[1.0], [2.0], [3.0]], r"the vector of chunk 'c' is .*: it is a list of numbers"),
        ([10**400, 1, 1], r"the vector of chunk 'c' is .*: it is a list of numbers"),
    ],
)
async def test_vector_that_is_none_is_refused_and_nothing_is_changed(
    vector: Any, problem: str, store: SqliteVectorStore
) -> None:
    with pytest.raises(DocumentError, match=problem):
        await store.add("boats.md", [Chunk("b", "fine", [1.0, 0.0, 0.0]), Chunk("c", "not fine", vector)])
    assert ids(await store.search("boat")) == ["boats.md:1"]
    with pytest.raises(DocumentError, match=problem.replace("chunk 'c'", "the query")):
        await store.search("boat", vector=vector)


async def test_first_vector_says_how_long_all_are_unless_the_store_says_so() -> None:
    with pytest.raises(DocumentError, match=r"a vector of 2, but .* 3 dimensions"):
        await SqliteVectorStore(dimensions=3).add("a", [Chunk("a", "a", [1.0, 0.0])])
    with pytest.raises(DocumentError, match=r"a vector of 2, but .* 3 dimensions"):
        await SqliteVectorStore().add("a", [Chunk("a", "a", [1.0, 0.0, 0.0]), Chunk("b", "b", [1.0, 0.0])])


def test_file_remembers_how_long_its_vectors_are(tmp_path: Path) -> None:
    SqliteVectorStore(tmp_path / "a.db", dimensions=3)
    with pytest.raises(DocumentError, match=r"dimensions=2, but the vectors in collection 'default' of .*a\.db"):
        SqliteVectorStore(tmp_path / "a.db", dimensions=2)
    SqliteVectorStore(tmp_path / "a.db", collection="other", dimensions=2)


@pytest.mark.parametrize("dimensions", [0, -1, True])
def test_dimensions_that_are_none_are_refused(dimensions: int) -> None:
    with pytest.raises(DocumentError, match=r"dimensions=.*: a vector has 1 or more"):
        SqliteVectorStore(dimensions=dimensions)


@pytest.mark.parametrize("top_k", [2.5, 0, -1, True, "3"])
async def test_number_of_passages_that_is_none_is_refused(top_k: Any, store: SqliteVectorStore) -> None:
    with pytest.raises(DocumentError, match=r"top_k=.*: it is a whole number of 1 or more"):
        await store.search("boat", top_k=top_k)
    assert len(await store.search("", vector=[1.0, 0.0, 0.0], top_k=10**30)) == 3


vectors = st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=3)


@given(st.lists(vectors, min_size=1, max_size=12), vectors, st.integers(1, 13))
def test_search_by_vector_is_exact(numbers: list[list[float]], query: list[float], top_k: int) -> None:
    store = SqliteVectorStore()
    store.add_now("a", [Chunk(str(number), "text", vector) for number, vector in enumerate(numbers)])
    found = store.search_now("", vector=query, top_k=top_k)
    if not any(_unit(query)):
        assert found == []
        return
    cosines = sorted((_cosine(vector, query) for vector in numbers), reverse=True)[:top_k]
    assert [passage.score for passage in found] == pytest.approx(cosines, abs=1e-5)
    assert all(_cosine(numbers[int(p.id)], query) == pytest.approx(p.score, abs=1e-5) for p in found)


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return [number / length for number in vector] if length else vector


def _cosine(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(_unit(one), _unit(other), strict=True))


@pytest.mark.parametrize("kind", [list, tuple, partial(array, "f"), partial(array, "d")])
async def test_vectors_may_be_any_sequence_of_numbers(kind: Callable[[Any], Any]) -> None:
    store = SqliteVectorStore()
    await store.add("a", [Chunk("a", "a", kind([1.0, 2.0])), Chunk("b", "b", kind([2.0, 1.0]))])
    assert ids(await store.search("", vector=kind([2.0, 4.0]))) == ["a", "b"]


async def test_vectors_of_a_numpy_array_are_taken() -> None:
    numpy = pytest.importorskip("numpy")
    store = SqliteVectorStore()
    await store.add("a", [Chunk("a", "a", numpy.array([1.0, 2.0])), Chunk("b", "b", numpy.zeros(2))])
    assert [(p.id, round(p.score, 3)) for p in await store.search("", vector=numpy.array([1.0, 2.0]))] == [
        ("a", 1.0),
        ("b", 0.0),
    ]


async def test_file_is_found_again_as_it_was_left(tmp_path: Path) -> None:
    store = SqliteVectorStore(tmp_path / "a.db")
    await store.add("a", [Chunk("a", "a boat", [1.0, 0.0], {"n": 1})], version="1")
    store.close()
    with pytest.raises(StorageError, match=r"a\.db.*was closed"):
        await store.search("boat")
    again = SqliteVectorStore(tmp_path / "a.db")
    assert await again.versions() == {"a": "1"}
    assert ids(await again.search("boat", vector=[1.0, 0.0], where={"n": 1})) == ["a"]


async def test_what_others_write_is_seen(tmp_path: Path) -> None:
    """By several stores, also where the vectors have been read before; and by other processes."""
    one, other = SqliteVectorStore(tmp_path / "a.db"), SqliteVectorStore(tmp_path / "a.db")
    await one.add("a", [Chunk("a", "a boat", [1.0, 0.0])])
    assert ids(await other.search("", vector=[1.0, 0.0])) == ["a"]
    await one.add("b", [Chunk("b", "a boat", [0.0, 1.0])])
    assert ids(await other.search("", vector=[0.0, 1.0])) == ["b", "a"]
    await other.delete(["a"])
    assert ids(await one.search("boat", vector=[0.0, 1.0])) == ["b"]
    program = (
        "import sys; from agentflow_llm.vector_store import SqliteVectorStore, Chunk\n"
        "store = SqliteVectorStore(sys.argv[1])\n"
        "store.delete_now(['b']); store.add_now('c', [Chunk('c', 'a boat', [0.5, 0.5])])\n"
    )
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, str(tmp_path / "a.db")], check=True)
    assert ids(await one.search("", vector=[1.0, 0.0])) == ["c"]


async def test_processes_may_write_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from agentflow_llm.vector_store import SqliteVectorStore, Chunk\n"
        "store = SqliteVectorStore(sys.argv[1])\n"
        "for n in range(20): store.add_now(f'{sys.argv[2]}{n}', [Chunk(f'{sys.argv[2]}{n}', 'a boat', [1.0, n])])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.db")]
    running = [asyncio.to_thread(subprocess.run, [*command, name], check=True) for name in "ab"]
    await asyncio.gather(*running)
    store = SqliteVectorStore(tmp_path / "a.db")
    assert len(await store.versions()) == 40
    assert len(await store.search("", vector=[1.0, 0.0], top_k=100)) == 40


async def test_tasks_and_threads_may_use_it_at_once(store: SqliteVectorStore) -> None:
    await asyncio.gather(*(store.add(f"d{n}", [Chunk(f"d{n}", "zebra", [0.0, 0.0, 1.0 + n])]) for n in range(20)))
    assert len(await store.search("zebra", top_k=50)) == 20

    def work(number: int) -> int:
        store.add_now(f"t{number}", [Chunk(f"t{number}", "lion", [1.0, 1.0, number])])
        store.delete_now([f"d{number}"])
        return len(store.search_now("lion zebra", vector=[1.0, 0.0, 0.0], top_k=100))

    with ThreadPoolExecutor(8) as pool:
        assert all(count >= 20 for count in pool.map(work, range(20)))
    assert set(ids(await store.search("lion zebra", top_k=100))) == {f"t{n}" for n in range(20)}


async def test_work_is_done_beside_the_event_loop(tmp_path: Path) -> None:
    """While another process writes, a writer waits, and the loop goes on."""
    import sqlite3  # noqa: PLC0415 because only this test looks at the file from outside

    store = SqliteVectorStore(tmp_path / "a.db")
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    adding = asyncio.create_task(store.add("a", [Chunk("a", "a boat")]))
    assert await store.search("boat") == []
    assert not adding.done()
    other.execute("COMMIT")
    other.close()
    await adding
    assert ids(await store.search("boat")) == ["a"]


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("this is no database, but it is long enough to be taken for one" * 50)
    with pytest.raises(StorageError, match=r"a\.db"):
        SqliteVectorStore(tmp_path / "a.db")


def test_document_has_an_id_and_a_version_of_its_content() -> None:
    one, same, other = Document("text"), Document("text"), Document("text", metadata={"n": 1})
    assert (one.id, one.version) == (same.id, same.version)
    assert (one.id, one.version != other.version) == (other.id, True)
    assert Document("text", markup="markdown").version != one.version
    assert (Document("a", "id", version="3").id, Document("a", "id", version="3").version) == ("id", "3")


@pytest.mark.parametrize(
    ("kind", "arguments", "problem"),
    [
        (Document, (3,), r"Document\(text=3\): text is a string"),
        (Chunk, (3, "text"), r"Chunk\(3, 'text'\): id and text are strings"),
        (Chunk, ("a", None), r"Chunk\('a', None\): id and text are strings"),
        (Chunk, ("a", "text", 3.0), r"Chunk\(vector=3.0\): a vector is a list of numbers, or None"),
    ],
)
def test_what_is_no_document_and_no_chunk_is_refused_when_it_is_made(kind: Any, arguments: Any, problem: str) -> None:
    with pytest.raises(AgentflowError, match=problem):
        kind(*arguments)


@pytest.mark.parametrize(
    "settings",
    [
        {"metadata": {"a": object()}},
        {"metadata": {"a": math.nan}},
        {"metadata": ["a"]},
        {"metadata": None},
        {"id": 7},
        {"id": None},
        {"version": 7},
        {"markup": "html"},
    ],
)
def test_document_that_could_not_be_kept_is_refused_when_it_is_made(settings: dict[str, Any]) -> None:
    with pytest.raises(DocumentError):
        Document("A boat.", **settings)


POINTED = "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd"
HINDI = "\u0939\u093f\u0928\u094d\u0926\u0940"


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("Un r\u00e9sum\u00e9 court.", ["re\u0301sume\u0301", "r\u00e9sum\u00e9", "resume"]),
        ("Un re\u0301sume\u0301 court.", ["re\u0301sume\u0301", "r\u00e9sum\u00e9", "resume"]),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", ["\ud55c\uae00"]),
        (POINTED, [POINTED, "\u05e9\u05dc\u05d5\u05dd"]),
        (f"{HINDI} \u092d\u093e\u0937\u093e", [HINDI]),
        (
            "\u6771\u4eac\u90fd\u306b\u4f4f\u3093\u3067\u3044\u308b",
            ["\u6771\u4eac", "\u4eac\u90fd", "\u6771", "\u308b", "Tokyo\u306f\u6771\u4eac\u3067\u3059"],
        ),
        ("SQLite\u306e\u4f7f\u3044\u65b9", ["sqlite", "\u4f7f\u3044\u65b9"]),
    ],
)
async def test_words_of_any_script_are_found_and_the_text_stays_as_it_was(text: str, queries: list[str]) -> None:
    store = SqliteVectorStore()
    await store.add("a", [Chunk("a", text)])
    await store.add("b", [Chunk("b", "other words \u05d3\u05d1\u05e8 \u5927\u962a \u0939\u093e\u0925")])
    for query in queries:
        assert [passage.text for passage in await store.search(query)] == [text], query
    assert store.chunks_now("a")[0].text == text


async def test_signs_that_stand_apart_are_no_word() -> None:
    store = SqliteVectorStore()
    await store.add("a", [Chunk("a", "\u6771\u897f\u4eac")])
    assert await store.search("\u6771\u4eac") == []


@pytest.mark.parametrize(
    "where",
    [
        {"year": math.nan},
        {"year": math.inf},
        {"year": [2020, -math.inf]},
        {"year": 10**30},
        {"year": None},
        {"year": {"a": 1}},
        {1: "a"},
        ["year"],
        [],
        "year",
        {f"k{n}": "a" for n in range(3_000)},
    ],
)
async def test_odd_filters_are_refused(store: SqliteVectorStore, where: Any) -> None:
    with pytest.raises(DocumentError, match="where="):
        await store.search("boat", where=where)


async def test_many_filters_at_once_are_taken(store: SqliteVectorStore) -> None:
    assert await store.search("boat", where={f"k{n}": "a" for n in range(100)}) == []


async def test_metadata_that_are_a_list_say_each_of_their_values() -> None:
    store = SqliteVectorStore()
    await store.add("a", [Chunk("a", "boat", metadata={"tags": ["sea", 7, True]})])
    await store.add("b", [Chunk("b", "boat", metadata={"tags": "sea"})])
    await store.add("c", [Chunk("c", "boat", metadata={"tags": {"of": "sea"}})])
    assert ids(await store.search("boat", where={"tags": "sea"})) == ["a", "b"]
    assert ids(await store.search("boat", where={"tags": [7, "river"]})) == ["a"]
    assert await store.search("boat", where={"tags": "se"}) == []


@pytest.mark.parametrize("settings", [{"collection": 7}, {"dimensions": "a"}, {"dimensions": 1.5}])
def test_wrong_settings_of_a_store_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match=r"SqliteVectorStore\("):
        SqliteVectorStore(**settings)


def test_vectors_of_another_embedder_take_the_place_of_all(store: SqliteVectorStore) -> None:
    assert ids(store.search_now("", vector=[0.0, 1.0, 0.0], top_k=1)) == ["boats.md:2"]
    store.renew_now(
        {"knots.md": Chunk("knots.md:1", "It slips.", [1.0, 0.0]), "gone": Chunk("g", "g", [1.0, 0.0])}, "2"
    )
    assert store.versions_now() == {"boats.md": "", "knots.md": "2"}
    assert ids(store.search_now("", vector=[1.0, 1.0])) == ["knots.md:1"]
    assert ids(store.search_now("boat")) == ["boats.md:1"]
