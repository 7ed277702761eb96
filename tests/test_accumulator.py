"""Streamed answers put together: in every accent, what comes out is what the same answer is that was not streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_llm import Delta, LLMResponseError, ReasoningPart, RefusalPart, Reply, TextPart, ToolCallPart
from agentflow_llm.accumulator import Accumulator
from agentflow_llm.wire import read_reply

STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def read(*chunks: Any, output_tool: str | None = None) -> tuple[list[Delta], Reply]:
    """The deltas and the reply of these chunks, which are held against each other."""
    accumulator = Accumulator(output_tool)
    deltas = [delta for chunk in chunks for delta in accumulator.feed([("", chunk)])]
    deltas += accumulator.end()
    reply = accumulator.reply()
    assert_same(deltas, reply)
    return deltas, reply


def assert_same(deltas: Sequence[Delta], reply: Reply) -> None:
    """The pieces of each kind, put together, are what the reply has of it."""
    assert said(deltas, "text") == reply.text
    assert said(deltas, "refusal") == (reply.refusal or "")
    assert said(deltas, "reasoning") == "".join(
        part.text for part in reply.message.content if isinstance(part, ReasoningPart)
    )
    calls: dict[int, tuple[str | None, str | None, str]] = {}
    for delta in deltas:
        if delta.type == "tool_call":
            ident, name, text = calls.get(delta.index, (delta.id, delta.name, ""))
            assert delta.index in calls or (delta.id and delta.name)
            calls[delta.index] = (ident, name, text + delta.text)
    assert [calls[index] for index in range(len(calls))] == [
        (call.id, call.name, call.arguments) for call in reply.tool_calls
    ]


def said(deltas: Sequence[Delta], kind: str) -> str:
    return "".join(delta.text for delta in deltas if delta.type == kind)


def chunk(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "model": "m-2",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        "usage": None,
    }


def called(*calls: dict[str, Any]) -> dict[str, Any]:
    return chunk(tool_calls=list(calls))


def piece(index: int | None = None, ident: Any = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:
    """A piece of a tool call, with only what is given."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    whole = {"index": index, "id": ident, "function": function}
    return {key: value for key, value in whole.items() if value is not None}


def essence(reply: Reply) -> Any:
    """A reply without what is made up for it."""
    return reply.model_dump(exclude={"message": {"id"}})


def calls_of(*chunks: Any) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for call in read(*chunks, STOP)[1].tool_calls]


# ---------------------------------------------------------------------------------------------- what holds for all

TEXT = st.text(st.characters(codec="utf-16") | st.sampled_from("\U0001f600\U0001f4a9 {}\n"), max_size=12)
NAMES = st.sampled_from(["search", "add", "answer"])
ARGUMENTS = st.sampled_from(["{}", '{"q": "x"}', '{"q": "\U0001f600 \u20ac", "n": [1, {"a": 2}]}', "", "not json", " "])


@st.composite
def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    """A text in pieces, split also within a pair of surrogates, as servers do that stream tokens."""
    units = text.encode("utf-16-le", "surrogatepass")
    halves = [units[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), 2)]
    cuts = sorted(draw(st.lists(st.integers(0, len(halves)), max_size=3)))
    return ["".join(halves[a:b]) for a, b in zip([0, *cuts], [*cuts, len(halves)], strict=True)]


