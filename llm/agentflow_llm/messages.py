"""What is said to a model and by it: messages made of typed parts. Pydantic models; they go through JSON unchanged."""

from __future__ import annotations

import base64
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

Role = Literal["system", "user", "assistant", "tool"]
Detail = Literal["auto", "low", "high"]
ToolOutcome = Literal["ok", "error", "timeout", "cancelled", "refused", "skipped"]

_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
"""How files of each kind begin."""
_LONGEST_URL = 60


class Part(BaseModel):
    """One piece of a message."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(Part):
    """Plain text."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(Part):
    """A picture, by its address. Bytes become a `data:` address: `ImagePart.of(data)`.

    `detail`: how closely the model is to look, where the server lets one choose.
    """

    type: Literal["image"] = "image"
    url: str
    detail: Detail | None = None

    @classmethod
    def of(
        cls, data: bytes, media_type: str | None = None, *, detail: Literal["auto", "low", "high"] | None = None
    ) -> Self:
        """The picture in these bytes. Without `media_type` (such as "image/png") they must show what they are.

        Raises `ValueError` where they do not: PNG, JPEG, GIF and WebP do.
        """
        kind = media_type or next((kind for start, kind in _PICTURES.items() if data.startswith(start)), None)
        if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            kind = "image/webp"
        if kind is None:
            raise ValueError('These bytes are no PNG, JPEG, GIF or WebP. Write ImagePart.of(data, "image/...").')
        return cls(url=f"data:{kind};base64,{base64.b64encode(data).decode()}", detail=detail)


class ReasoningPart(Part):
    """What a model thought before it answered, where the server tells.

    `id` and `encrypted` are the server's own, to be sent back to it unchanged, where it wants that.
    """

    type: Literal["reasoning"] = "reasoning"
    text: str
    id: str | None = None
    encrypted: str | None = None


class RefusalPart(Part):
    """The model declines to answer, and says why."""

    type: Literal["refusal"] = "refusal"
    text: str


class ToolCallPart(Part):
    """The model asks for a tool. `arguments` is JSON text just as the model wrote it: it may be invalid."""

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: str


class ToolResultPart(Part):
    """What came of the tool call with this id; there is exactly one for each call."""

    type: Literal["tool_result"] = "tool_result"
    call_id: str
    name: str
    content: str
    outcome: ToolOutcome = "ok"


AnyPart = Annotated[
    TextPart | ImagePart | ReasoningPart | RefusalPart | ToolCallPart | ToolResultPart, Field(discriminator="type")
]


class ChatMessage(BaseModel):
    """One message of a conversation. `content` is a list of parts; a plain string becomes one text part.

    The id is made once and kept through JSON, so that a message can be recognised wherever it went.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: tuple[AnyPart, ...] = ()
    id: str = Field(default_factory=lambda: f"msg_{token_hex(16)}")

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            role: Role,
            content: str | Sequence[AnyPart] = (),
            id: str = "",  # noqa: A002 because the field is called so
        ) -> None: ...

    @field_validator("content", mode="before")
    @classmethod
    def _text_as_part(cls, content: Any) -> Any:
        return ({"type": "text", "text": content},) if isinstance(content, str) else content

    @property
    def text(self) -> str:
        """All of its plain text."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> list[ToolCallPart]:
        """The tools that it asks for, in order."""
        return [part for part in self.content if isinstance(part, ToolCallPart)]

    @property
    def tool_results(self) -> list[ToolResultPart]:
        """The results of tools that it carries, in order."""
        return [part for part in self.content if isinstance(part, ToolResultPart)]

    def __repr__(self) -> str:
        said = [part.text for part in self.content if isinstance(part, TextPart | ReasoningPart | RefusalPart)]
        said += [_brief(part.url) for part in self.content if isinstance(part, ImagePart)]
        called = [f"{part.name}({part.arguments})" for part in self.tool_calls]
        answered = [f"{part.call_id} -> {part.content!r}" for part in self.tool_results]
        return f"<{self.role}: {' | '.join([*said, *called, *answered])}>"

    def __str__(self) -> str:
        return repr(self)


def _brief(url: str) -> str:
    return url if len(url) <= _LONGEST_URL else f"{url[:_LONGEST_URL]}..."


class ToolDefinition(BaseModel):
    """A tool as a model is told of it. `parameters` is the JSON Schema of the object that it takes.

    `strict`: a server that can is to see to it that the arguments fit the schema. Servers want such schemas to require
    every property of every object, and to allow no others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False


class Usage(BaseModel):
    """What calls cost; usages add up with `+`, and `Usage()` is nothing at all.

    - Tokens: `input_tokens` includes `cached_tokens` and `cache_write_tokens`, `output_tokens` includes
      `reasoning_tokens`, as the OpenTelemetry conventions for generative AI have it. None: the server did not say.
    - `http_requests`: those that were sent, failed attempts included.
    - `cost`: in US dollars. None: the price is unknown, of all or of a part; it is never guessed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    http_requests: int = 0
    cost: float | None = None

    @property
    def total_tokens(self) -> int | None:
        """Input and output together, where the server told both."""
        known = self.input_tokens is not None and self.output_tokens is not None
        return (self.input_tokens or 0) + (self.output_tokens or 0) if known else None

    def __add__(self, other: Usage) -> Usage:
        if self is _NOTHING or other is _NOTHING:
            return other if self is _NOTHING else self
        return Usage(
            input_tokens=_sum(self.input_tokens, other.input_tokens),
            output_tokens=_sum(self.output_tokens, other.output_tokens),
            cached_tokens=_sum(self.cached_tokens, other.cached_tokens),
            cache_write_tokens=_sum(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
            http_requests=self.http_requests + other.http_requests,
            cost=self._cost_with(other),
        )

    def _cost_with(self, other: Usage) -> float | None:
        """Nothing costs nothing; beside something of unknown price, the whole is of unknown price."""
        if self.cost is not None and other.cost is not None:
            return self.cost + other.cost
        return other.cost if self == _NOTHING else self.cost if other == _NOTHING else None


_NOTHING = Usage()


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


class Reply(BaseModel):
    """What a model answered.

    - `finish_reason`: "stop", "length", "tool_calls", "content_filter", or what the server says; None
      where it says nothing.
    - `model`: which model answered, as the server calls it; often more exact than what was asked for.
    - `id`: the server's name for the reply.
    - `output`: where `output=` was asked for, the object that was answered, validated. It is made of the text of
      the message, and not part of the reply's JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: ChatMessage
    finish_reason: str | None = None
    usage: Usage = Usage()
    model: str = ""
    id: str | None = None
    output: Any = Field(default=None, exclude=True, repr=False)

    @property
    def text(self) -> str:
        """The plain text of the answer."""
        return self.message.text

    @property
    def refusal(self) -> str | None:
        """Why the model declines to answer, where it does."""
        said = "".join(part.text for part in self.message.content if isinstance(part, RefusalPart))
        return said or None

    @property
    def tool_calls(self) -> list[ToolCallPart]:
        """The tools that the model asks for, in order."""
        return self.message.tool_calls


class Delta(BaseModel):
    """A piece of an answer that is streamed. The pieces of a kind, put together, are what the `Reply` has of it.

    - `type` "text", "reasoning" or "refusal": `text` is what came.
    - `type` "tool_call": `text` is a piece of the arguments of call number `index`, counted from 0; its first
      piece has `id` and `name`, and maybe no text yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["text", "reasoning", "refusal", "tool_call"] = "text"
    text: str = ""
    index: int = 0
    id: str | None = None
    name: str | None = None
