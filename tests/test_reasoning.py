"""Reasoning in plain text: a corpus of what models write, texts cut into pieces, and conversations told in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_agents.binding import arguments_of
from agentflow_agents.literal import UnreadableError, read_literal
from agentflow_agents.reasoning import STOP, Piece, Reasoning, ReasoningReader, read_reasoning
from agentflow_agents.transcription import described, transcribed
from agentflow_llm import (
    ChatMessage,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentflow_llm.messages import AnyPart

CORPUS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "fixtures" / "react-outputs" / "outputs.json").read_text(encoding="utf-8")
)
TOOLS = [ToolDefinition.model_validate(tool) for tool in CORPUS["tools"]]
OUTPUTS: list[dict[str, Any]] = CORPUS["outputs"]
TEXTS: list[str] = [output["text"] for output in OUTPUTS]
FRAGMENTS = [
    *("Thought:", "Action:", "Action Input:", "Observation:", "Answer:", "Final Answer:", "**Thought:**", "**Answer: "),
    *(
        "thought:",
        "action\uff1a",
        "\n",
        "\n",
        "\n\n",
        " ",
        "  ",
        "search",
        "now",
        "None",
        '{"query": "x"}',
        "{'a': 'it's'",
    ),
    *(
        "```",
        "```json",
        "```\n",
        "~~~",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<function=search>",
        "[TOOL_CALLS]",
    ),
    *(
        "word.",
        "done! ",
        "so. Action: now",
        " Answer: 3",
        "Thou",
        "Act",
        "Answer",
        "Final",
        "*",
        "# ",
        "- ",
        "1. ",
        "> ",
    ),
    *("`x`", "<b>", "[y]", "\r\n", "(z)", "\u2026", ".", "\t", "\u2028", "\u00a0", "\u00e9", "Question:"),
]


def parsed(text: str) -> Any:
    """The JSON in a text, or the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_in_pieces(text: str, cuts: Sequence[int]) -> tuple[Reasoning, list[Piece]]:
    """What is read of a text that comes cut at these places, and the pieces that were told."""
    reader = ReasoningReader(TOOLS)
    pieces: list[Piece] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces += reader.feed(text[start:end])
    pieces += reader.close()
    return reader.reasoning, pieces


def joined(pieces: Sequence[Piece], label: str) -> str:
    return "".join(piece.text for piece in pieces if piece.label == label)


