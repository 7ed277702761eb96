"""A model without a language model: which tools it calls with what, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.testing import record
from agentflow_llm import ChatMessage, OfflineModel, Reply, ToolCallPart, ToolDefinition, ToolResultPart, Usage
from agentflow_llm.messages import ToolOutcome


def tool(
    name: str, description: str = "", *, optional: dict[str, Any] | None = None, **required: Any
) -> ToolDefinition:
    properties = {
        key: {"type": kind} if isinstance(kind, str) else kind for key, kind in {**required, **(optional or {})}.items()
    }
    return ToolDefinition(
        name=name,
        description=description,
        parameters={"type": "object", "properties": properties, "required": list(required)},
    )


SEARCH = tool("search_documents", "Find passages about something.", query="string", optional={"limit": "integer"})
READ = tool("read_document", "The whole section that a passage of search_documents is from.", source="string")
PASSAGES = [
    {"source": "c.md:3", "heading": "Cats", "text": "Cats sleep.", "score": 1.5},
    {"source": "a.md:1", "heading": "Waiting", "text": "A step waits for a human with wait_for_event.", "score": 9},
    {"source": "b.md:2", "heading": "Waiting", "text": "It is called by a hum", "score": 5},
]
SECTIONS = {
    "a.md:1": "A step waits for a human with wait_for_event.\n\nDogs bark.",
    "b.md:2": "It is called by a human.",
}


async def ask(question: str, *tools: ToolDefinition, **more: Any) -> Reply:
    return await OfflineModel().chat([ChatMessage(role="user", content=question)], tools=tools, **more)


async def calls(question: str, *tools: ToolDefinition, **more: Any) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in (await ask(question, *tools, **more)).tool_calls]


async def talk(question: str, tools: list[ToolDefinition], run: Callable[[ToolCallPart], str]) -> list[Reply]:
    """Go on until it answers, with the results that `run` gives."""
    messages, replies = [ChatMessage(role="user", content=question)], list[Reply]()
    while not replies or replies[-1].tool_calls:
        assert len(replies) < 9, "it goes on for ever"
        reply = await OfflineModel().chat(messages, tools=tools)
        replies.append(reply)
        results = [ToolResultPart(call_id=call.id, name=call.name, content=run(call)) for call in reply.tool_calls]
        messages += [reply.message, *([ChatMessage(role="tool", content=results)] if results else ())]
    return replies


async def after(
    question: str, content: str, outcome: ToolOutcome = "ok", name: str = "search", **arguments: Any
) -> str:
    """What it answers when a tool has given this."""
    call = ToolCallPart(id="1", name=name, arguments=json.dumps(arguments or {"query": question}))
    reply = await OfflineModel().chat(
        [
            ChatMessage(role="user", content=question),
            ChatMessage(role="assistant", content=[call]),
            ChatMessage(
                role="tool", content=[ToolResultPart(call_id="1", name=name, content=content, outcome=outcome)]
            ),
        ]
    )
    return reply.text


def documents(call: ToolCallPart) -> str:
    given_arguments = json.loads(call.arguments)
    return json.dumps(PASSAGES) if call.name == "search_documents" else SECTIONS[given_arguments["source"]]


async def test_searches_then_reads_the_best_two_then_answers_with_sources() -> None:
    question = "How does a step wait for a human?"
    search, read, answer = await talk(question, [READ, SEARCH], documents)
    assert [(call.name, json.loads(call.arguments)) for call in search.tool_calls] == [
        ("search_documents", {"query": question})
    ]
    assert [(call.name, json.loads(call.arguments)) for call in read.tool_calls] == [
        ("read_document", {"source": "a.md:1"}),
        ("read_document", {"source": "b.md:2"}),
    ]
    assert len({call.id for reply in (search, read) for call in reply.tool_calls}) == 3
    assert answer.text.startswith("A step waits for a human with wait_for_event. [a.md:1]")
    assert "hum [" not in answer.text
    assert "Dogs" not in answer.text


async def test_says_what_it_is() -> None:
    with record() as seen:
        reply = await ask("Hello?")
    assert reply.text.endswith("(offline: no language model was asked; these are quotations, chosen by their words)")
    assert (reply.model, reply.finish_reason, reply.usage) == ("offline", "stop", Usage())
    assert seen.tree() == "chat offline"


async def test_admits_that_it_cannot_answer() -> None:
    assert (await ask("Who won the cup?")).text.startswith(
        "I cannot answer this. Nothing that I was given speaks of it"
    )
    assert (await after("Who won the cup?", json.dumps(PASSAGES))).startswith(
        "I cannot answer this. Nothing that the tools"
    )
    assert (await after("Who won the cup?", "[]")).startswith("I cannot answer this.")


async def test_text_above_the_question_is_what_it_answers_from() -> None:
    text = "The fort was built in 1754. It was rebuilt by Smith in 1964. Cats sleep."
    for asked in (f"{text}\n\nWho rebuilt the fort?", f"Context:\n{text}\nQuestion: Who rebuilt the fort?"):
        assert (await ask(asked)).text.startswith("It was rebuilt by Smith in 1964.")


NUMBERED = """Answer from the passages. If they do not hold the answer, say only: It is not there.

