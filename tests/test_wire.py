"""Chat Completions over the wire: what is sent, and what is made of everything that servers send."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_llm import (
    ChatCall,
    ChatMessage,
    ImagePart,
    LLMResponseError,
    ReasoningPart,
    RefusalPart,
    Reply,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
    Usage,
)
from agentflow_llm.messages import AnyPart
from agentflow_llm.responses_wire import render_input
from agentflow_llm.responses_wire import render_request as render_responses
from agentflow_llm.serving import chat_body, read_request
from agentflow_llm.wire import read_reply, read_usage, render_messages, render_request

CALL = ToolCallPart(id="c1", name="search", arguments='{"q": 1}')
WIRED = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q": 1}'}}


def reply(message: Any, **more: Any) -> Reply:
    return read_reply({"choices": [{"message": message}], **more})


def calls(*said: Any) -> list[ToolCallPart]:
    return reply({"tool_calls": list(said)}).tool_calls


def test_request_has_what_was_asked_for_and_nothing_else() -> None:
    assert render_request(ChatCall("p", "m", [ChatMessage(role="user", content="Hi")])) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
    }


def test_tools_parameters_and_extra_fields_are_sent() -> None:
    search = ToolDefinition(name="search", description="Finds.")
    parameters = {"tool_choice": "search", "temperature": 0, "max_tokens": 9, "stop": ["X"], "seed": 1}
    body = render_request(
        ChatCall("p", "m", [], [search, ToolDefinition(name="other")], parameters, {"reasoning_effort": "low"}),
        max_tokens_as="max_completion_tokens",
    )
    empty = {"type": "object", "properties": {}}
    assert body == {
        "model": "m",
        "messages": [],
        "tools": [
            {"type": "function", "function": {"name": "search", "description": "Finds.", "parameters": empty}},
            {"type": "function", "function": {"name": "other", "parameters": empty}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "search"}},
        "temperature": 0,
        "max_completion_tokens": 9,
        "stop": ["X"],
        "seed": 1,
        "reasoning_effort": "low",
    }


def test_how_much_to_think_has_a_name_of_its_own() -> None:
    body = render_request(ChatCall("p", "m", [], parameters={"reasoning": "low"}))
    assert body == {"model": "m", "messages": [], "reasoning_effort": "low"}


PICTURE = ImagePart(url="https://example.org/a.png", detail="low")
PICTURED = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}


def test_pictures_stand_among_the_texts() -> None:
    content: list[AnyPart] = [
        TextPart(text="What is"),
        PICTURE,
        TextPart(text="this?"),
        ImagePart(url="data:,x"),
    ]
    assert render_messages([ChatMessage(role="user", content=content)]) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is"},
                PICTURED,
                {"type": "text", "text": "this?"},
                {"type": "image_url", "image_url": {"url": "data:,x"}},
            ],
        }
    ]


def test_several_texts_are_one() -> None:
    texts = [TextPart(text="a"), TextPart(text="b")]
    assert render_messages([ChatMessage(role="system", content=texts)]) == [{"role": "system", "content": "ab"}]


def test_picture_that_a_tool_gives_is_shown_by_the_user() -> None:
    result = ToolResultPart(call_id="c1", name="draw", content="done")
    assert render_messages([ChatMessage(role="tool", content=[result, PICTURE])]) == [
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"role": "user", "content": [PICTURED]},
    ]


def test_pictures_are_read_from_a_request() -> None:
    message = ChatMessage(role="user", content=[TextPart(text="What is this?"), PICTURE])
    (read,), _ = read_request({"messages": render_messages([message])})
    assert read.content == message.content


THOUGHT: list[AnyPart] = [ReasoningPart(text="Hm"), ReasoningPart(text="", id="c1", encrypted="sealed"), CALL]


@pytest.mark.parametrize(
    ("provider", "rendered"),
    [
        ("openai", {"role": "assistant", "tool_calls": [WIRED]}),
        ("deepseek", {"role": "assistant", "tool_calls": [WIRED], "reasoning_content": "Hm"}),
        (
            "gcp.gemini",
            {
                "role": "assistant",
                "tool_calls": [{**WIRED, "extra_content": {"google": {"thought_signature": "sealed"}}}],
            },
        ),
    ],
)
def test_thoughts_that_led_to_calls_go_back_to_those_who_want_them(provider: str, rendered: Any) -> None:
    assert render_messages([ChatMessage(role="assistant", content=THOUGHT)], provider) == [rendered]
    said = ChatMessage(role="assistant", content=[ReasoningPart(text="Hm"), TextPart(text="Hi")])
    assert render_messages([said], provider) == [{"role": "assistant", "content": "Hi"}]


def test_signature_of_a_call_is_kept() -> None:
    (message,) = render_messages([ChatMessage(role="assistant", content=THOUGHT)], "gcp.gemini")
    read = reply({"reasoning_content": "Hm", **message})
    assert read.message.content == (THOUGHT[1], THOUGHT[0], CALL)


def test_call_in_the_old_form_is_read() -> None:
    (call,) = reply({"content": None, "function_call": {"name": "f", "arguments": "{}"}}).tool_calls
    assert (call.name, call.arguments) == ("f", "{}")
    assert call.id.startswith("call_")


def test_thoughts_that_only_the_total_counts_are_output() -> None:
    usage = read_usage({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109})
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (35, 74, 109)
    assert read_usage({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 0}).output_tokens == 12


def test_usage_is_found_wherever_it_stands() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    choice: dict[str, Any] = {"message": {"content": "Hi"}}
    bodies: list[dict[str, Any]] = [
        {"choices": [choice], "usage": usage},
        {"choices": [choice], "x_groq": {"usage": usage}},
        {"choices": [{**choice, "usage": usage}]},
    ]
    assert [read_reply(body).usage.total_tokens for body in bodies] == [3, 3, 3]


def test_choice_among_no_tools_is_not_sent() -> None:
    assert "tool_choice" not in render_request(ChatCall("p", "m", [], (), {"tool_choice": "none"}))


def test_parts_become_the_messages_that_servers_know() -> None:
    messages = [
        ChatMessage(role="assistant", content=(ReasoningPart(text="hm"), TextPart(text="a"), TextPart(text="b"), CALL)),
        ChatMessage(role="assistant", content=(CALL,)),
        ChatMessage(role="assistant", content=(RefusalPart(text="no"),)),
        ChatMessage(
            role="tool",
            content=(
                ToolResultPart(call_id="c1", name="search", content="one"),
                ToolResultPart(call_id="c2", name="search", content="two", outcome="error"),
            ),
        ),
        ChatMessage(role="assistant"),
    ]
    assert render_messages(messages) == [
        {"role": "assistant", "content": "ab", "tool_calls": [WIRED]},
        {"role": "assistant", "tool_calls": [WIRED]},
        {"role": "assistant", "content": "no"},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "assistant", "content": ""},
    ]


def test_reply_is_read() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    got = read_reply(
        {
            "id": "r1",
            "model": "m-2",
            "choices": [{"message": {"content": "Hi", "tool_calls": [WIRED]}, "finish_reason": "tool_calls"}],
            "usage": usage,
        }
    )
    assert got == Reply(
        message=got.message,
        finish_reason="tool_calls",
        usage=Usage(
            input_tokens=9, output_tokens=5, cached_tokens=4, cache_write_tokens=1, reasoning_tokens=3, http_requests=1
        ),
        model="m-2",
        id="r1",
    )
    assert got.message.content == (TextPart(text="Hi"), CALL)


@pytest.mark.parametrize("ident", ["", None, 7])
def test_missing_id_of_a_call_is_minted(ident: object) -> None:
    one, two = calls({**WIRED, "id": ident}, {**WIRED, "id": ident})
    assert one.id.startswith("call_")
    assert one.id != two.id


def test_id_that_two_calls_share_is_replaced_in_the_second() -> None:
    one, two = calls(WIRED, WIRED)
    assert one.id == "c1" != two.id


@pytest.mark.parametrize(
    ("said", "read"), [(None, "{}"), ("", "{}"), ({"q": "ä"}, '{"q": "ä"}'), ("{not json", "{not json")]
)
def test_arguments_are_json_text_as_the_model_wrote_it(said: object, read: str) -> None:
    assert calls({"type": None, "function": {"name": "f", "arguments": said}})[0].arguments == read


def test_call_without_a_name_is_no_reply() -> None:
    with pytest.raises(LLMResponseError, match="does not name"):
        calls({"id": "c1", "function": {"arguments": "{}"}})


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": None, "tool_calls": None}, ()),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, (TextPart(text="ab"),)),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"text": "a"}]},
            (ReasoningPart(text="hm"), TextPart(text="a")),
        ),
        (
            {"reasoning_content": "hm", "reasoning": "hm", "content": "a"},
            (ReasoningPart(text="hm"), TextPart(text="a")),
        ),
        ({"reasoning": "hm", "content": ""}, (ReasoningPart(text="hm"),)),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, (ReasoningPart(text="hm"),)),
        ({"content": None, "refusal": "no"}, (RefusalPart(text="no"),)),
    ],
)
def test_accents_of_servers_are_understood(message: dict[str, Any], parts: tuple[object, ...]) -> None:
    assert reply(message).message.content == parts


@pytest.mark.parametrize("reason", ["", None])
def test_empty_reason_is_none(reason: object) -> None:
    assert read_reply({"choices": [{"message": {}, "finish_reason": reason}]}).finish_reason is None


def test_first_of_several_choices_is_the_reply() -> None:
    assert read_reply({"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}).text == "a"


@pytest.mark.parametrize("body", [None, [], "text", {}, {"choices": None}, {"choices": []}, {"choices": [{}]}])
def test_body_without_a_message_is_no_reply(body: object) -> None:
    with pytest.raises(LLMResponseError, match="no message"):
        read_reply(body)


@pytest.mark.parametrize("said", [None, {}, "lots", {"prompt_tokens": None, "prompt_tokens_details": None}])
def test_usage_that_is_not_told_is_unknown_not_zero(said: object) -> None:
    assert read_usage(said) == Usage(http_requests=1)


def test_cache_hits_of_deepseek_are_counted() -> None:
    assert read_usage({"prompt_cache_hit_tokens": 3}).cached_tokens == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "id", "name"]), inner),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "content": JSON,
        "refusal": JSON,
        "reasoning": JSON,
        "tool_calls": JSON | st.lists(st.fixed_dictionaries({"id": JSON, "function": JSON})),
    },
)


@given(
    st.fixed_dictionaries({}, optional={"choices": JSON | st.lists(st.fixed_dictionaries({"message": MESSAGE}))}), JSON
)
def test_any_body_is_a_reply_or_none(body: dict[str, Any], usage: Any) -> None:
    try:
        got = read_reply({**body, "usage": usage})
    except LLMResponseError:
        return
    assert len({call.id for call in got.tool_calls}) == len(got.tool_calls)
    json.dumps(render_messages([got.message]))


def called(name: str, ident: str) -> list[ChatMessage]:
    call = ToolCallPart(id=ident, name=name, arguments="{}")
    result = ToolResultPart(call_id=ident, name=name, content="one")
    return [ChatMessage(role="assistant", content=(call,)), ChatMessage(role="tool", content=(result,))]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("search", "search"),
        ("multi_tool_use.parallel", "multi_tool_use_parallel"),
        ("functions.look up", "functions_look_up"),
        ("", "unknown"),
        ("n" * 65, "n" * 64),
        ("suche\udcff", "suche_"),
        ("maths.add", "maths.add"),
    ],
)
def test_servers_take_back_what_models_call_tools(name: str, sent: str) -> None:
    call = ChatCall("p", "m", called(name, "c1"), [ToolDefinition(name="maths.add")])
    (calls, _) = render_request(call)["messages"]
    assert calls["tool_calls"][0]["function"]["name"] == sent
    (item, _) = render_responses(call, store=False)["input"]
    assert item["name"] == sent


def test_servers_take_back_the_ids_that_others_made() -> None:
    longest, long, other = "c" * 40, "c" * 64, "d" * 65
    short = render_messages([m for ident in (longest, long, other, "\udcff") for m in called("search", ident)])
    calls = [message["tool_calls"][0]["id"] for message in short[::2]]
    assert calls == [message["tool_call_id"] for message in short[1::2]]
    assert calls[0] == longest
    assert len(set(calls)) == 4
    assert all(re.fullmatch("call_[0-9a-f]{32}", ident) for ident in calls[1:])
    items = render_input([m for ident in (longest, long, other) for m in called("search", ident)])
    assert [item["call_id"] for item in items] == [longest] * 2 + [long] * 2 + [calls[2]] * 2


def test_an_id_that_holds_what_a_call_is_signed_with_stays_as_it_is() -> None:
    ident = f"call_1__thought__{'x' * 100}"
    assert [m.get("tool_call_id") for m in render_messages(called("search", ident))] == [None, ident]


def test_a_signature_goes_with_its_call_where_the_id_is_too_long() -> None:
    ident = "c" * 100
    signed = (ReasoningPart(text="", id=ident, encrypted="s1"), ToolCallPart(id=ident, name="n", arguments="{}"))
    (message,) = render_messages([ChatMessage(role="assistant", content=signed)], "gcp.gemini")
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s1"}}


def test_server_s_side_says_the_same() -> None:
    messages = [
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="Hi"),
        ChatMessage(role="assistant", content=(TextPart(text="Well"), CALL)),
        ChatMessage(role="tool", content=(ToolResultPart(call_id="c1", name="search", content="one"),)),
    ]
    tool = ToolDefinition(name="search", description="Finds.", parameters={"type": "object", "properties": {"q": {}}})
    read, tools = read_request(render_request(ChatCall("p", "m", messages, [tool])))
    assert [(m.role, m.content) for m in read] == [(m.role, m.content) for m in messages]
    assert tools == [tool]


def test_developer_is_a_system() -> None:
    (message,), _ = read_request({"messages": [{"role": "developer", "content": "Be brief."}]})
    assert message.role == "system"


@pytest.mark.parametrize("content", [(TextPart(text="a"), CALL), (CALL,), (RefusalPart(text="no"),), ()])
def test_reply_that_is_served_is_read_as_the_same(content: Any) -> None:
    usage = Usage(input_tokens=1, output_tokens=2, http_requests=1)
    said = Reply(message=ChatMessage(role="assistant", content=content), finish_reason="stop", usage=usage)
    got = read_reply(chat_body(said, model="m"))
    assert (got.message.content, got.finish_reason, got.usage, got.model) == (content, "stop", usage, "m")


def test_half_of_a_surrogate_pair_never_goes_over_the_wire() -> None:
    messages = [
        ChatMessage(role="user", content="a \udcff"),
        ChatMessage(
            role="assistant",
            content=[TextPart(text="b \udcff"), ToolCallPart(id="1", name="n", arguments='{"a": "\udcff"}')],
        ),
        ChatMessage(role="tool", content=[ToolResultPart(call_id="1", name="n", content="c \udcff")]),
    ]
    call = ChatCall("p", "m", messages, [ToolDefinition(name="n", description="d \udcff")])
    text = json.dumps(render_request(call), ensure_ascii=False)
    text.encode()
    assert text.count("\ufffd") == 5


@given(st.text(st.characters(exclude_categories=[])))
def test_text_goes_over_the_wire_as_it_is_where_it_can(text: str) -> None:
    [rendered] = render_messages([ChatMessage(role="user", content=text)])
    sent = rendered["content"].encode().decode()
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert sent == text


def test_half_of_a_surrogate_pair_in_a_reply_is_replaced() -> None:
    called = {"id": "1", "function": {"name": "n", "arguments": '"\udcff"'}}
    for content in ("a \udcff", [{"type": "text", "text": "a \udcff"}]):
        reply = read_reply({"choices": [{"message": {"content": content, "tool_calls": [called]}}]})
        assert (reply.text, reply.tool_calls[0].arguments) == ("a \ufffd", '"\ufffd"')
        assert Reply.model_validate_json(reply.model_dump_json()) == reply