@st.composite
def texts_with_cuts(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A text of the corpus, or one of fragments, and where it is cut."""
    made = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
    text = draw(st.sampled_from(TEXTS) | made)
    return text, sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))


def test_corpus_is_large_and_says_where_each_is_from() -> None:
    assert len(OUTPUTS) >= 60
    assert len({output["id"] for output in OUTPUTS}) == len(OUTPUTS)
    assert all(output["source"].startswith(("https://github.com/", "tests/fixtures/")) for output in OUTPUTS)


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output["id"])
def test_what_models_write_is_read(output: dict[str, Any]) -> None:
    found = read_reasoning(output["text"], TOOLS)
    assert {
        "thought": found.thought,
        "actions": [{"name": action.name, "arguments": parsed(action.arguments)} for action in found.actions],
        "answer": found.answer,
        "unreadable": bool(found.problem),
        "dropped": bool(found.note),
    } == output["expect"]


@pytest.mark.parametrize("text", TEXTS, ids=[output["id"] for output in OUTPUTS])
def test_letter_by_letter_is_read_alike(text: str) -> None:
    whole = read_reasoning(text, TOOLS)
    found, pieces = read_in_pieces(text, range(1, len(text)))
    assert found == whole
    assert joined(pieces, "thought") == whole.thought
    assert joined(pieces, "answer") == (whole.answer or "")


@given(texts_with_cuts())
def test_what_is_known_before_the_end_does_not_depend_on_the_cuts(given_text: tuple[str, list[int]]) -> None:
    text, _ = given_text
    at_once, by_letters = ReasoningReader(TOOLS), ReasoningReader(TOOLS)
    known = at_once.feed(text)
    told = [piece for letter in text for piece in by_letters.feed(letter)]
    assert joined(known, "thought") == joined(told, "thought")
    assert joined(known, "answer") == joined(told, "answer")


@given(texts_with_cuts())
def test_however_a_text_is_cut_it_is_read_alike(given_text: tuple[str, list[int]]) -> None:
    text, cuts = given_text
    whole = read_reasoning(text, TOOLS)
    found, pieces = read_in_pieces(text, cuts)
    assert found == whole
    assert joined(pieces, "thought") == whole.thought
    assert joined(pieces, "answer") == (whole.answer or "")
    assert [bool(whole.actions), bool(whole.answer), bool(whole.problem)].count(True) == 1


@given(st.text())
def test_a_text_without_markers_is_the_answer_as_it_is(text: str) -> None:
    said = "".join(sign for sign in text if sign not in ":\uff1a<[{")
    assert read_reasoning(said, TOOLS).answer == (said.strip() or None)


def test_thoughts_and_answers_are_told_as_soon_as_they_are_clear() -> None:
    reader = ReasoningReader(TOOLS)
    assert reader.feed("Tho") == []
    assert reader.feed("ught: I kn") == [("thought", "I kn")]
    assert reader.feed("ow. Ans") == [("thought", "ow.")]
    assert reader.feed("wers exist.") == [("thought", " Answers exist.")]
    assert reader.feed("\nAnswer") == []
    assert reader.feed(": S") == [("answer", "S")]
    assert reader.feed("ix. Action: none.") == [("answer", "ix. Action: none.")]
    assert reader.close() == []
    assert reader.reasoning == Reasoning(thought="I know. Answers exist.", answer="Six. Action: none.")


def test_an_answer_behind_thinking_is_told_at_once() -> None:
    reader = ReasoningReader(TOOLS)
    assert reader.feed("<think>Hm.</think>Answer: S") == [("thought", "Hm."), ("answer", "S")]


def test_a_text_without_marker_is_held_back_until_it_is_clear_what_it_is() -> None:
    reader = ReasoningReader(TOOLS)
    assert reader.feed("I add them.\n") == []
    assert reader.feed("Answer: 8") == [("thought", "I add them."), ("answer", "8")]


def test_what_cannot_be_read_has_a_problem_that_says_what_is_missing() -> None:
    assert read_reasoning("", TOOLS).problem == "Nothing was said."
    assert read_reasoning("Thought: hm", TOOLS).problem == "There is a Thought, but neither an Action nor an Answer."
    assert "name of one tool" in read_reasoning("Action: I will look around.", TOOLS).problem
    assert "no Action before it" in read_reasoning("Action Input: {}", TOOLS).problem
    assert "no valid JSON" in read_reasoning('Action: {"action": "sea', TOOLS).problem


def test_no_tool_behind_actions_ends_them() -> None:
    found = read_reasoning("Action: now\nAction: None\nAction: now", TOOLS)
    assert ([action.name for action in found.actions], bool(found.note)) == (["now"], True)


def test_result_made_up_behind_an_input_in_words_ends_it() -> None:
    found = read_reasoning("Action: search\nAction Input: Who made it? Observation: Nobody.\nAnswer: Nobody.", TOOLS)
    assert [parsed(action.arguments) for action in found.actions] == [{"query": "Who made it?"}]
    assert found.note


def test_an_action_that_is_not_closed_is_read_to_its_end() -> None:
    assert parsed(read_reasoning("Action: search(Graz", TOOLS).actions[0].arguments) == {"query": "Graz"}
    assert parsed(read_reasoning("Action: search{'query': 'x'}", TOOLS).actions[0].arguments) == {"query": "x"}


def test_signs_around_a_part_are_left_out_and_those_within_it_stay() -> None:
    assert read_reasoning("**Answer: Graz is **small****").answer == "Graz is **small**"
    assert read_reasoning("**Thought: I know.**\n**Answer: Graz**\n") == Reasoning("I know.", answer="Graz")
    assert read_reasoning("**Answer:** **Graz**").answer == "**Graz**"
    assert read_reasoning("I know. **Answer:** Graz").answer == "Graz"
    assert read_reasoning("I know. **Answer: Graz**").answer == "Graz"


def test_an_object_that_breaks_off_is_no_call() -> None:
    text = 'It is {"action": "search"\n{"action": "search", "action_input": "Gra'
    assert read_reasoning(text, TOOLS).answer == text


def test_actions_without_end_are_given_up() -> None:
    found = read_reasoning("Action: None\nObservation: None\n" * 100, TOOLS)
    assert found.problem
    assert not found.actions


def test_stop_texts_are_few_enough_for_servers_and_begin_a_line() -> None:
    assert len(STOP) <= 4
    assert all(text.startswith("\n") for text in STOP)


@pytest.mark.parametrize("stop", STOP)
def test_what_a_server_stops_at_is_what_is_left_out(stop: str) -> None:
    said = 'Thought: a\nAction: search\nAction Input: {"query": "x"}'
    assert read_reasoning(f"{said}{stop}: it is 5\nAnswer: 5", TOOLS).actions == read_reasoning(said, TOOLS).actions


def test_long_answer_is_read_to_its_end() -> None:
    answer = "word [by] <word>. And more\n" * 20_000
    assert read_reasoning(f"Thought: x\nAnswer: {answer}", TOOLS).answer == answer.strip()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\\'\"`\u2018\u2019\u201c\u201d"))


@given(st.dictionaries(st.text(), JSON, max_size=4), st.text())
def test_json_is_read_as_it_is_whatever_follows(value: dict[str, Any], behind: str) -> None:
    text = json.dumps(value)
    assert read_literal(text + behind) == (value, len(text))
    assert arguments_of(text + behind, None) == (text if value else "{}")


@given(
    st.dictionaries(PLAIN, st.none() | st.booleans() | st.integers() | PLAIN | st.lists(PLAIN, max_size=3), min_size=1)
)
def test_literals_of_python_are_read_as_what_they_are(value: dict[str, Any]) -> None:
    text = "{" + ", ".join(f"'{key}': {literal(inner)}" for key, inner in value.items()) + "}"
    assert read_literal(text) == (value, len(text))


def literal(value: Any) -> str:
    """A value as Python has it, with line breaks as they are."""
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return f"'{value}'" if isinstance(value, str) else repr(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": \'x\', "b": "\\u00e9\\ud83d\\ude00"', {"a": "x", "b": "\u00e9\U0001f600"}),
        ("{'a': 'C:\\new\\x41', 'b': '\\u12'}", {"a": "C:\new\\x41", "b": "\\u12"}),
        ("{'a': 'one\\\ntwo'}", {"a": "onetwo"}),
        (
            '{"a": """say "it" now""", "b": 1_000, "c": -.5, "d": 1e3}',
            {"a": 'say "it" now', "b": 1000, "c": -0.5, "d": 1e3},
        ),
        ("{a = 1, b = (2, 3), c: none, d: two words}", {"a": 1, "b": [2, 3], "c": None, "d": "two words"}),
        ('{/* first */ "a": 1, # one\n "b": 2 // two\n}', {"a": 1, "b": 2}),
        ('{"a": "x", "b": ["y",, "z"', {"a": "x", "b": ["y", "z"]}),
        ('{"a": "He said "no, thanks", and left", "b": 1}', {"a": 'He said "no, thanks", and left', "b": 1}),
        ('{"a": "x"\n"b": "y"}', {"a": "x", "b": "y"}),
    ],
)
def test_what_is_nearly_json_is_read_as_it_was_meant(text: str, value: Any) -> None:
    assert read_literal(text) == (value, len(text))


@pytest.mark.parametrize("text", ["", "{5: 1}", '{"a" 1}', '{"a": }', '{"a": "x', "['a', 'b", "[" * 100 + "'a' x"])
def test_what_has_no_meaning_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        read_literal(text)


@given(st.text(st.sampled_from("{}[](),:'\"ab1 \n\\#/*=\u201c\u201d-.")))
def test_whatever_is_no_literal_is_refused_and_nothing_else_happens(text: str) -> None:
    try:
        _, end = read_literal(text)
    except UnreadableError:
        return
    assert 0 <= end <= len(text)


def test_brackets_without_end_are_refused() -> None:
    with pytest.raises(UnreadableError):
        read_literal("[" * 100_000 + "'")


def test_what_breaks_off_within_a_text_is_not_completed() -> None:
    broken = '{"path": "/data/tm'
    assert arguments_of(broken, None) == broken


def tool_with(**parameters: str) -> ToolDefinition:
    """A tool that must have these parameters, by name and type."""
    properties = {name: {"type": kind} for name, kind in parameters.items()}
    return ToolDefinition(name="f", parameters={"properties": properties, "required": list(properties)})


@pytest.mark.parametrize(
    ("given_input", "tool", "expected"),
    [
        (None, tool_with(a="string"), {}),
        ("5", tool_with(a="integer"), {"a": 5}),
        ("five", tool_with(a="integer"), {"a": "five"}),
        ("'true'", tool_with(a="boolean"), {"a": True}),
        ("[1, 2]", tool_with(a="array"), {"a": [1, 2]}),
        ("[{'b': 1}]", tool_with(a="array"), {"a": [{"b": 1}]}),
        ("[1, 2]", tool_with(a="string"), {"a": "[1, 2]"}),
        (7, tool_with(a="string"), {"a": "7"}),
        ({"a": 7, "b": "[1]"}, tool_with(a="string", b="array"), {"a": "7", "b": [1]}),
        ("1, 2", tool_with(a="integer", b="integer"), {"a": 1, "b": 2}),
        ("cats, 3", TOOLS[0], {"query": "cats, 3"}),
        ("1, 2, 3", tool_with(a="integer", b="integer"), "1, 2, 3"),
        ("some words", tool_with(a="string", b="string"), "some words"),
        ("some words", tool_with(), {}),
        ("some words", None, {"input": "some words"}),
        ('the input {"a": "x"} of it', tool_with(a="string", b="string"), {"a": "x"}),
        ('the input {"c": "x"} of it', tool_with(a="string"), {"a": 'the input {"c": "x"} of it'}),
        ("`x` or `y`", tool_with(a="string"), {"a": "`x` or `y`"}),
        ("~~~\nx\n~~~", tool_with(a="string"), {"a": "x"}),
        ("-", tool_with(a="string"), {}),
    ],
)
def test_input_is_bound_to_the_parameter_that_can_be_meant(
    given_input: Any, tool: ToolDefinition | None, expected: Any
) -> None:
    assert parsed(arguments_of(given_input, tool)) == expected


def test_tools_are_described_with_all_that_they_take() -> None:
    told = described(TOOLS[:2])
    assert told.startswith("Tool: search\nDescription: Search the web.\n")
    assert json.dumps(TOOLS[1].parameters) in told


def call(call_id: str, name: str, arguments: str) -> ToolCallPart:
    return ToolCallPart(id=call_id, name=name, arguments=arguments)


def told(messages: Sequence[ChatMessage]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in transcribed(messages)]


def test_conversation_is_told_in_words() -> None:
    messages = [
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="2 * 3?"),
        ChatMessage(role="assistant", content=[ReasoningPart(text="Easy."), call("1", "multiply", '{"a": 2, "b": 3}')]),
        ChatMessage(role="tool", content=[ToolResultPart(call_id="1", name="multiply", content="6")]),
        ChatMessage(role="assistant", content=[ReasoningPart(text="Known."), TextPart(text="Six.")]),
    ]
    assert told(messages) == [
        ("system", "Be brief."),
        ("user", "2 * 3?"),
        ("assistant", 'Thought: Easy.\nAction: multiply\nAction Input: {"a": 2, "b": 3}'),
        ("user", "Observation: 6"),
        ("assistant", "Thought: Known.\nAnswer: Six."),
    ]
    assert [message.id for message in transcribed(messages)] == [message.id for message in messages]


def test_results_of_several_calls_name_their_tools() -> None:
    calls = [call("1", "now", ""), call("2", "search", '{"query": "x"}')]
    results = [
        ToolResultPart(call_id="1", name="now", content="noon"),
        ToolResultPart(call_id="2", name="search", content="y"),
    ]
    assert told([ChatMessage(role="assistant", content=calls), ChatMessage(role="tool", content=results)]) == [
        ("assistant", 'Action: now\nAction Input: {}\nAction: search\nAction Input: {"query": "x"}'),
        ("user", "Observation: the result of now:\nnoon\n\nObservation: the result of search:\ny"),
    ]


def test_what_a_model_with_tool_calls_said_beside_them_is_told_as_a_thought() -> None:
    message = ChatMessage(role="assistant", content=[TextPart(text="I will look."), call("1", "now", "{}")])
    assert told([message]) == [("assistant", "Thought: I will look.\nAction: now\nAction Input: {}")]


def test_what_could_not_be_read_is_told_as_it_was() -> None:
    message = ChatMessage(role="assistant", content="Thought: hm")
    assert told([message]) == [("assistant", "Thought: hm")]


def test_refusals_are_told_as_answers() -> None:
    assert told([ChatMessage(role="assistant", content=[RefusalPart(text="No.")])]) == [("assistant", "Answer: No.")]


def test_user_and_model_take_turns_and_pictures_stay() -> None:
    picture = ImagePart(url="https://example.com/a.png")
    messages = [
        ChatMessage(role="tool", content=[ToolResultPart(call_id="1", name="now", content="noon")]),
        ChatMessage(role="user", content=[TextPart(text="And this?"), picture]),
    ]
    (message,) = transcribed(messages)
    assert (message.role, message.text) == ("user", "Observation: noon\n\nAnd this?")
    assert message.content[-1] == picture


READ_AGAIN = [
    output for output in OUTPUTS if not output["expect"]["unreadable"] and "Action:" not in output["expect"]["thought"]
]
"""All but those with thoughts in which a marker begins a line: nothing but a markup tells that it is none."""


@pytest.mark.parametrize("output", READ_AGAIN, ids=lambda output: output["id"])
def test_what_was_read_and_told_again_is_read_alike(output: dict[str, Any]) -> None:
    found = read_reasoning(output["text"], TOOLS)
    parts: list[AnyPart] = [
        *([ReasoningPart(text=found.thought)] if found.thought else []),
        *(call(str(number), each.name, each.arguments) for number, each in enumerate(found.actions)),
        *([TextPart(text=found.answer)] if found.answer else []),
    ]
    (again,) = transcribed([ChatMessage(role="assistant", content=parts)])
    assert read_reasoning(again.text, TOOLS) == Reasoning(found.thought, found.actions, found.answer)


def test_a_final_answer_may_stand_behind_the_thought_in_its_line() -> None:
    found = read_reasoning("Thought: I know. Final Answer: 42", [])
    assert (found.thought, found.answer) == ("I know.", "42")
