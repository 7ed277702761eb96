"""What all chat models have in common: the options of a call, and answers of a given shape."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Unpack

import pytest
from pydantic import BaseModel

from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record
from agentflow_llm import (
    BaseChatModel,
    ChatCall,
    ChatMessage,
    Delta,
    LLMBadRequestError,
    LLMOutputError,
    LLMResponseError,
    LLMServerError,
    RefusalPart,
    Reply,
    ScriptedModel,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    Usage,
)
from agentflow_llm.model import ModelOptions
from flaky import HELLO, Flaky, finish

SEARCH = ToolDefinition(name="search")
CALL = ToolCallPart(id="1", name="search", arguments="{}")


class City(BaseModel):
    name: str
    people: int


BERN = '{"name": "Bern", "people": 137000}'
SCHEMA = {"title": "City", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


class Saying(BaseChatModel):
    """Answers with one reply after the other, each of which counts one request and ten tokens."""

    def __init__(self, *replies: str | Reply, **options: Unpack[ModelOptions]) -> None:
        super().__init__("saying", "test", **options)
        self.replies = list(replies)
        self.asked: list[ChatCall] = []

    async def answer(self, call: ChatCall) -> Reply:
        self.asked.append(call)
        said = self.replies.pop(0)
        if isinstance(said, Reply):
            return said
        message = ChatMessage(role="assistant", content=said)
        return Reply(message=message, usage=Usage(output_tokens=10, http_requests=1), finish_reason="stop")


async def ask(model: BaseChatModel, *, streamed: bool, **options: Any) -> Reply:
    return await (model.stream(HELLO, **options).read() if streamed else model.chat(HELLO, **options))


async def test_options_are_told_apart() -> None:
    model = Saying("Hi")
    with record() as seen:
        await model.chat(
            HELLO,
            tools=[SEARCH],
            tool_choice="auto",
            temperature=0.0,
            max_tokens=5,
            stop="END",
            seed=0,
            reasoning="low",
            extra={"user": "u"},
            timeout=9,
        )
    (call,) = model.asked
    assert call.messages == (*HELLO,)
    assert call.tools == (SEARCH,)
    assert call.extra == {"user": "u"}
    assert call.parameters == {
        "tool_choice": "auto",
        "temperature": 0.0,
        "max_tokens": 5,
        "stop": ["END"],
        "seed": 0,
        "reasoning": "low",
    }
    assert seen.operations[0].subject.parameters == call.parameters


async def test_none_is_the_same_as_left_out() -> None:
    model = Saying("Hi")
    names = (
        "tools",
        "tool_choice",
        "output",
        "temperature",
        "max_tokens",
        "stop",
        "seed",
        "reasoning",
        "extra",
        "timeout",
    )
    options: Any = dict.fromkeys(names)
    await model.chat(HELLO, **options)
    (call,) = model.asked
    assert (call.parameters, [*call.tools], call.extra, call.output, call.deadline) == ({}, [], {}, None, None)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("temprature", r"temprature= is no option of a call. Did you mean temperature=\?"),
        ("max_token", r"Did you mean max_tokens=\?"),
        ("max_completion_tokens", r"Did you mean max_tokens=\?"),
        ("response_format", r"of a call. There are .* goes into extra=\{'response_format': ...\}"),
        ("top_p", r"of a call. There are .* goes into extra=\{'top_p': ...\}"),
    ],
)
async def test_unknown_option_is_refused_with_what_was_meant(option: str, told: str) -> None:
    options: Any = {option: 1}
    with pytest.raises(LLMBadRequestError, match=told):
        await Saying().chat(HELLO, **options)
    with pytest.raises(LLMBadRequestError, match=told):
        Saying().stream(HELLO, **options)


@pytest.mark.parametrize("streamed", [False, True])
async def test_options_of_the_constructor_are_those_of_each_call(*, streamed: bool) -> None:
    model = Saying("Hi", "Hi", temperature=0.1, max_tokens=5, stop="END", seed=0, reasoning="low", extra={"user": "u"})
    expected = {"temperature": 0.1, "max_tokens": 5, "stop": ["END"], "seed": 0, "reasoning": "low"}
    with record() as seen:
        await ask(model, streamed=streamed)
        await ask(model, streamed=streamed, tools=[SEARCH], tool_choice="auto")
    first, second = model.asked
    assert (first.parameters, first.extra) == (expected, {"user": "u"})
    assert (second.parameters, second.extra) == ({**expected, "tool_choice": "auto"}, {"user": "u"})
    assert [op.subject.parameters for op in seen.operations] == [first.parameters, second.parameters]


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_a_call_says_takes_the_place_of_the_constructor_s(*, streamed: bool) -> None:
    model = Saying("Hi", "Hi", "Hi", temperature=0.1, seed=7, extra={"user": "u", "top_p": 0.5})
    await ask(model, streamed=streamed, temperature=0.0, extra={"top_p": 0.9, "n": 1})
    await ask(model, streamed=streamed, temperature=None, extra=None)
    await ask(model, streamed=streamed, extra={"user": None})
    assert [(call.parameters, call.extra) for call in model.asked] == [
        ({"temperature": 0.0, "seed": 7}, {"user": "u", "top_p": 0.9, "n": 1}),
        ({"temperature": 0.1, "seed": 7}, {"user": "u", "top_p": 0.5}),
        ({"temperature": 0.1, "seed": 7}, {"user": None, "top_p": 0.5}),
    ]


async def test_field_that_is_an_option_by_another_name_gives_way_to_it_and_it_to_the_field() -> None:
    fields = {"reasoning_effort": "low", "seed": 1, "text": {"verbosity": "low"}, "reasoning": {"summary": "auto"}}
    model = Saying("Hi", "Hi", max_tokens=5, extra=fields)
    await model.chat(HELLO, reasoning="high", seed=2)
    await model.chat(HELLO, extra={"max_completion_tokens": 9, "reasoning_effort": "high"})
    first, second = model.asked
    assert first.parameters == {"max_tokens": 5, "reasoning": "high", "seed": 2}
    assert first.extra == {"text": {"verbosity": "low"}, "reasoning": {"summary": "auto"}}
    assert (second.parameters, second.extra) == ({}, {**fields, "max_completion_tokens": 9, "reasoning_effort": "high"})


async def test_repair_and_completions_are_asked_with_the_options_of_the_constructor() -> None:
    model = Saying("{}", BERN, "Hi", "Hi", temperature=0.1)
    await model.chat(HELLO, output=City)
    await model.acomplete("Hello")
    assert [part.text async for part in await model.astream_complete("Hello")] == ["Hi"]
    assert [call.parameters for call in model.asked] == [{"temperature": 0.1}] * 4


async def test_options_of_the_constructor_stay_as_they_were_given() -> None:
    extra = {"user": "u"}
    model = Saying("Hi", extra=extra, stop="END", seed=None)
    extra["user"] = "other"
    await model.chat(HELLO)
    assert model.defaults == {"stop": ["END"], "extra": {"user": "u"}}
    assert (model.asked[0].parameters, model.asked[0].extra) == ({"stop": ["END"]}, {"user": "u"})


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("temprature", r"Saying has no option temprature=. Did you mean temperature=\?"),
        ("max_completion_tokens", r"Did you mean max_tokens=\?"),
        ("model_kwargs", r"Did you mean extra=\?"),
        ("top_p", r"has no option top_p=. There are .* goes into extra=\{'top_p': ...\}"),
        ("tools", r"Saying\(tools=...\): each call says that. Write chat\(messages, tools=...\)"),
        ("tool_choice", "each call says that"),
        ("output", "each call says that"),
        ("extra", "extra=1 is no mapping"),
    ],
)
def test_option_that_a_constructor_cannot_take_is_refused_with_what_was_meant(option: str, told: str) -> None:
    options: Any = {option: 1}
    with pytest.raises(LLMBadRequestError, match=told):
        Saying(**options)


@pytest.mark.parametrize("streamed", [False, True])
async def test_output_is_the_object_that_was_asked_for(*, streamed: bool) -> None:
    reply = await ask(Saying(f"Here it is:\n```json\n{BERN}\n```"), streamed=streamed, output=City)
    assert reply.output == City(name="Bern", people=137000)


@pytest.mark.parametrize("streamed", [False, True])
async def test_output_of_a_schema_is_plain_json(*, streamed: bool) -> None:
    reply = await ask(Saying(BERN), streamed=streamed, output=SCHEMA)
    assert reply.output == {"name": "Bern", "people": 137000}


async def test_output_that_is_not_valid_is_corrected_once() -> None:
    model = Saying('{"name": "Bern"}', BERN)
    with record() as seen:
        reply = await model.chat(HELLO, output=City)
    assert reply.output == City(name="Bern", people=137000)
    assert reply.usage == Usage(output_tokens=20, http_requests=2)
    assert [message.role for message in model.asked[1].messages] == ["user", "assistant", "user"]
    assert "people: Field required" in model.asked[1].messages[-1].text
    (op,) = seen.operations
    (note,) = seen.notes[op.ref.id]
    assert (note.name, note.facts["attempt"], type(note.facts["error"])) == ("repair", 1, LLMOutputError)
    assert op.result is reply
    assert op.subject.messages == (*HELLO,)


async def test_output_that_stays_invalid_is_an_error_with_what_was_said() -> None:
    model = Saying("nothing", "still nothing")
    with pytest.raises(LLMOutputError, match="no JSON object") as caught:
        await model.chat(HELLO, output=City)
    assert caught.value.text == "still nothing"
    assert caught.value.http_requests == 2


async def test_correction_that_fails_counts_all_requests() -> None:
    class Failing(Saying):
        async def answer(self, call: ChatCall) -> Reply:
            if self.asked:
                error = LLMServerError("down")
                error.http_requests = 1
                raise error
            return await super().answer(call)

    with pytest.raises(LLMServerError) as caught:
        await Failing("nothing").chat(HELLO, output=City)
    assert caught.value.http_requests == 2


async def test_stream_is_not_repaired() -> None:
    model = Saying("nothing", BERN)
    with record() as seen, pytest.raises(LLMOutputError) as caught:
        await model.stream(HELLO, output=City).read()
    assert (len(model.asked), caught.value.http_requests) == (1, 1)
    (op,) = seen.operations
    assert (op.outcome, op.result.text) == ("error", "nothing")


@pytest.mark.parametrize("streamed", [False, True])
async def test_output_that_was_cut_is_not_repaired_and_says_why(*, streamed: bool) -> None:
    cut = Reply(message=ChatMessage(role="assistant", content='{"name": "Be'), finish_reason="length")
    model = Saying(cut)
    with pytest.raises(LLMOutputError, match=r"cut before .* Give it more room with max_tokens=") as caught:
        await ask(model, streamed=streamed, output=City)
    assert caught.value.text == '{"name": "Be'


@pytest.mark.parametrize("part", [CALL, RefusalPart(text="I would rather not.")])
@pytest.mark.parametrize("streamed", [False, True])
async def test_tool_call_or_refusal_is_no_failed_output(part: Any, *, streamed: bool) -> None:
    said = Reply(message=ChatMessage(role="assistant", content=[TextPart(text="Wait."), part]))
    reply = await ask(Saying(said), streamed=streamed, output=City, tools=[SEARCH])
    assert reply.output is None
    assert reply.message.content[1] == part


@pytest.mark.parametrize("output", [City(name="x", people=1), "City", int, {"type": "array"}])
async def test_output_that_is_no_shape_of_an_object_is_refused(output: Any) -> None:
    with pytest.raises(LLMBadRequestError):
        await Saying().chat(HELLO, output=output)


def test_output_is_no_part_of_the_reply_s_json() -> None:
    reply = Reply(message=ChatMessage(role="assistant", content=BERN), output=City(name="Bern", people=1))
    assert "output" not in reply.model_dump(mode="json")


async def test_answer_that_comes_at_once_is_streamed_in_pieces() -> None:
    model = ScriptedModel([["Let me  look.\n", CALL]])
    stream = model.stream(HELLO, tools=[SEARCH])
    pieces = [delta async for delta in stream]
    assert "".join(piece.text for piece in pieces if piece.type == "text") == "Let me  look.\n"
    assert len([piece for piece in pieces if piece.type == "text"]) == 3
    assert (pieces[-1].type, pieces[-1].id, pieces[-1].name, pieces[-1].text) == ("tool_call", "1", "search", "{}")
    assert stream.reply.tool_calls == [CALL]


async def test_stream_that_only_has_a_reply_is_a_stream() -> None:
    class Mute(Flaky):
        async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
            yield self._reply()

    with record() as seen:
        stream = Mute().stream(HELLO)
        assert [delta async for delta in stream] == []
    assert stream.reply.text
    assert seen.operations[0].outcome == "ok"


@pytest.mark.parametrize("observed", [True, False])
async def test_stream_that_brings_nothing_has_no_reply(*, observed: bool) -> None:
    class Empty(Flaky):
        async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
            nothing: Sequence[Delta] = ()
            for item in nothing:
                yield item

    with record(None if observed else frozenset()) as seen:
        stream = Empty().stream(HELLO)
        assert [delta async for delta in stream] == []
    assert (seen.open(), len(seen.operations)) == ([], int(observed))
    with pytest.raises(LLMResponseError, match=r"ended without a Reply: deltas\(\) yields it last"):
        _ = stream.reply


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ("hello", r"not 'hello'. Write chat\(\[ChatMessage\(role='user', content='hello'\)\]\)"),
        (HELLO[0], r"not a single one. Write chat\(\[message\]\)"),
        ([{"role": "user", "content": "x"}], r"not {.*'role': 'user'.*}. Write chat\(\[ChatMessage\("),
        ([*HELLO, None], "not None. Write chat"),
        ([], r"one at the least, not \[\]. Write chat"),
        (None, "not None. Write chat"),
        (["x" * 9999], r"not 'x+\.\.\.x+'. Write chat"),
    ],
)
async def test_what_are_no_messages_is_refused(messages: Any, told: str) -> None:
    model = Flaky()
    with pytest.raises(LLMBadRequestError, match=told):
        await model.chat(messages)
    with pytest.raises(LLMBadRequestError, match=told):
        model.stream(messages)
    assert model.asked == []


@pytest.mark.parametrize("tools", [len, [len], SEARCH, [{"name": "search"}], {"search": SEARCH}, "search"])
async def test_what_are_no_tools_is_refused(tools: Any) -> None:
    with pytest.raises(LLMBadRequestError, match=r"Write tools=\[ToolDefinition\(name='search'"):
        await Flaky().chat(HELLO, tools=tools)


@pytest.mark.parametrize("extra", [[1], "a", []])
async def test_extra_that_has_no_names_is_refused(extra: Any) -> None:
    with pytest.raises(LLMBadRequestError, match=r"extra=.* is no mapping. Write extra=\{'name of a field': ...\}"):
        await Flaky().chat(HELLO, extra=extra)


async def test_call_is_what_was_said_when_it_was_made() -> None:
    class Changing(Flaky):
        async def answer(self, call: ChatCall) -> Reply:
            said.clear()
            tools.clear()
            return await super().answer(call)

    said, tools = [*HELLO], [SEARCH]
    model = Changing(LLMServerError("down"))
    with use_clock(FakeClock()) as clock:
        await finish(clock, lambda: model.chat(said, tools=tools))
    assert [(call.messages, call.tools) for call in model.asked] == [((*HELLO,), (SEARCH,))] * 2


async def test_messages_may_come_from_anywhere_and_be_of_a_class_of_one_s_own() -> None:
    class Mine(ChatMessage):
        pass

    model = Flaky()
    generated: Any = (Mine(role="user", content=(TextPart(text=text),)) for text in "ab")
    await model.chat(generated)
    assert [message.text for message in model.asked[0].messages] == ["a", "b"]