@st.composite
def streamed(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The chunks of an answer in some accent, and the same answer unstreamed."""
    chunks: list[dict[str, Any]] = []
    message: dict[str, Any] = {"role": "assistant", "content": None}
    for kind in (draw(st.sampled_from(["reasoning", "reasoning_content"])), "content", "refusal"):
        message[kind] = draw(TEXT)
        for text in draw(pieces_of(message[kind])):
            as_list = kind == "content" and draw(st.booleans())
            said: dict[str, Any] = {kind: [{"type": "text", "text": text}] if as_list else text}
            chunks.append(chunk(**said))
    calls = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
    message["tool_calls"] = [
        {"id": f"c{at}", "function": {"name": name, "arguments": arguments}}
        for at, (name, arguments) in enumerate(calls)
    ]
    accent = draw(st.sampled_from(["numbered", "repeated", "all_0", "no_number"]))
    for at, (name, arguments) in enumerate(calls):
        number = {"all_0": 0, "no_number": None}.get(accent, at)
        pieces = draw(pieces_of(arguments))
        for part, text in enumerate(pieces):
            again = accent == "repeated" or not part
            chunks.append(called(piece(number, f"c{at}" if again else None, name if again else None, text or None)))
    usage = draw(st.none() | st.just({"prompt_tokens": 3, "completion_tokens": 2}))
    reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    chunks.append(chunk(reason))
    if usage:
        chunks.append({"id": "r1", "model": "m-2", "choices": [], "usage": usage})
    body = {"id": "r1", "model": "m-2", "choices": [{"message": message, "finish_reason": reason}], "usage": usage}
    return chunks, body


@given(streamed(), st.sampled_from([None, "answer"]))
def test_streamed_answer_is_what_it_is_unstreamed(
    answer: tuple[list[dict[str, Any]], dict[str, Any]], output_tool: str | None
) -> None:
    chunks, body = answer
    _, reply = read(*chunks, output_tool=output_tool)
    assert essence(reply) == essence(read_reply(body, output_tool=output_tool))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["x", "", "\ud83d"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("choices", "delta", "message", "content", "text", "type", "tool_calls", "function", "name", "id"),
                    *("arguments", "index", "usage", "reasoning", "finish_reason", "function_call", "model"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.lists(st.fixed_dictionaries({"choices": st.lists(st.fixed_dictionaries({"delta": JSON}))}) | JSON, max_size=4)
)
def test_any_chunks_are_a_reply_or_none(chunks: list[Any]) -> None:
    accumulator = Accumulator()
    deltas = accumulator.feed([("", chunk) for chunk in chunks if isinstance(chunk, dict)])
    try:
        deltas += accumulator.end()
        reply = accumulator.reply()
    except LLMResponseError:
        return
    assert_same(deltas, reply)


# ------------------------------------------------------------------------------------------------------ the accents


def test_pieces_become_deltas_as_they_come() -> None:
    deltas, reply = read(chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo"), STOP)
    assert [delta.text for delta in deltas] == ["Hel", "lo"]
    assert (reply.text, reply.finish_reason, reply.model, reply.id) == ("Hello", "stop", "m-2", "r1")


def test_first_chunk_of_azure_and_last_one_with_usage_have_no_choices() -> None:
    first = {"choices": [], "id": "", "model": "", "prompt_filter_results": [{}]}
    last = {"choices": [], "id": "r1", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    _, reply = read(first, chunk(content="Hi"), STOP, last)
    assert (reply.id, reply.model, reply.usage.total_tokens, reply.usage.http_requests) == ("r1", "m-2", 5, 1)


@pytest.mark.parametrize("place", ["chunk", "choice", "groq"])
def test_last_usage_counts_wherever_it_stands(place: str) -> None:
    chunks = [chunk(content="a"), chunk(content="b"), chunk("stop")]
    for count, one in enumerate(chunks):
        usage = {"prompt_tokens": 3, "completion_tokens": count}
        {"chunk": one, "choice": one["choices"][0], "groq": one.setdefault("x_groq", {})}[place]["usage"] = usage
    assert read(*chunks)[1].usage.output_tokens == 2


def test_usage_that_is_not_told_is_unknown() -> None:
    assert read(chunk(content="Hi"), STOP)[1].usage.total_tokens is None


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_are_told_once_though_they_stand_twice(field: str) -> None:
    twice: dict[str, Any] = {field: "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}
    deltas, reply = read(chunk(content="", **twice), chunk(content="Hi", reasoning=None), STOP)
    assert deltas == [Delta(type="reasoning", text="Hm"), Delta(text="Hi")]
    assert reply.message.content == (ReasoningPart(text="Hm"), TextPart(text="Hi"))


def test_content_may_be_a_list_with_thoughts_in_it() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    _, reply = read(
        chunk(content=[thinking]), chunk(content=[{"type": "text", "text": "Hi"}]), chunk(content="!"), STOP
    )
    assert reply.message.content == (ReasoningPart(text="Hm"), TextPart(text="Hi!"))


def test_refusal_comes_in_pieces() -> None:
    deltas, reply = read(chunk(content=None, refusal="I "), chunk(refusal="won't"), STOP)
    assert deltas[0] == Delta(type="refusal", text="I ")
    assert reply.message.content == (RefusalPart(text="I won't"),)


def test_half_of_a_pair_waits_for_the_other_half() -> None:
    deltas, _ = read(chunk(content="a\ud83d"), chunk(content="\ude00b"), STOP)
    assert [delta.text for delta in deltas] == ["a", "\U0001f600b"]
    alone, _ = read(chunk(content="a\ud83d"), chunk(content="b"), chunk(content="c\ud83d"), STOP)
    assert [delta.text for delta in alone] == ["a", "\ufffdb", "c", "\ufffd"]


def test_parallel_calls_come_in_fragments() -> None:
    assert calls_of(
        called(piece(0, "c1", "search", "")),
        called(piece(0, arguments='{"q"')),
        called(piece(0, arguments=": 1}")),
        called(piece(1, "c2", "add", "{}")),
    ) == [("c1", "search", '{"q": 1}'), ("c2", "add", "{}")]


def test_fragments_of_several_calls_may_alternate() -> None:
    assert calls_of(
        called(piece(0, "c1", "search"), piece(1, "c2", "add")),
        called(piece(1, arguments='{"n"')),
        called(piece(0, arguments='{"q": 1}')),
        called(piece(1, arguments=": 2}")),
    ) == [("c1", "search", '{"q": 1}'), ("c2", "add", '{"n": 2}')]


def test_id_and_name_may_be_repeated_with_each_piece() -> None:
    pieces = [called(piece(0, "0", "version", text)) for text in ("", '{"a"', ": 1}")]
    assert calls_of(*pieces) == [("0", "version", '{"a": 1}')]


def test_id_may_be_made_up_anew_for_each_piece() -> None:
    first = called(piece(0, "a", "search", '{"q": '))
    assert calls_of(first, called(piece(0, "b", None, '"x"')), called(piece(0, "c", None, "}"))) == [
        ("a", "search", '{"q": "x"}')
    ]


@pytest.mark.parametrize("number", [0, None])
def test_calls_that_are_not_told_apart_by_their_numbers_are_by_ids_and_names(number: int | None) -> None:
    same = [called(piece(number, f"c{at}", "search", f'{{"q": {at}}}')) for at in range(2)]
    assert calls_of(*same) == [("c0", "search", '{"q": 0}'), ("c1", "search", '{"q": 1}')]
    bare = [called(piece(number, None, name, "{}")) for name in ("search", "add", "add")]
    made = calls_of(*bare)
    assert [name for _, name, _ in made] == ["search", "add", "add"]
    assert len({ident for ident, _, _ in made}) == 3


def test_several_whole_calls_in_one_chunk_without_numbers() -> None:
    assert calls_of(called(piece(None, "a", "search", "{}"), piece(None, "b", "search", "{}"))) == [
        ("a", "search", "{}"),
        ("b", "search", "{}"),
    ]


@pytest.mark.parametrize("ident", [None, "", 7])
def test_missing_id_is_minted_and_told_with_the_first_piece(ident: Any) -> None:
    deltas, reply = read(called(piece(0, ident, "search", "{}")), STOP)
    assert deltas[0].id == reply.tool_calls[0].id
    assert reply.tool_calls[0].id.startswith("call_")


def test_id_that_two_calls_share_is_replaced_in_the_second() -> None:
    (one, _, _), (other, _, _) = calls_of(called(piece(0, "x", "a", "{}")), called(piece(1, "x", "b", "{}")))
    assert one == "x"
    assert other.startswith("call_")


@pytest.mark.parametrize(
    ("pieces", "arguments"),
    [
        ([None], "{}"),
        (["", ""], "{}"),
        ([" ", "\n"], "{}"),
        ([" ", '{"a": 1}'], ' {"a": 1}'),
        ([None, '{"a": 1}'], '{"a": 1}'),
        ([{"a": 1}], '{"a": 1}'),
        ([{}], "{}"),
        (["not ", "json"], "not json"),
    ],
)
def test_arguments_may_be_missing_late_whole_or_an_object(pieces: list[Any], arguments: str) -> None:
    first, *rest = pieces
    assert calls_of(called(piece(0, "c", "f", first)), *(called(piece(0, arguments=more)) for more in rest)) == [
        ("c", "f", arguments)
    ]
    null = {"index": 0, "id": "c", "type": None, "function": {"name": "f", "arguments": None}}
    assert calls_of(called(null)) == [("c", "f", "{}")]


def test_signature_of_a_call_is_kept() -> None:
    signed = {**piece(0, "c", "f", "{"), "extra_content": {"google": {"thought_signature": "sealed"}}}
    _, reply = read(called(signed), called(piece(0, arguments="}")), STOP)
    assert reply.message.content == (
        ReasoningPart(text="", id="c", encrypted="sealed"),
        ToolCallPart(id="c", name="f", arguments="{}"),
    )


def test_name_may_come_after_arguments() -> None:
    assert calls_of(called(piece(0, "c", None, '{"a"')), called(piece(0, None, "f", ": 1}"))) == [
        ("c", "f", '{"a": 1}')
    ]


def test_call_without_a_name_is_no_reply() -> None:
    with pytest.raises(LLMResponseError, match="does not name"):
        read(called(piece(0, "c", None, "{}")), STOP)


def test_call_in_the_old_form() -> None:
    old = [chunk(function_call={"name": "f", "arguments": ""}), chunk(function_call={"arguments": '{"a": 1}'})]
    ((ident, name, arguments),) = calls_of(*old)
    assert (name, arguments, ident.startswith("call_")) == ("f", '{"a": 1}', True)


def test_whole_message_may_come_instead_of_pieces() -> None:
    body = {"id": "r1", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    assert read(body)[1].text == "Hi"


def test_message_after_its_pieces_is_not_said_twice() -> None:
    last: dict[str, Any] = {
        "choices": [{"index": 0, "delta": {}, "message": {"content": "Hi"}, "finish_reason": "stop"}]
    }
    assert read(chunk(content="Hi"), last)[1].text == "Hi"


@pytest.mark.parametrize("grouped", ["together", "apart"])
def test_first_of_several_answers_is_the_reply(grouped: str) -> None:
    choices = [{"index": index, "delta": {"content": f"{index}"}} for index in (1, 0, 2)]
    chunks = [{"choices": choices}] if grouped == "together" else [{"choices": [one]} for one in choices]
    accumulator = Accumulator()
    accumulator.feed([("", chunk) for chunk in chunks])
    accumulator.feed([("", STOP)])
    accumulator.end()
    assert (accumulator.reply().text, accumulator.ignored) == ("0", 2)


def test_reason_that_is_not_told_is_none() -> None:
    assert read(chunk("", content="Hi"))[1].finish_reason is None


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (("", {"error": {"code": 400}, "choices": []}), {"code": 400}),
        (("", {"choices": [{"index": 0, "delta": {}, "error": {"code": 502}}]}), {"code": 502}),
        (("error", {"message": "no"}), {"message": "no"}),
        (("", {"object": "error", "message": "no"}), {"object": "error", "message": "no"}),
    ],
)
def test_error_in_a_chunk_ends_the_answer(event: tuple[str, dict[str, Any]], told: Any) -> None:
    accumulator = Accumulator()
    assert accumulator.feed([("", chunk(content="Hi")), event, ("", chunk(content="!"))]) == [Delta(text="Hi")]
    assert accumulator.error == told


@pytest.mark.parametrize(
    ("events", "ends"),
    [
        ([], "cut"),
        ([("", chunk(content="Hi"))], "cut"),
        ([("", {"choices": []})], "cut"),
        ([("", chunk(content="Hi")), ("[DONE]", {})], "ended"),
        ([("", chunk("stop", content="Hi"))], "ended"),
    ],
)
def test_stream_is_cut_unless_the_server_says_that_it_ends(events: list[Any], ends: str) -> None:
    accumulator = Accumulator()
    accumulator.feed(events)
    assert accumulator.ended is (ends == "ended")


def test_what_has_no_choices_is_no_reply() -> None:
    with pytest.raises(LLMResponseError, match=r"no message: '\{.detail"):
        read({"detail": "Not here"})


# --------------------------------------------------------------------------------------- the answer as a tool's call


def test_call_of_the_output_tool_is_the_text() -> None:
    deltas, reply = read(
        called(piece(0, "c", "answer", '{"a"')),
        called(piece(0, arguments=": 1}")),
        chunk("tool_calls"),
        output_tool="answer",
    )
    assert [delta.text for delta in deltas] == ['{"a"', ": 1}"]
    assert reply.message.content == (TextPart(text='{"a": 1}'),)
    assert reply.finish_reason == "stop"


def test_other_calls_stay_calls_and_a_second_answer_is_none() -> None:
    both = [
        piece(0, "a", "search", "{}"),
        piece(1, "b", "answer", "{}"),
        piece(2, "c", "answer", '{"x": 1}'),
        piece(3, "d", "add", "{}"),
    ]
    deltas, reply = read(called(*both), chunk("tool_calls"), output_tool="answer")
    assert reply.message.content == (
        TextPart(text="{}"),
        ToolCallPart(id="a", name="search", arguments="{}"),
        ToolCallPart(id="d", name="add", arguments="{}"),
    )
    assert reply.finish_reason == "tool_calls"
    assert [delta.index for delta in deltas if delta.type == "tool_call"] == [0, 1]
