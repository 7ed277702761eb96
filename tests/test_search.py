"""Search: an index over a folder of documents, whatever is in the folder and whatever is asked."""

import asyncio
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import AgentflowError
from agentflow.testing import record
from agentflow_agents import DocumentIndex, DocumentsError, FunctionAgent, Tool, Toolbox, ToolError
from agentflow_llm import Document, OfflineModel, SqliteVectorStore, VectorStoreIndex

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = {
        "README.md": "# Boats\n\nA boat floats on water.\n\n## Sails\n\nThe wind fills a sail.\n\nIt has ropes, too.\n",
        "guide/knots.rst": "Knots\n=====\n\nA bowline never slips.\n",
        "guide/notes.txt": "Harbours close at night.\n",
        "ignored.py": "water = 1\n",
    }
    for name, text in documents.items():
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_text(text, encoding="utf-8")
    return tmp_path / "docs"


def test_passages_are_found_with_their_sources_best_first(folder: Path) -> None:
    index = DocumentIndex(folder)
    assert index.documents == ["README.md", "guide/knots.rst", "guide/notes.txt"]
    [found] = index.search("bowlines?")
    assert found.id == "guide/knots.rst:4"
    assert found.text == "A bowline never slips."
    assert found.metadata == {"source": "guide/knots.rst:4", "heading": "Knots"}
    scores = [p.score for p in index.search("a boat, a sail, water")]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0


def test_words_of_a_heading_weigh_more(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Retry\n\nIt tries anew until it works.\n\n# Other\n\nNot the retry of a step.\n")
    assert [p.metadata["heading"] for p in DocumentIndex(tmp_path).search("retry")] == ["Retry", "Other"]


def test_number_of_passages_is_bounded(folder: Path) -> None:
    assert len(DocumentIndex(folder).search("a boat wind sail bowline night", top_k=2)) == 2


def test_search_is_a_retrieval_with_its_passages(folder: Path) -> None:
    index = DocumentIndex(folder, name="handbook")
    with record() as seen:
        found = index.search("water", 3)
    [op] = seen.operations
    assert (op.kind, op.name, op.result) == ("retrieval", "handbook", found)
    assert (op.subject.source, op.subject.query, op.subject.top_k) == ("handbook", "water", 3)
    assert index.name == "handbook"
    assert DocumentIndex(folder).name == "docs"


@given(st.text())
def test_any_text_is_a_query(text: str) -> None:
    assert isinstance(shared().search(text), list)


@given(st.text(alphabet='ab"*^:()-+{}_ \0éß`' + "\u0301"))
def test_syntax_of_the_index_is_no_syntax_of_queries(text: str) -> None:
    assert isinstance(shared().search(f"{text} NEAR AND OR NOT {text}"), list)


_shared: list[DocumentIndex] = []


def shared() -> DocumentIndex:
    if not _shared:
        _shared.append(DocumentIndex(ROOT / "tests" / "reference"))
    return _shared[0]


def test_very_long_query_is_a_query(folder: Path) -> None:
    assert DocumentIndex(folder).search(" ".join(f"w{n}" for n in range(10_000))) == []
    assert DocumentIndex(folder).search("water " * 10_000)


def test_section_is_read_whole(folder: Path) -> None:
    index = DocumentIndex(folder)
    assert index.read("README.md:7") == "The wind fills a sail.\n\nIt has ropes, too."
    assert index.read("README.md:9") == index.read(" README.md:7 ")
    assert index.read("README.md:1") == "A boat floats on water."
    assert index.read("README.md") == "A boat floats on water.\n\nThe wind fills a sail.\n\nIt has ropes, too."


def test_section_that_was_cut_into_passages_is_read_as_it_stood(tmp_path: Path) -> None:
    text = "\n".join(f"line {n}" for n in range(400)) + "\n\n" + "\n\n".join(f"para {n} {'x' * 90}" for n in range(20))
    (tmp_path / "a.md").write_text(f"# A\n{text}\n")
    index = DocumentIndex(tmp_path)
    assert len(index.search("para", top_k=50)) > 1
    assert index.read("a.md:300") == text


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 10_000)
    text = DocumentIndex(tmp_path).read("a.txt:1")
    assert len(text) < 20_100
    assert text.endswith("... (cut)")


@pytest.mark.parametrize("source", ["READM.md:3", "guide/knots", "", ":", ":3", "../secret.md", "a\0b"])
def test_unknown_document_is_an_error_with_names_that_there_are(folder: Path, source: str) -> None:
    with pytest.raises(ToolError, match="There is no document") as caught:
        DocumentIndex(folder).read(source)
    assert ".md" in str(caught.value) or ".rst" in str(caught.value)


