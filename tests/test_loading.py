"""Loading: files and folders as documents, whatever is in them; what cannot be read is named."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_llm.documents import DocumentError
from agentflow_llm.errors import StorageError
from agentflow_llm.html_text import title_and_text
from agentflow_llm.loading import load
from agentflow_llm.splitting import split
from agentflow_llm.vector_store import SqliteVectorStore

if TYPE_CHECKING:
    from collections.abc import Generator

PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>All
about boats</title><style>p { color: red }</style></head><body>
<script>if (1 < 2) document.write("<p>no</p>")</script>
<h1>Boats &amp; <em>ships</em></h1><p>They   float
on water.<br>Mostly.</p><ul><li><p>sails</p></li><li>oars <b>two</b></ul>
<table><tr><th>kind<th>masts<tr><td>sloop</td><td>1</td></table>
<h2>Code</h2><pre>
# no heading

x = `1`
</pre><svg><title>no</title><text>no</text></svg><p>a &lt; b <img src="x" alt="a picture"></p>the rest
"""


def pdf(*pages: str) -> bytes:
    """A PDF of one line a page."""
    numbers = [4 + 2 * at for at in range(len(pages))]
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(f'{n} 0 R' for n in numbers)}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in zip(numbers, pages, strict=True):
        drawn = f"BT /F1 12 Tf 20 20 Td ({text}) Tj ET".encode() if text else b""
        parts.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 100] /Resources << /Font << /F1 3 0 R >> >> "
            + f"/Contents {number + 1} 0 R >>".encode()
        )
        parts.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets: list[int] = []
    for number, part in enumerate(parts, start=1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, part))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(parts) + 1))
    out.writelines(b"%010d 00000 n \n" % offset for offset in offsets)
    out.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(parts) + 1, start))
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "guide").mkdir(parents=True)
    (folder / "README.md").write_text("# Boats\n\nA boat floats.\n")
    (folder / "guide" / "knots.rst").write_text("Knots\n=====\n\nA bowline.\n")
    (folder / "notes.txt").write_text("# no heading\n")
    (folder / "page.html").write_text(PAGE)
    (folder / "paper.pdf").write_bytes(pdf("First page.", "Second page."))
    (folder / "code.py").write_text("water = 1\n")
    return folder


