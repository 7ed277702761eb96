"""How many tokens messages are: estimated, learnt, and counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_llm import (
    ChatMessage,
    ImagePart,
    LLMConnectionError,
    MissingExtraError,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from agentflow_llm.tokens import TiktokenCounter, TokenCounter, TokenEstimator, tokens_of_text

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDINGS = Path(__file__).parent / "fixtures" / "openai-wire"


def say(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


# what o200k_base, the tokenizer of GPT-4o and its successors, makes of each
TEXTS = [
    ("The constitution was adopted after long deliberations, and it protects the freedom of all citizens.", 18),
    ("Die Verfassung wurde nach langen Beratungen angenommen; sie schützt die Freiheit aller Bürger.", 17),
    ("La constitution fut adoptée après de longues délibérations; elle protège la liberté des citoyens.", 19),
    ("Все люди рождаются свободными и равными в своём достоинстве и правах.", 18),  # noqa: RUF001 because it is Russian
    ("人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。", 24),  # noqa: RUF001 because it is Chinese
    ("すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。", 35),
    ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.", 24),
    ('for number, item in enumerate(items, start=1):\n    print(f"{number}: {item}")\n', 21),
    ('{"name": "get_weather", "arguments": {"city": "Paris", "days": 3, "units": "metric"}}', 28),
    ("2026-11-21 15:08:40,123 INFO 10.0.0.1 GET /v1/users/48213?limit=50 200 0.0123", 42),
]


@pytest.mark.parametrize(("text", "tokens"), TEXTS)
def test_estimate_is_near_what_a_tokenizer_counts(text: str, tokens: int) -> None:
    assert 0.7 * tokens <= tokens_of_text(text) <= 1.4 * tokens


def test_every_part_counts() -> None:
    parts: list[Any] = [
        TextPart(text="some words"),
        ReasoningPart(text="some thoughts"),
        ToolCallPart(id="a", name="search", arguments='{"query": "x"}'),
        ImagePart(url="data:image/png;base64,AAAA"),
    ]
    estimator = TokenEstimator()
    sizes = [estimator.count([ChatMessage(role="assistant", content=parts[:n])]) for n in range(5)]
    assert sizes == sorted(set(sizes))
    big, small = (ImagePart(url="https://example.org/x.png", detail=detail) for detail in ("high", "low"))
    assert estimator.count([ChatMessage(role="user", content=[big])]) > 500
    assert 50 < estimator.count([ChatMessage(role="user", content=[small])]) < 200
    result = ToolResultPart(call_id="a", name="search", content="many words " * 100)
    assert estimator.count([ChatMessage(role="tool", content=[result])]) > 200
    tool = ToolDefinition(name="search", description="Finds things.", parameters={"type": "object"})
    assert estimator.count([], [tool]) > 10
    assert estimator.count([]) == 0


@given(st.lists(st.text(), max_size=6))
def test_several_are_no_more_than_the_sum_of_each(texts: list[str]) -> None:
    estimator = TokenEstimator()
    messages = [say(text) for text in texts]
    together = estimator.count(messages)
    assert together <= sum(estimator.count([message]) for message in messages)
    assert together >= len(messages)
    assert estimator.count(messages) == together


@given(st.text(), st.text())
def test_more_text_is_no_fewer_tokens(text: str, more: str) -> None:
    # a word that grows until it is none may shrink by the space that parts it
    assert tokens_of_text(text + " " + more) >= tokens_of_text(text) - 5
    assert tokens_of_text(text) <= 3 * len(text.encode("utf-8", "surrogatepass"))


def test_text_that_no_encoding_has_is_estimated() -> None:
    assert TokenEstimator().count([say("half \ud83d")]) > 5


def test_text_without_words_is_more_tokens_than_words() -> None:
    assert tokens_of_text("QmFzZTY0" * 100) > 1.5 * tokens_of_text("English " * 100)


def test_copy_with_other_content_is_counted_anew() -> None:
    estimator = TokenEstimator()
    message = say("short")
    short = estimator.count([message])
    assert estimator.count([message.model_copy(update={"content": say("long " * 100).content})]) > 5 * short


def test_learns_how_many_tokens_a_server_counts() -> None:
    estimator = TokenEstimator()
    messages = [say("word " * 500)]
    before = estimator.count(messages)
    for _ in range(20):
        estimator.learn(messages, round(before * 1.5))
    assert estimator.count(messages) == pytest.approx(before * 1.5, rel=0.05)
    assert f"{estimator.ratio:.2f}" in repr(estimator)


def test_one_exception_does_not_spoil_what_was_learnt() -> None:
    estimator = TokenEstimator()
    messages = [say("word " * 500)]
    before = estimator.count(messages)
    for _ in range(20):
        estimator.learn(messages, before)
    estimator.learn(messages, before * 1000)
    assert estimator.count(messages) < before * 1.3
    estimator.learn(messages, 1)
    assert estimator.count(messages) > before * 0.8


def test_short_requests_teach_little() -> None:
    estimator = TokenEstimator()
    for _ in range(3):
        estimator.learn([say("hi")], 150)  # such as with a hidden message of the server's own
    assert estimator.ratio < 1.3


@given(st.lists(st.tuples(st.text(min_size=1, max_size=200), st.integers(-10, 10**9) | st.none()), max_size=30))
def test_what_is_learnt_stays_within_bounds(requests: list[tuple[str, int | None]]) -> None:
    estimator = TokenEstimator()
    for text, tokens in requests:
        estimator.learn([say(text)], tokens)
    assert 0.25 <= estimator.ratio <= 4


def test_nothing_teaches_nothing() -> None:
    estimator = TokenEstimator()
    estimator.learn([], 100)
    estimator.learn([say("x" * 1000)], None)
    estimator.learn([say("x" * 1000)], 0)
    assert estimator.ratio == 1.0


def test_old_messages_are_not_measured_again() -> None:
    class Content(tuple[Any, ...]):
        __slots__ = ()
        read = 0

        def __iter__(self) -> Iterator[Any]:
            Content.read += 1
            return super().__iter__()

    estimator = TokenEstimator()
    messages = [say("x").model_copy(update={"content": Content((TextPart(text="x"),))}) for _ in range(100)]
    for number in range(1, 101):
        estimator.learn(messages[:number], 10 * number)
    assert Content.read == 100


def test_sizes_that_are_remembered_are_bounded() -> None:
    estimator = TokenEstimator()
    for _ in range(3):
        estimator.count([say("x") for _ in range(4000)])
    assert len(estimator._sizes) <= 4096  # noqa: SLF001 because nothing else shows it


def recorded() -> Iterator[tuple[list[ChatMessage], list[ToolDefinition], int]]:
    """What was sent to real servers, and how many tokens they said it was."""
    for file in sorted(RECORDINGS.glob("chat_*.json")) + sorted(RECORDINGS.glob("react_*.json")):
        for interaction in json.loads(file.read_text(encoding="utf-8"))["interactions"]:
            request = interaction["request"].get("json") or {}
            try:
                tokens = json.loads(interaction["response"]["body"])["usage"]["prompt_tokens"]
            except (ValueError, KeyError):
                continue
            if "response_format" not in request:  # whose schema is told to the model, too
                yield (
                    list(map(read_message, request["messages"])),
                    list(map(read_tool, request.get("tools", ()))),
                    tokens,
                )


def read_message(message: dict[str, Any]) -> ChatMessage:
    said = message.get("content") or ""
    text = said if isinstance(said, str) else "".join(part.get("text", "") for part in said)
    if message["role"] == "tool":
        part = ToolResultPart(call_id=message["tool_call_id"], name="tool", content=text)
        return ChatMessage(role="tool", content=[part])
    asked = [call["function"] for call in message.get("tool_calls") or ()]
    calls = [ToolCallPart(id="x", name=call["name"], arguments=call["arguments"]) for call in asked]
    return ChatMessage(role=message["role"], content=[*([TextPart(text=text)] if text else []), *calls])


def read_tool(tool: dict[str, Any]) -> ToolDefinition:
    of = tool["function"]
    return ToolDefinition(name=of["name"], description=of.get("description") or "", parameters=of["parameters"])


def test_estimates_are_near_what_real_servers_counted() -> None:
    estimator = TokenEstimator()
    requests = list(recorded())
    assert len(requests) > 10
    errors = [abs(estimator.count(messages, tools) - tokens) for messages, tools, tokens in requests]
    assert sum(errors) / sum(tokens for *_, tokens in requests) < 0.15
    assert all(error < 5 + 0.35 * tokens for error, (*_, tokens) in zip(errors, requests, strict=True))


def test_estimates_of_a_conversation_grow_better_with_each_reply() -> None:
    for messages, tools, tokens in recorded():
        estimator = TokenEstimator()
        before = abs(estimator.count(messages, tools) - tokens)
        estimator.learn(messages, tokens, tools)
        assert abs(estimator.count(messages, tools) - tokens) <= before


def test_counter_is_what_has_count() -> None:
    assert isinstance(TokenEstimator(), TokenCounter)
    assert not isinstance(len, TokenCounter)


def test_tiktoken_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentflow-otel\[tokens\]', or use TokenEstimator\(\)"):
        TiktokenCounter()


def stand_in(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    """A tiktoken without a network."""
    module = ModuleType("tiktoken")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, "tiktoken", module)


def test_tokenizer_that_cannot_be_downloaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> Any:
        raise OSError("no route")

    stand_in(monkeypatch, encoding_for_model=offline)
    with pytest.raises(LLMConnectionError, match=r"'gpt-4o'.*no route.*TIKTOKEN_CACHE_DIR"):
        TiktokenCounter()


def test_counts_with_the_tokenizer_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    class Words:
        def encode_ordinary(self, text: str) -> list[int]:
            return [0] * len(text.split())

    def unknown(model: str) -> Any:
        raise KeyError(model)

    stand_in(monkeypatch, encoding_for_model=unknown, get_encoding={"o200k_base": Words()}.__getitem__)
    counter = TiktokenCounter("some-model")
    more, fewer = counter.count([say("one two three")]), counter.count([say("one")])
    assert more - fewer == 2
    picture = ChatMessage(role="user", content=[TextPart(text="one"), ImagePart(url="https://example.org/x.png")])
    assert counter.count([picture]) > fewer + 500
    assert counter.count([say("one"), say("one")]) == 2 * fewer
    assert repr(counter) == "TiktokenCounter('some-model')"


def test_size_of_content_that_is_gone_is_not_that_of_another() -> None:
    estimator = TokenEstimator()
    message = ChatMessage(role="user", content="")
    counted: list[int] = []
    for length in range(0, 4_000, 40):  # the new content may lie where the old one lay
        message = message.model_copy(update={"content": (), "id": "same"})
        message = message.model_copy(update={"content": (TextPart(text="x" * length),)})
        counted.append(estimator.count([message]))
    assert counted == sorted(set(counted))
