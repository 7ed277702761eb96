"""How many tokens messages are: estimated from their characters, or counted."""

from __future__ import annotations

import json
import math
from importlib import import_module
from operator import mul
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .errors import LLMConnectionError, MissingExtraError
from .messages import ImagePart, ReasoningPart, ToolCallPart, ToolResultPart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .messages import AnyPart, ChatMessage, ToolDefinition

_LETTERS = bytes(range(ord("a"), ord("z") + 1)) + bytes(range(ord("A"), ord("Z") + 1))
_DIGITS = b"0123456789"
_SPACES = b" \t\r\n"
_CHARACTERS = {
    _LETTERS: 0.225,
    _DIGITS: 0.45,
    _SPACES: 0.03,
    bytes({*range(128)} - {*_LETTERS, *_DIGITS, *_SPACES}): 0.7,
    bytes(range(0xC2, 0xCA)): 0.75,
    bytes(range(0xCA, 0xE0)): 0.4,
    bytes([0xE0, 0xE1]): 0.48,
    bytes([0xE2, 0xEE, 0xEF]): 0.9,
    bytes(range(0xE3, 0xEA)): 0.85,
    bytes(range(0xEA, 0xEE)): 0.7,
    bytes(range(0xF0, 0xF5)): 2.2,
}
"""Tokens a character, by the first byte that it has in UTF-8: what tokenizers of many languages need in the mean.

In ASCII: letters, digits, white space (part of the word behind it), the rest. Then Latin letters with accents; Greek,
Cyrillic, Hebrew, Arabic; Indian and Thai; signs; Chinese and Japanese; Korean; pictures and rare ones.
"""
_LONGEST_WORD = 12
_NO_WORD = 0.4
"""More tokens for each letter where there are more letters a word than words have, as in base64."""
_GROUPS = list(_CHARACTERS)
_ASCII_GROUPS = _GROUPS[:4]
_WEIGHTS = list(_CHARACTERS.values())
_MESSAGE = 5.0
_TOOL_CALL = 9.0
_TOOLS = 10.0
_TOOL = 8.0
_IMAGE = 765.0
_SMALL_IMAGE = 85.0
"""A square of 1024 pixels, and one looked at with little detail, as OpenAI counts them."""

_MOST_SIZES = 4096
_PRIOR = 100.0
"""Tokens' worth of trust in the ratios above, before anything was learnt."""
_LONG = 1000.0
"""Beyond so many tokens a request says no more about the ratio than a shorter one."""
_MEMORY = 0.85
"""What an older request still counts, each time that a newer one was learnt from."""
_STEP = 2.0
"""The factor by which one request may differ from what was expected; beyond it, it counts as if it differed so."""
_LEAST, _MOST = 0.25, 4.0


@runtime_checkable
class TokenCounter(Protocol):
    """Says how many tokens messages are. It is called in the event loop and in threads, and must not block long."""

    def count(self, messages: Sequence[ChatMessage], /) -> int:
        """The tokens of these messages. Of several together they are no more than the sum of those of each."""
        ...