def test_files_of_a_folder_become_documents(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.skipped == {}
    assert [(document.id, document.markup) for document in loaded.documents] == [
        ("README.md", "markdown"),
        ("notes.txt", "text"),
        ("page.html", "markdown"),
        ("paper.pdf", "text"),
        ("guide/knots.rst", "rst"),
    ]
    by_id = {document.id: document for document in loaded.documents}
    assert by_id["README.md"].text == "# Boats\n\nA boat floats.\n"
    assert by_id["guide/knots.rst"].metadata == {"source": "guide/knots.rst"}
    assert by_id["page.html"].metadata == {"source": "page.html", "title": "All about boats"}
    assert by_id["paper.pdf"].text == "First page.\n\nSecond page."
    assert [document.id for document in load(folder, kinds=[".md"]).documents] == ["README.md"]


def test_version_of_a_document_changes_with_its_text_alone(folder: Path) -> None:
    before = load(folder / "README.md").documents[0]
    os.utime(folder / "README.md", (0, 0))
    assert load(folder / "README.md").documents[0].version == before.version
    (folder / "README.md").write_text("new")
    assert load(folder / "README.md").documents[0].version != before.version


def test_single_file_is_loaded(folder: Path) -> None:
    [document] = load(folder / "guide" / "knots.rst").documents
    assert (document.id, document.markup) == ("knots.rst", "rst")


def test_page_is_read_as_it_is_shown() -> None:
    title, text = title_and_text(PAGE)
    assert title == "All about boats"
    assert text.split("\n\n") == [
        "# Boats & ships",
        "They float on water.\nMostly.",
        "- sails",
        "- oars two",
        "kind | masts",
        "sloop | 1",
        "## Code",
        "```\n# no heading",
        "x = `1`\n```",
        "a < b a picture",
        "the rest",
    ]
    assert [piece.heading for piece in split(text, "markdown")] == ["Boats & ships", "Boats & ships > Code"]


@given(st.text(alphabet="<>/!-&;#'\" abhlipre1=\n", max_size=200) | st.text())
def test_any_text_is_a_page(page: str) -> None:
    title, text = title_and_text(page)
    assert isinstance(title + text, str)


@given(st.lists(st.tuples(st.sampled_from(["p", "li", "h2", "td", "pre", "div", "x"]), st.text("abc", min_size=1))))
def test_no_word_of_a_page_is_lost(words: list[tuple[str, str]]) -> None:
    page = "".join(f"<{tag}>{word}</{tag}> " for tag, word in words)
    found = re.findall("[abc]+", title_and_text(page)[1])
    assert found == [word for _, word in words]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'<meta charset="iso-8859-2"><p>\xb1', "\u0105"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=koi8-r"><p>\xc1', "\u0430"),
        (b'<meta charset="no-such"><p>\xdf', "\xdf"),
        (b'<meta charset="hex"><p>\xdf', "\xdf"),
        ("<p>\u0105".encode(), "\u0105"),
    ],
)
def test_page_is_read_in_the_encoding_that_it_names(data: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(data)
    assert load(tmp_path).documents[0].text == text


def test_what_cannot_be_read_is_left_out_and_told_at_the_end(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "binary.md").write_bytes(b"a\0b")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 but no more")
    (folder / "dangling.md").symlink_to(folder / "nowhere")
    (folder / "large.txt").write_text("x" * 2_000_001)
    (folder / "scanned.pdf").write_bytes(pdf("", ""))
    (tmp_path / "secret.md").write_text("secret")
    (folder / "outside.md").symlink_to(tmp_path / "secret.md")
    for hidden in (".git", "node_modules"):
        (folder / hidden).mkdir()
        (folder / hidden / "README.md").write_text("hidden")
    loaded = load(folder)
    assert len(loaded.documents) == 5
    assert loaded.skipped.pop("broken.pdf").startswith("no PDF that can be read")
    assert loaded.skipped == {
        "binary.md": "no text",
        "dangling.md": "No such file or directory",
        "large.txt": "larger than 2,000,000 bytes",
        "outside.md": "a link out of the folder",
        "scanned.pdf": "no text in it: its pages are pictures",
    }
    told = [record.getMessage() for record in caplog.records if record.name.startswith("agentflow")]
    assert len(told) == 1
    assert told[0].startswith("left out: ")
    assert told[0].endswith("and 3 more")


def test_missing_library_is_told_with_the_remedy_and_the_rest_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    loaded = load(folder)
    assert loaded.skipped == {
        "paper.pdf": "reading PDF needs pypdf. Run: pip install 'agentflow-otel[documents]'",
    }
    assert len(loaded.documents) == 4


def test_path_that_cannot_be_loaded_is_refused(folder: Path) -> None:
    with pytest.raises(DocumentError, match="does not exist"):
        load(folder / "nothing")
    with pytest.raises(DocumentError, match=r"code.py' is no document .* ends in none of .*\.pdf"):
        load(folder / "code.py")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_wiped_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    load(folder)
    shown = terminal.getvalue()
    assert shown.startswith("\rreading [######------------------------] 1 of 5")
    assert "] 5 of 5" in shown
    assert shown.endswith("\r\x1b[K")


def test_progress_is_shown_nowhere_else(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", None)
    assert len(load(folder).documents) == 5
    (tmp_path / "empty").mkdir()
    assert load(tmp_path / "empty") == ([], {})


@contextmanager
def as_somebody(folder: str) -> Generator[None]:
    """Without the rights of root, who may look everywhere; the folder is that somebody's."""
    if os.geteuid():
        yield
        return
    nobody = 65534
    os.chown(folder, nobody, nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)


def test_folder_that_may_not_be_looked_into_is_left_out_and_named() -> None:
    with TemporaryDirectory() as top, as_somebody(top):
        closed = Path(top, "closed")
        closed.mkdir()
        Path(top, "a.md").write_text("A boat floats.\n")
        closed.chmod(0)
        try:
            loaded = load(top)
            assert [document.id for document in loaded.documents] == ["a.md"]
            assert loaded.skipped == {"closed": "Permission denied"}
            with pytest.raises(DocumentError, match="does not exist"):
                load(closed / "b.md")
            with pytest.raises(StorageError, match=r"unable to open.*get leave to look into it"):
                SqliteVectorStore(closed / "inner" / "a.db")
        finally:
            closed.chmod(0o700)


def test_documents_of_several_folders_are_told_apart_by_a_prefix(folder: Path) -> None:
    [document] = load(folder / "guide", prefix="guide/").documents
    assert (document.id, document.metadata) == ("guide/knots.rst", {"source": "guide/knots.rst"})


def test_what_has_no_text_is_named(folder: Path) -> None:
    (folder / "empty.md").write_text("\n")
    (folder / "hidden.html").write_text("<title>Nothing</title><script>1</script>")
    assert load(folder).skipped == {"empty.md": "no text in it", "hidden.html": "no text in it"}
    assert load(folder / "empty.md") == ([], {"empty.md": "no text in it"})


def test_single_file_that_cannot_be_read_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "pipe.md")
    (folder / "large.txt").write_text("x" * 2_000_001)
    assert load(folder / "pipe.md") == ([], {"pipe.md": "no plain file"})
    assert load(folder / "large.txt") == ([], {"large.txt": "larger than 2,000,000 bytes"})


def test_broken_pdf_is_told_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "paper.pdf").write_bytes(re.sub(rb"(?<=startxref\n)\d+", b"7", pdf("First page.")))
    before = logging.getLogger("pypdf").level
    assert [document.text for document in load(folder / "paper.pdf").documents] == ["First page."]
    assert [record for record in caplog.records if record.name.startswith("pypdf")] == []
    assert logging.getLogger("pypdf").level == before


@pytest.mark.parametrize(
    ("begin", "again", "end"),
    [("<tr>", "<td>x", ""), ("", "<svg>", "</p>"), ("<math>", "<svg>", "</svg>"), ("<title>", "a<b ", "")],
)
def test_work_on_a_page_grows_as_the_page_does(begin: str, again: str, end: str) -> None:
    def work(many: int) -> float:
        page = begin + again * many + end * many
        took: list[float] = []
        for _ in range(3):
            before = time.process_time()
            title_and_text(page)
            took.append(time.process_time() - before)
        return min(took)

    assert work(20_000) < 12 * work(5_000)  # sixteen times where each part of it is looked at for each other