[1] forts.md > Forts
The fort was built in 1754. It was rebuilt by Smith in 1964.

It has four towers. Is it [2] years old?

[2] cats.md
Cats sleep sixteen hours a day.

Question: {}"""


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who rebuilt the fort?", "It was rebuilt by Smith in 1964. [1]"),
        ("How many towers does it have?", "It has four towers. [1]"),
        ("Tell me how long cats sleep a day", "Cats sleep sixteen hours a day. [2]"),
        ("Who won the cup?", "It is not there."),
        ("What is the answer that the passages hold?", "It is not there."),
    ],
)
async def test_numbered_passages_are_quoted_with_their_numbers(question: str, answer: str) -> None:
    assert (await ask(NUMBERED.format(question))).text.partition("\n\n")[0] == answer


async def test_numbered_passages_of_one_line_are_read() -> None:
    prompt = (
        "[1] Bolts are kept in the cellar.\n\n[2] Nuts are kept on the roof.\n\nQuestion: Where are the bolts kept?"
    )
    assert "Bolts are kept in the cellar. [1]" in (await ask(prompt)).text


async def test_what_is_to_be_said_otherwise_is_said_where_nothing_can_be_filled_in() -> None:
    schema = {"type": "object", "properties": {"winner": {"type": "string"}}, "required": ["winner"]}
    refusal = (await ask(NUMBERED.format("Who won the cup?"), output=schema)).refusal
    assert refusal is not None
    assert refusal.startswith("It is not there.")


WEATHER = tool("get_weather", "The weather in a city.", city="string")


@pytest.mark.parametrize(
    ("question", "tools", "called"),
    [
        (
            "What's the weather in Seattle and San Francisco today?",
            [WEATHER],
            [("get_weather", {"city": "Seattle"}), ("get_weather", {"city": "San Francisco"})],
        ),
        ("what is the weather in paris", [WEATHER], [("get_weather", {"city": "paris"})]),
        ('How is the weather in "New York"?', [SEARCH, WEATHER], [("get_weather", {"city": "New York"})]),
        ("Why do cats sleep?", [WEATHER, SEARCH], [("search_documents", {"query": "Why do cats sleep?"})]),
        ("Find cats, limit 3", [SEARCH], [("search_documents", {"query": "Find cats, limit 3", "limit": 3})]),
        ("Add 3 and 4.5", [tool("add", a="number", b="number")], [("add", {"a": 3.0, "b": 4.5})]),
        (
            "Show the open tickets",
            [tool("tickets", state={"type": "string", "enum": ["closed", "open"]})],
            [("tickets", {"state": "open"})],
        ),
        ("What time is it?", [tool("get_time", "Tells the time.")], [("get_time", {})]),
        ("Who won the cup?", [WEATHER, READ, tool("add", a="number", b="number")], []),
    ],
)
async def test_tool_is_chosen_by_its_words_and_filled_from_the_question(
    question: str, tools: list[ToolDefinition], called: list[tuple[str, Any]]
) -> None:
    assert await calls(question, *tools) == called


async def test_values_flow_from_one_result_into_the_next_call() -> None:
    population = tool("lookup_population", "The population of a country.", country="string")
    dragons = tool("can_have_dragons", "Whether a population can have dragons.", population="integer")
    results = {"lookup_population": "123124", "can_have_dragons": "true"}
    replies = await talk("Can the country of Crumpet have dragons?", [population, dragons], lambda c: results[c.name])
    assert [[(call.name, json.loads(call.arguments)) for call in reply.tool_calls] for reply in replies] == [
        [("lookup_population", {"country": "Crumpet"})],
        [("can_have_dragons", {"population": 123124})],
        [],
    ]
    assert "can_have_dragons(population=123124): true" in replies[-1].text


async def test_short_result_is_told_as_it_is() -> None:
    text = await after("What's the weather in Paris?", "70 degrees and sunny", name="get_weather", city="Paris")
    assert text.startswith("get_weather(city='Paris'): 70 degrees and sunny\n")


async def test_failure_of_the_only_tool_is_told() -> None:
    assert "search failed: 'disk full'" in await after("Why?", "disk full", "error")


@pytest.mark.parametrize(
    ("choice", "called"), [("none", []), ("required", ["get_weather"]), ("get_weather", ["get_weather"])]
)
async def test_choice_of_a_tool_is_obeyed(choice: str, called: list[str]) -> None:
    found = await calls("Tell me of weather in Paris", WEATHER, SEARCH, tool_choice=choice)
    assert [name for name, _ in found] == called


async def test_only_results_of_the_question_itself_count() -> None:
    add = tool("add", "Add two numbers.", a="integer", b="integer")

    def turn(number: int, a: int, b: int) -> list[ChatMessage]:
        call = ToolCallPart(id=f"call_{number}", name="add", arguments=json.dumps({"a": a, "b": b}))
        return [
            ChatMessage(role="user", content=f"add {a} and {b}"),
            ChatMessage(role="assistant", content=[call]),
            ChatMessage(role="tool", content=[ToolResultPart(call_id=call.id, name="add", content=str(a + b))]),
            ChatMessage(role="assistant", content="It is so."),
        ]

    messages = [*turn(1, 1, 2), *turn(2, 3, 4), ChatMessage(role="user", content="add 3 and 4 again")]
    reply = await OfflineModel().chat(messages, tools=[add])
    [call] = reply.tool_calls
    assert (call.id, json.loads(call.arguments)) == ("call_3", {"a": 3, "b": 4})
    result = ChatMessage(role="tool", content=[ToolResultPart(call_id="call_3", name="add", content="7")])
    reply = await OfflineModel().chat([*messages, reply.message, result], tools=[add])
    assert reply.text.startswith("add(a=3, b=4): 7\n\n")
    reply = await OfflineModel().chat(messages, tools=[])
    assert reply.text.startswith("I cannot answer this.")


NAMES = st.sampled_from(["query", "source", "city", "id", "limit", "text", "score"])
KINDS = st.sampled_from(["string", "integer", "number", "boolean", "array", "object"])
TOOLS = st.lists(
    st.builds(
        lambda n, r: tool(n, "Finds things.", **r),
        st.sampled_from(["find", "read", "ask"]),
        st.dictionaries(NAMES, KINDS),
    ),
    max_size=3,
    unique_by=lambda t: t.name,
)
RESULTS = (
    st.lists(st.dictionaries(NAMES, st.text(max_size=9) | st.integers(0, 9)), max_size=4).map(json.dumps) | st.text()
)


@given(question=st.text(max_size=40), tools=TOOLS, results=st.lists(RESULTS, min_size=1, max_size=3))
async def test_it_always_comes_to_an_end_and_repeats_nothing(
    question: str, tools: list[ToolDefinition], results: list[str]
) -> None:
    made: list[tuple[str, str]] = []

    def run(call: ToolCallPart) -> str:
        made.append((call.name, call.arguments))
        return results[len(made) % len(results)]

    first = await talk(question, tools, run)
    assert len(made) == len(set(made))
    again = await talk(
        question, tools, lambda call: results[(made.index((call.name, call.arguments)) + 1) % len(results)]
    )
    assert [r.message.content for r in again] == [r.message.content for r in first]


async def test_one_word_in_common_is_chance() -> None:
    assert (await after("Who won the world cup in 2022?", '[{"text": "It prints Hello, world."}]')).startswith(
        "I cannot"
    )
    assert (await after("What is it?", '[{"text": "It prints Hello, world."}]')).startswith("I cannot")


async def test_one_word_is_enough_where_the_text_as_a_whole_is_about_the_question() -> None:
    text = "Jacksonville is a city in Florida.\n\nThe county seat of Duval is in it. It is large."
    assert "county seat" in (await ask(f"{text}\n\nIn which county does Jacksonville lie?")).text
    assert (await ask(f"{text}\n\nIn which county did Napoleon die?")).text.startswith("I cannot")


async def test_answer_is_streamed() -> None:
    messages = [ChatMessage(role="user", content="The fort was rebuilt by Smith.\n\nWho rebuilt the fort?")]
    async with OfflineModel().stream(messages) as stream:
        pieces = [delta.text async for delta in stream]
    assert len(pieces) > 6
    assert "".join(pieces) == stream.reply.text == (await OfflineModel().chat(messages)).text
