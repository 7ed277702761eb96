"""A streamed Chat Completions answer, put together from its chunks, in whatever accent the server writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .errors import LLMResponseError
from .loose import Text, as_dict, as_list, excerpt, parsed
from .messages import Delta
from .wire import Said, arguments_in, call_id, calls_in, make_reply, read_calls, read_said, signature_in, usage_in

if TYPE_CHECKING:
    from .messages import Reply

Kind = Literal["text", "reasoning", "refusal"]
_KINDS: tuple[Kind, ...] = ("reasoning", "text", "refusal")


class _Call:
    """A tool call, as far as it has come."""

    __slots__ = ("arguments", "blank", "given", "id", "index", "kind", "name", "signature", "told")

    def __init__(self, given: str, ident: str) -> None:
        self.given = given  # its id, as the server has it
        self.id = ident
        self.name = ""
        self.arguments = Text()
        self.blank = ""  # white space before the first of its arguments
        self.told = False
        self.index = 0
        self.signature: str | None = None
        self.kind: Literal["call", "answer", "surplus"] = "call"

    def is_whole(self) -> bool:
        """Whether its arguments are an object, to which nothing can be added."""
        return isinstance(parsed(str(self.arguments)), dict)


class Accumulator:
    """Makes deltas of the chunks of an answer, with `feed` and at its end `end`, and then a `reply`.

    It is the `Reply` that the same answer makes that was not streamed. Where there is an `output_tool`, the first call
    of this tool is the text of the answer.

    - `error`: what the server told in a chunk instead of going on; nothing after it counts.
    - `ignored`: how many answers there were beside the first.
    """

    def __init__(self, output_tool: str | None = None) -> None:
        self.error: Any = None
        self._output_tool = output_tool
        self._said = {kind: Text() for kind in _KINDS}
        self._calls: list[_Call] = []
        self._numbered: dict[int, _Call] = {}
        self._many = 0  # calls that were told of
        self._answered = False
        self._others: set[int] = set()
        self._finish_reason: Any = None
        self._usage: Any = None
        self._model: Any = None
        self._id: Any = None
        self._in_pieces = False
        self._choices = False
        self._done = False
        self._last: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        """Whether the server said that the answer has come to its end; otherwise the stream was cut."""
        return self._done or bool(self._finish_reason) or (not self._choices and bool(self._last))

    @property
    def ignored(self) -> int:
        """How many answers there were beside the first."""
        return len(self._others)

    def feed(self, events: list[tuple[str, dict[str, Any]]]) -> list[Delta]:
        """The deltas in some events, as names and chunks; their names say little, but `[DONE]`."""
        deltas: list[Delta] = []
        for name, chunk in events:
            if name == "[DONE]":
                self._done = True
            elif chunk.get("error") or name == "error" or chunk.get("object") == "error":
                self.error = chunk.get("error") or chunk
            else:
                self._chunk(chunk, deltas)
            if self.error is not None:
                break
        return deltas

    def _chunk(self, chunk: dict[str, Any], deltas: list[Delta]) -> None:
        self._last = chunk
        if not self._id:
            self._id = chunk.get("id")
        if not self._model:
            self._model = chunk.get("model")
        choices = as_list(chunk.get("choices"))
        if not choices:
            self._usage = usage_in(chunk, {}) or self._usage
            self._choices = self._choices or "choices" in chunk
            return
        self._choices = True
        if len(choices) == 1 and (only := as_dict(choices[0])).get("index") == 0:  # nearly all are
            self._choice(chunk, only, deltas)
            return
        for position, choice in enumerate(map(as_dict, choices)):
            index = choice.get("index")
            number = index if isinstance(index, int) else position
            if number:
                self._others.add(number)
            else:
                self._choice(chunk, choice, deltas)

    def _choice(self, chunk: dict[str, Any], choice: dict[str, Any], deltas: list[Delta]) -> None:
        if choice.get("error"):
            self.error = choice["error"]
            return
        self._usage = usage_in(chunk, choice) or self._usage
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = choice.get("delta")
        if delta:
            self._in_pieces = True
        elif not self._in_pieces:  # after pieces, a message is all of them again
            delta = choice.get("message")
        delta = as_dict(delta)
        if len(delta) == 1 and type(content := delta.get("content")) is str:  # nearly all are
            self._say("text", content, deltas)
            return
        for kind, text in zip(_KINDS, read_said(delta), strict=True):
            self._say(kind, text, deltas)
        for call in calls_in(delta):
            self._call(as_dict(call), deltas)

    def _say(self, kind: Kind, piece: str, deltas: list[Delta]) -> None:
        if piece:
            text = self._said[kind].add(piece)
            if text:
                deltas.append(Delta(type=kind, text=text))

    def _call(self, said: dict[str, Any], deltas: list[Delta]) -> None:
        function = as_dict(said.get("function"))
        name, arguments = function.get("name"), arguments_in(function)
        name = name if isinstance(name, str) else ""
        call = self._call_of(said, name, arguments)
        call.signature = signature_in(said) or call.signature
        if name and not call.name:
            call.name = name
            if name == self._output_tool:
                call.kind = "surplus" if self._answered else "answer"
                self._answered = True
            else:
                call.index = self._many
                self._many += 1
        self._argue(call, arguments, deltas)

    def _argue(self, call: _Call, arguments: str, deltas: list[Delta]) -> None:
        """Add arguments to a call, and tell of them as soon as its name is known."""
        if not call.arguments.pieces:
            arguments = call.blank + arguments
            call.blank = "" if arguments.strip() else arguments
            arguments = "" if call.blank else arguments
        if call.kind == "answer":
            self._say("text", arguments and call.arguments.add(arguments), deltas)
            return
        if not call.name:  # pieces that come before it are told with it
            call.blank += arguments
            return
        text = call.arguments.add(arguments) if arguments else ""
        if call.kind == "surplus" or (call.told and not text):
            return
        if call.told:
            deltas.append(Delta(type="tool_call", text=text, index=call.index))
        else:
            call.told = True
            deltas.append(Delta(type="tool_call", text=text, index=call.index, id=call.id, name=call.name))

    def _call_of(self, said: dict[str, Any], name: str, arguments: str) -> _Call:
        """The call that a piece belongs to, which may begin with it."""
        given, index = said.get("id"), said.get("index")
        given = given if isinstance(given, str) else ""
        if isinstance(index, int):
            call = self._numbered.get(index)
        else:
            known = [call for call in self._calls if given and call.given == given]
            call = known[0] if known else self._calls[-1] if self._calls else None
        if call is None or _begins_another(call, given, name, arguments):
            taken = not given or any(other.id == given for other in self._calls)
            call = _Call(given, call_id() if taken else given)
            self._calls.append(call)
        if isinstance(index, int):
            self._numbered[index] = call
        return call

    def end(self) -> list[Delta]:
        """What is left to tell. Raises `LLMResponseError` where what came is no reply."""
        if not self._choices:
            raise LLMResponseError(f"it has no message: {excerpt(self._last)}")
        deltas: list[Delta] = []
        for call in self._calls:
            if not call.arguments.pieces and call.name:
                call.blank = ""
                self._argue(call, "{}", deltas)
            rest = call.arguments.end()
            if rest and call.kind == "call":
                deltas.append(Delta(type="tool_call", text=rest, index=call.index))
        for kind in _KINDS:
            rest = self._said[kind].end()
            if rest:
                deltas.append(Delta(type=kind, text=rest))
        return deltas

    def reply(self) -> Reply:
        """The whole answer, after `end`. Raises `LLMResponseError` where a call has no name."""
        called = [call for call in self._calls if call.kind == "call"]
        calls = read_calls(
            {"id": call.id, "function": {"name": call.name, "arguments": str(call.arguments)}} for call in called
        )
        return make_reply(
            Said(*(str(self._said[kind]) for kind in _KINDS)),
            [(call, one.signature) for call, one in zip(calls, called, strict=True)],
            answered=self._answered,
            finish_reason=self._finish_reason,
            usage=self._usage,
            model=self._model,
            ident=self._id,
        )


def _begins_another(call: _Call, given: str, name: str, arguments: str) -> bool:
    """Whether a piece begins a call of its own, though its number, or that it has none, says that it goes on.

    Some servers number all calls 0, or none, and some repeat id and name with each piece, or make up an id for each.
    """
    if not name or not call.name:
        return False
    if name != call.name or (given and call.given and given != call.given):
        return True
    return not given and arguments.lstrip().startswith("{") and call.is_whole()
