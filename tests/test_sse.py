"""Server-sent events: what servers write, wherever the network splits it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentflow_llm.sse import EventReader, decoded


def events_of(*reads: bytes) -> list[tuple[str, Any]]:
    reader = EventReader()
    events = [event for read in reads for event in reader.feed(read)]
    return [*events, *reader.end()]


@pytest.mark.parametrize(
    "text",
    [
        'data: {"a": 1}\n\ndata: {"a": 2}\n\n',
        'data: {"a": 1}\r\n\r\ndata: {"a": 2}\r\n\r\n',
        'data: {"a": 1}\r\rdata: {"a": 2}\r\r',
        'data:{"a": 1}\n\ndata:{"a": 2}\n\n',
        '\ufeffdata: {"a": 1}\n\ndata: {"a": 2}\n\n',
        ' data: {"a": 1}\n\n\n\n data: {"a": 2}\n\n',
        ': PROCESSING\n\n: PROCESSING\n\ndata: {"a": 1}\n\n: still there\ndata: {"a": 2}\n\n',
        'data: {"a":\ndata: 1}\n\ndata: {"a": 2}',
        'data: {"a": 1}\n\ndata: {"a": 2}\n',
        'id: 7\nretry: 10\ndata: {"a": 1}\nwhatever: x\n\nevent\ndata: {"a": 2}\n\n',
        'data: {"a": 1}\n\ndata: {"a": 2}\n\ndata: [DONE]\n\ndata: {"a": 3}\n\n',
        'data: {"a": 1}\n\ndata:\n\ndata\n\ndata: null\n\ndata: [1]\n\ndata: {"a": 2}\n\n',
    ],
)
def test_events_are_read_however_they_are_written(text: str) -> None:
    assert events_of(text.encode()) == [("", {"a": 1}), ("", {"a": 2})]


def test_event_has_its_name_and_the_next_one_has_not() -> None:
    text = b'event: response.created\ndata: {"a": 1}\n\nevent: lost\n\ndata: {"a": 2}\n\n'
    assert events_of(text) == [("response.created", {"a": 1}), ("", {"a": 2})]


def test_event_is_given_as_soon_as_it_is_complete() -> None:
    reader = EventReader()
    assert [len(reader.feed(read)) for read in (b'data: {"a"', b": 1}\n", b"\n", b'data: {"a": 2}\r\r', b"\n")] == [
        0,
        0,
        1,
        1,
        0,
    ]


def test_end_that_the_server_names_is_told() -> None:
    reader = EventReader()
    reader.feed(b"data: [DONE]\n\n")
    assert reader.done
    assert reader.end() == []


LINES = st.sampled_from(
    [
        b'data: {"a": "x"}',
        'data: {"a": "\u00e9\u20ac\U0001f600"}'.encode(),
        b'data: {"a":',
        b"data: 1}",
        b'  data:{"b": "\\ud83d\\ude00"}',
        b": comment",
        b"event: named",
        b"data: [DONE]",
        b"data: broken",
        b"id: 3",
        b"data:",
        b"",
        b"",
        b"",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
TEXTS = st.builds(
    lambda bom, lines, rest: bom + b"".join(line + end for line, end in lines) + rest,
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\n"]),
    st.lists(st.tuples(LINES, ENDS), max_size=12),
    st.sampled_from([b"", b'data: {"a": 9}', b"data: {", b"data: [DONE]"]),
)


@given(st.one_of(TEXTS, st.binary(max_size=40), st.just(b'{"a": [\n\n1]}')), st.data())
@example(b'data: {"a": 1}\r\n\r\n', None)
def test_any_splitting_of_the_bytes_gives_the_same_events(text: bytes, data: st.DataObject | None) -> None:
    if data is None:
        reads = [bytes([byte]) for byte in text]
    else:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
        reads = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, split = EventReader(), EventReader()
    expected = [*whole.feed(text), *whole.end()]
    assert [*(event for read in reads for event in split.feed(read)), *split.end()] == expected
    assert (split.done, split.plain, split.broken) == (whole.done, whole.plain, whole.broken)
    if whole.plain:
        assert split.text == whole.text


@pytest.mark.parametrize(
    "text", ['{"a":\n\n1}', "\ufeff[]", "<html>data: {}</html>", "hello", "\n\nhello: x\ndata: {}"]
)
def test_what_is_no_stream_is_plain_text(text: str) -> None:
    reader = EventReader()
    assert reader.feed(text.encode()) + reader.end() == []
    assert reader.plain
    assert reader.text == text.removeprefix("\ufeff")


def test_data_that_are_no_json_end_the_stream_after_what_came_before_them() -> None:
    reader = EventReader()
    assert reader.feed(b'data: {"a": 1}\n\ndata: what?\n\ndata: {"a": 2}\n\n') == [("", {"a": 1})]
    assert reader.broken == b"what?"
    assert reader.feed(b'data: {"a": 3}\n\n') == []


def test_line_that_is_cut_is_no_broken_one() -> None:
    reader = EventReader()
    assert reader.feed(b'data: {"a": 1}\n\ndata: {"a": ') + reader.end() == [("", {"a": 1})]
    assert reader.broken is None


def test_bytes_that_are_no_text_are_replaced_and_halves_of_pairs_kept() -> None:
    assert decoded(b'{"a": "\xff"}') == {"a": "\ufffd"}
    assert decoded(b'{"a": "\\ud83d"}') == {"a": "\ud83d"}
    with pytest.raises(ValueError, match="Expecting value"):
        decoded(b"x")
    with pytest.raises(ValueError, match="nested too deeply"):
        decoded(b"[" * 100_000)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_json_is_what_the_standard_library_says(value: Any) -> None:
    assert decoded(json.dumps(value).encode()) == value