class TokenEstimator:
    """Estimates tokens from the characters of messages, and learns from what servers say they were.

    For all threads. The sizes of some thousand messages at most are kept, so that none is measured twice.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[Sequence[AnyPart], float]] = {}
        """By the id of a message, its content and its size: while the content is held, none else is it."""
        self._actual = self._expected = _PRIOR
        self._learning = Lock()

    def __repr__(self) -> str:
        return f"<TokenEstimator, learnt factor {self.ratio:.2f}>"

    @property
    def ratio(self) -> float:
        """How many tokens the servers counted for each that was estimated; 1.0 before anything was learnt."""
        return min(max(self._actual / self._expected, _LEAST), _MOST)

    def count(self, messages: Sequence[ChatMessage], tools: Sequence[ToolDefinition] = ()) -> int:
        """The tokens of these messages, and of the tools, if any; rounded up."""
        return math.ceil(self._raw(messages, tools) * self.ratio)

    def learn(
        self, messages: Sequence[ChatMessage], input_tokens: int | None, tools: Sequence[ToolDefinition] = ()
    ) -> None:
        """Take into account that a server counted so many tokens for these messages and tools.

        Newer requests count for more than older ones, longer for more than shorter; one that is far from all that was
        expected is an exception until others are so, too. None, or nothing, teaches nothing.
        """
        if not input_tokens or input_tokens < 0 or not messages:
            return
        raw = self._raw(messages, tools)
        with self._learning:
            expected = raw * self.ratio
            actual = min(max(float(input_tokens), expected / _STEP), expected * _STEP)
            weight = min(1.0, _LONG / raw)
            self._actual = self._actual * _MEMORY + actual * weight
            self._expected = self._expected * _MEMORY + raw * weight

    def _raw(self, messages: Sequence[ChatMessage], tools: Sequence[ToolDefinition]) -> float:
        sizes = self._sizes
        total = sum(map(tokens_of_tool, tools), _TOOLS) if tools else 0.0
        for message in messages:
            known = sizes.get(message.id)
            # a copy may have the id, and other content
            if known is not None and known[0] is message.content:
                total += known[1]
                continue
            size = _MESSAGE + sum(map(_tokens_of_part, message.content))
            if len(sizes) >= _MOST_SIZES:
                sizes.clear()
            sizes[message.id] = message.content, size
            total += size
        return total


class TiktokenCounter:
    """Counts with OpenAI's own tokenizer for a model; for a model that it does not know, with that of GPT-4o.

    Needs the extra `tokens`. The tokenizer is downloaded when it is first used on a machine, here in the constructor;
    `TIKTOKEN_CACHE_DIR` names the folder that keeps it. Raises `MissingExtraError`, `LLMConnectionError`.
    """

    def __init__(self, model: str = "gpt-4o") -> None:
        self.model = model
        self._encode = _encoder(model)
        self._estimator = TokenEstimator()

    def __repr__(self) -> str:
        return f"TiktokenCounter({self.model!r})"

    def count(self, messages: Sequence[ChatMessage]) -> int:
        """The tokens of these messages; their pictures are estimated."""
        return sum(map(self._count, messages))

    def _count(self, message: ChatMessage) -> int:
        pictures = sum(_tokens_of_part(part) for part in message.content if isinstance(part, ImagePart))
        texts = [text for part in message.content for text in _texts(part)]
        calls = len(message.tool_calls)
        return int(_MESSAGE + pictures + _TOOL_CALL * calls) + sum(len(self._encode(text)) for text in texts)


def _encoder(model: str) -> Callable[[str], list[int]]:
    try:
        tiktoken = import_module("tiktoken")  # it is an extra
    except ImportError as error:
        raise MissingExtraError(
            "TiktokenCounter needs tiktoken. Install it with pip install 'agentflow-otel[tokens]', or use "
            "TokenEstimator(), which needs nothing."
        ) from error
    try:
        try:
            encoding = tiktoken.encoding_for_model(model)
        except KeyError:
            encoding = tiktoken.get_encoding("o200k_base")
    except Exception as error:
        raise LLMConnectionError(
            f"tiktoken has no tokenizer for {model!r} on this machine and cannot download it: {error}. Set "
            "TIKTOKEN_CACHE_DIR to a folder that holds it, or use TokenEstimator(), which needs no network."
        ) from error
    encode: Callable[[str], list[int]] = encoding.encode_ordinary
    return encode


def tokens_of_text(text: str) -> float:
    """An estimate for a text, before anything was learnt; far cheaper than to count."""
    data = text.encode("utf-8", "surrogatepass")
    counts: list[int] = []
    for group in _GROUPS if len(data) > len(text) else _ASCII_GROUPS:
        left = len(data)
        data = data.translate(None, group)
        counts.append(left - len(data))
    letters, _, spaces, signs, *_ = counts
    together = max(0, letters - _LONGEST_WORD * (spaces + signs + 1))
    return math.fsum(map(mul, counts, _WEIGHTS)) + together * _NO_WORD


def tokens_of_tool(tool: ToolDefinition) -> float:
    """An estimate for the definition of a tool."""
    return _TOOL + tokens_of_text(tool.name) + tokens_of_text(tool.description) + 0.4 * _tokens_of_json(tool.parameters)


def _tokens_of_json(value: Any) -> float:
    return tokens_of_text(json.dumps(value, ensure_ascii=False))


def _tokens_of_part(part: AnyPart) -> float:
    if isinstance(part, ImagePart):
        return _SMALL_IMAGE if part.detail == "low" else _IMAGE
    extra = _TOOL_CALL if isinstance(part, ToolCallPart) else 0.0
    return extra + sum(map(tokens_of_text, _texts(part)))


def _texts(part: AnyPart) -> Iterable[str]:
    """What of a part a model reads. Its own thoughts are not sent back to it by most servers, but by some."""
    if isinstance(part, ToolCallPart):
        return part.name, part.arguments
    if isinstance(part, ToolResultPart):
        return (part.content,)
    if isinstance(part, ReasoningPart):
        return part.text, part.encrypted or ""
    return () if isinstance(part, ImagePart) else (part.text,)
