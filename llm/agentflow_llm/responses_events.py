"""An answer of the Responses API that comes in events, put together; what came is a `Delta` as soon as it came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .loose import Text, as_dict, as_list, well_formed
from .messages import Delta
from .responses_wire import SECTIONS, known_id, sections_of
from .wire import call_id

if TYPE_CHECKING:
    from collections.abc import Iterator

_DELTA: dict[str, Literal["text", "refusal", "reasoning", "tool_call"]] = {
    "text": "text",
    "refusal": "refusal",
    "summary": "reasoning",
    "content": "reasoning",
    "arguments": "tool_call",
}
"""What a piece of a section of each kind is handed on as."""
_STEMS = {
    "response.output_text": ("message", "text", "content_index", "text"),
    "response.refusal": ("message", "refusal", "content_index", "refusal"),
    "response.function_call_arguments": ("function_call", "arguments", "", "arguments"),
    "response.reasoning_summary_text": ("reasoning", "summary", "summary_index", "text"),
    "response.reasoning_text": ("reasoning", "content", "content_index", "text"),
}
"""The events that bring text: in an item of which type, to a section of which kind, what numbers the sections, and
where all of the text stands when it is done."""
_PIECES = {f"{stem}.delta": facts for stem, facts in _STEMS.items()}
_WHOLES = {f"{stem}.done": facts for stem, facts in _STEMS.items()}
_ENDS = {"response.completed", "response.incomplete", "response.failed"}


class _Item:
    """An item of the answer, as far as it has come."""

    __slots__ = ("call", "data", "done", "index", "said")

    def __init__(self, data: dict[str, Any], index: int) -> None:
        self.data = data
        self.index = index  # among the calls
        self.call = False  # whether the call was handed on: its id and its name
        self.done = False
        self.said: dict[tuple[str, int], Text] = {}

    @property
    def type(self) -> str:
        """Which kind of item it is."""
        return str(self.data.get("type"))

    def add(self, kind: str, number: int, text: str) -> Iterator[Delta]:
        """A piece of one of its texts."""
        section = self.said.get((kind, number))
        if section is None:
            section = self.said[kind, number] = Text()
        text = section.add(text)
        if not text:
            return
        if len(section.pieces) == 1 and self.type == "reasoning" and self._has_said_more_than(section):
            yield Delta(type="reasoning", text=SECTIONS)
        if self.type == "function_call":
            yield from self._called(text)
        else:
            yield Delta(type=_DELTA[kind], text=text)

    def _has_said_more_than(self, section: Text) -> bool:
        return any(other.pieces for other in self.said.values() if other is not section)

    def _called(self, text: str) -> Iterator[Delta]:
        if self.call:
            yield Delta(type="tool_call", text=text, index=self.index)
        else:
            yield from self.begin()

    def begin(self) -> Iterator[Delta]:
        """Hand on the call, with what is there of its arguments, once it is known what it calls."""
        name, ident = self.data.get("name"), known_id(self.data)
        if self.call or self.type != "function_call" or not isinstance(name, str) or not name or not ident:
            return
        self.call = True
        self.data = {**self.data, "call_id": ident}
        text = str(self.said.get(("arguments", 0), ""))
        yield Delta(type="tool_call", text=text, index=self.index, id=ident, name=name)

    def complete(self, kind: str, number: int, text: str) -> Iterator[Delta]:
        """The whole of one of its texts: what was missing is handed on."""
        section = self.said.get((kind, number))
        said = "" if section is None else str(section)
        if section is not None:
            section.drop()
        if len(said) < len(text) and text.startswith(said):
            yield from self.add(kind, number, text[len(said) :])

    def finish(self, data: dict[str, Any]) -> Iterator[Delta]:
        """All of it as the server has it at its end."""
        self.done = True
        told = {"call_id": self.data.get("call_id") or known_id(data) or call_id()}  # as it was handed on
        self.data = {**data, **told} if self.type == "function_call" else data
        yield from self.begin()
        for kind, number, text in sections_of(data):
            yield from self.complete(kind, number, text)

    def whole(self) -> dict[str, Any]:
        """It as the server has it, or where that never came, as its pieces make it."""
        if self.done:
            return self.data
        texts = [(kind, str(text)) for (kind, _), text in self.said.items()]
        match self.type:
            case "function_call":
                return {**self.data, "arguments": "".join(text for _, text in texts)}
            case "reasoning":
                kinds = ("summary", "content")
                return {**self.data, **{of: [{"text": text} for kind, text in texts if kind == of] for of in kinds}}
            case _:
                return {**self.data, "content": [{kind: text} for kind, text in texts]}


class ResponseReader:
    """Puts an answer together: `feed` it events. The first call of `output_tool` is handed on as text.

    - `response`: the whole answer, as if it had not been streamed, once it has come to its end.
    - `failure`: what the server tells of an error that ended it.
    """

    def __init__(self, output_tool: str | None = None) -> None:
        self._output_tool = output_tool
        self._answers: list[int] = []  # the numbers of its calls
        self.response: dict[str, Any] | None = None
        self.failure: Any = None
        self._items: list[_Item] = []
        self._at: dict[object, _Item] = {}
        self._calls = 0

    def feed(self, name: str, data: dict[str, Any]) -> Iterator[Delta]:
        """The deltas in an event, whose name may be empty: its data have it, too. Others than ours are left out."""
        deltas = self._read(name, data)
        return deltas if self._output_tool is None else filter(None, map(self._answered, deltas))

    def _answered(self, delta: Delta) -> Delta | None:
        """A piece as it is handed on where a call may be the answer; None of a further call of the output tool."""
        if delta.type != "tool_call":
            return delta
        if delta.name is not None and delta.name == self._output_tool:
            self._answers.append(delta.index)
        if delta.index in self._answers:
            counts = delta.text and delta.index == self._answers[0]
            return Delta(type="text", text=delta.text) if counts else None
        before = sum(index < delta.index for index in self._answers)
        return delta.model_copy(update={"index": delta.index - before})

    def _read(self, name: str, data: dict[str, Any]) -> Iterator[Delta]:
        kind = data.get("type") or name
        if kind in _PIECES:
            of, section, number, _ = _PIECES[kind]
            text = data.get("delta")
            if isinstance(text, str):
                yield from self._item(of, data).add(section, _number(data, number), text)
        elif kind in _WHOLES:
            of, section, number, field = _WHOLES[kind]
            text = data.get(field)
            if isinstance(text, str):
                yield from self._item(of, data).complete(section, _number(data, number), well_formed(text))
        elif kind == "response.output_item.added":
            yield from self._begin(as_dict(data.get("item")), data).begin()
        elif kind == "response.output_item.done":
            item = as_dict(data.get("item"))
            yield from self._item(str(item.get("type")), data, item).finish(item)
        elif kind == "error" or (not kind and data.get("error")):
            self.failure = data.get("error") or {name: data.get(name) for name in ("code", "message", "param")}
        elif kind in _ENDS:
            yield from self._end(as_dict(data.get("response")))
        elif isinstance(data.get("output"), list):  # the server does not stream
            yield from self._end(data)

    def _end(self, response: dict[str, Any]) -> Iterator[Delta]:
        if failure := failure_in(response):
            self.failure = failure
            return
        output = [as_dict(item) for item in as_list(response.get("output"))]
        for place, data in enumerate(output):
            known = self._items[place] if place < len(self._items) else None
            if known is None:
                known = self._begin(data, {"output_index": place})
            if not known.done and known.type == data.get("type"):
                yield from known.finish(data)
        # some servers leave out, at the end, what they have said already
        self.response = {**response, "output": [item.whole() for item in self._items]}

    def _begin(self, item: dict[str, Any], at: dict[str, Any]) -> _Item:
        if item.get("type") == "function_call":
            if any(known_id(other.data) == known_id(item) != "" for other in self._items):
                item = {**item, "call_id": call_id()}
            self._calls += 1
        begun = _Item(item, self._calls - 1)
        self._items.append(begun)
        self._at[_place(at, item)] = begun
        return begun

    def _item(self, kind: str, at: dict[str, Any], item: dict[str, Any] | None = None) -> _Item:
        """The item that an event speaks of; one that was never announced begins here."""
        known = self._at.get(_place(at, item or {}))
        if known is None or known.type != kind or (known.done and item is not None):
            return self._begin(item or {"type": kind}, at)
        return known


def failure_in(response: dict[str, Any]) -> Any:
    """What an answer tells of an error that ended it; None where none did."""
    failed = response.get("error")
    return failed or ({"message": "it does not say why"} if response.get("status") == "failed" else None)


def _place(at: dict[str, Any], item: dict[str, Any]) -> object:
    """What an event is about. Some servers give an item another id in each event."""
    index = at.get("output_index")
    return index if isinstance(index, int) else at.get("item_id") or item.get("id")


def _number(data: dict[str, Any], name: str) -> int:
    number = data.get(name)
    return number if isinstance(number, int) else 0