def test_hidden_and_installed_things_are_left_out(folder: Path) -> None:
    (folder / "env").mkdir()
    (folder / "env" / "pyvenv.cfg").write_text("")
    for inner in (".git", ".venv", "node_modules/pkg", "__pycache__", "env"):
        (folder / inner).mkdir(parents=True, exist_ok=True)
        (folder / inner / "README.md").write_text("water")
    assert DocumentIndex(folder).documents == ["README.md", "guide/knots.rst", "guide/notes.txt"]


def test_what_cannot_be_read_is_skipped_and_reported(folder: Path, tmp_path: Path) -> None:
    (folder / "control.txt").write_bytes(b"\x89\x01\x02")
    (folder / "half.txt").write_bytes(b"\xff\xfea")
    (folder / "binary.md").write_bytes(b"a\0b")
    (folder / "large.txt").write_text("x" * 2_000_001)
    (folder / "dangling.md").symlink_to(folder / "nowhere")
    (tmp_path / "secret.md").write_text("secret")
    (folder / "outside.md").symlink_to(tmp_path / "secret.md")
    (folder / "bom.txt").write_bytes(b"\xef\xbb\xbfBom voyage")
    os.mkfifo(folder / "pipe.md")
    index = DocumentIndex(folder)
    assert index.skipped == {
        "binary.md": "no text",
        "control.txt": "no text",
        "dangling.md": "No such file or directory",
        "half.txt": "no text",
        "large.txt": "larger than 2,000,000 bytes",
        "outside.md": "a link out of the folder",
        "pipe.md": "no plain file",
    }
    assert index.search("Bom")[0].text == "Bom voyage"
    assert index.search("secret") == []


def test_missing_folder_file_and_empty_folder_are_errors_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DocumentsError, match="does not exist"):
        DocumentIndex(tmp_path / "nothing")
    with pytest.raises(DocumentsError, match="has no documents to search"):
        DocumentIndex(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\0")
    with pytest.raises(DocumentsError, match=r"cannot be read: a.txt \(no text\)"):
        DocumentIndex(tmp_path)
    with pytest.raises(AgentflowError, match="is no folder"):
        DocumentIndex(tmp_path / "a.txt")


def test_file_keeps_the_index_and_only_changes_are_read_again(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "index.db"
    with DocumentIndex(folder, file=file) as index:
        assert len(index) == 3
    (folder / "README.md").write_text("# Boats\n\nNow about submarines.\n")
    (folder / "guide" / "notes.txt").unlink()
    (folder / "new.md").write_text("Anchors hold.\n")
    knots = folder / "guide" / "knots.rst"
    before = knots.stat()
    knots.write_text(knots.read_text().replace("never", "seldo"))
    os.utime(knots, ns=(before.st_atime_ns, before.st_mtime_ns))
    with DocumentIndex(folder, file=file) as index:
        assert index.documents == ["README.md", "guide/knots.rst", "new.md"]
        assert index.search("submarine")
        assert index.search("anchor")
        assert not index.search("harbour")
        assert "never" in index.search("bowline")[0].text, "what looks unchanged was not read again"


def test_document_that_cannot_be_read_any_more_or_is_empty_is_forgotten(folder: Path) -> None:
    index = DocumentIndex(folder)
    (folder / "README.md").write_bytes(b"\0")
    (folder / "guide" / "notes.txt").write_text("\n")
    index.refresh()
    assert index.documents == ["guide/knots.rst"]
    assert index.skipped == {"README.md": "no text", "guide/notes.txt": "no text in it"}


def test_index_is_refreshed(folder: Path) -> None:
    index = DocumentIndex(folder)
    (folder / "new.md").write_text("Anchors hold.\n")
    assert not index.search("anchor")
    index.refresh()
    assert index.search("anchor")


def test_file_of_another_kind_is_an_error_of_ours(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "index.db").write_text("this is no database, but it is long enough to be taken for one" * 50)
    with pytest.raises(DocumentsError, match=r"the index cannot be kept in .*index.db"):
        DocumentIndex(folder, file=tmp_path / "index.db")


def test_index_is_safe_in_threads(folder: Path) -> None:
    index = DocumentIndex(folder)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: len(index.search("water boat" if n % 2 else "night")), range(200)))
    assert found == [1, 2] * 100


@pytest.fixture
def index(folder: Path) -> Iterator[DocumentIndex]:
    with DocumentIndex(folder) as made:
        yield made


async def test_methods_are_tools(index: DocumentIndex) -> None:
    tools = Toolbox([index.search_documents, index.read_document])
    assert Tool(index.search_documents).signature == "query: string, limit: integer = 5"
    assert Tool(index.search_documents).parameters["properties"]["limit"]["maximum"] == 20
    found = await tools.execute("c1", "search_documents", '{"query": "bowline"}')
    [passage] = json.loads(found.content)
    assert list(passage) == ["source", "heading", "text", "score"]
    read = await tools.execute("c2", "read_document", json.dumps({"source": passage["source"]}))
    assert read.content == "A bowline never slips."
    wrong = await tools.execute("c3", "read_document", '{"source": "knots"}')
    assert (wrong.outcome, "guide/knots.rst" in wrong.content) == ("error", True)


async def test_search_of_an_agent_is_inside_the_tools_operation(index: DocumentIndex) -> None:
    with record() as seen:
        result = await FunctionAgent([index.search_documents, index.read_document], OfflineModel()).run(
            "What never slips?"
        )
    assert "bowline" in str(result)
    [retrieval] = seen.find("retrieval")
    [searching] = seen.find("tool", "search_documents")
    assert retrieval.parent is not None
    assert retrieval.parent.id == searching.ref.id


async def test_index_can_be_made_in_a_thread(folder: Path) -> None:
    made = await asyncio.to_thread(DocumentIndex, folder)
    assert made.search("water")


def test_name_that_is_no_utf_8_is_skipped_and_the_others_are_searched(folder: Path) -> None:
    for name in (b"bad\xff.md", b"inner\xff/good.md"):
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_text("water")
    index = DocumentIndex(folder)
    reason = "its name is no UTF-8"
    assert index.skipped == {r"bad\xff.md": reason, r"inner\xff/good.md": reason}
    assert index.search("water")[0].id == "README.md:3"
    with pytest.raises(ToolError, match="no document"):
        index.read(os.fsdecode(b"bad\xff.md"))


def test_folder_whose_own_name_is_no_utf_8_is_searched(folder: Path) -> None:
    odd = folder.rename(Path(os.fsdecode(os.fsencode(folder) + b"\xff")))
    index = DocumentIndex(odd)
    assert index.name == r"docs\xff"
    assert index.search("bowline")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"])
def test_text_is_read_in_the_encoding_that_it_has(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes("# Wege\r\n\r\nDie Stra\xdfe f\xfchrt heim.\r\n".encode(encoding))
    [found] = DocumentIndex(tmp_path).search("Stra\xdfe")
    assert (found.id, found.text) == ("a.md:3", "Die Stra\xdfe f\xfchrt heim.")


@pytest.mark.parametrize("mark", ["le", "be"])
def test_byte_order_mark_tells_the_encoding(mark: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes("\ufeffWater".encode(f"utf-16-{mark}"))
    (tmp_path / "b.md").write_bytes("\ufeffWater".encode(f"utf-32-{mark}"))
    assert [found.text for found in DocumentIndex(tmp_path).search("water")] == ["Water", "Water"]


@pytest.mark.parametrize("top_k", [2.5, 0, -1, True, "3"])
def test_number_of_passages_that_is_none_is_refused(top_k: Any, folder: Path) -> None:
    with pytest.raises(DocumentsError, match=r"top_k=.*: it is a whole number of 1 or more"):
        DocumentIndex(folder).search("water", top_k)


def test_number_of_passages_may_be_as_large_as_it_likes(folder: Path) -> None:
    assert [found.id for found in DocumentIndex(folder).search("bowline", 10**30)] == ["guide/knots.rst:4"]


def test_log_line_names_what_was_left_out_and_why(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abcde":
        (folder / f"{name}.md").write_bytes(b"\0")
    DocumentIndex(folder)
    [line] = [vars(record)["event"] for record in caplog.records]
    assert line == "left out of the search index of 'docs': a.md (no text); b.md (no text); c.md (no text); and 2 more"


async def test_one_file_keeps_the_indexes_of_several_folders_and_the_documents_of_others(tmp_path: Path) -> None:
    file = tmp_path / "all.db"
    for name, text in (("one", "A boat floats.\n"), ("two", "A boat sinks.\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(text)
    mine = VectorStoreIndex.from_documents([Document("A boat is for sale.", "advert")], store=SqliteVectorStore(file))
    await mine.refresh()
    one, two = DocumentIndex(tmp_path / "one", file=file), DocumentIndex(tmp_path / "two", file=file)
    one.refresh()
    assert [found.text for found in one.search("boat")] == ["A boat floats."]
    assert [found.text for found in two.search("boat")] == ["A boat sinks."]
    assert [found.text for found in await mine.as_retriever().aretrieve("boat")] == ["A boat is for sale."]
