"""Reasoning in plain text: what a model thought, which tools it asks for, what it answers, while the text comes in.

The text is read as it comes. What stands before the first action or answer is a thought; the one that comes first
decides. An answer is never taken for a thought, nor a thought for an answer, however the text is cut into pieces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from .action import CALL_TAGS, Action, calls_in_object, find_actions
from .marker import begun_in_line, mark_in_line, mark_of_line, may_begin_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentflow_llm import ToolDefinition

    from .marker import Mark

STOP: Final = ("\nObservation:", "\n**Observation", "\nObservation\uff1a")
"""Where a model is to stop: what follows is the tool's to say."""

EMPTY: Final = "Nothing was said."
ONLY_THOUGHT: Final = "There is a Thought, but neither an Action nor an Answer."
_DROPPED: Final = "What the model said behind its {} was left out: it cannot know the results yet."
_MORE: Final = "What the model said behind its answer was left out."

_THINK_TAGS: Final = ("<think>", "</think>", "<thinking>", "</thinking>", "<thought>", "</thought>")
_TAG = re.compile("|".join(map(re.escape, (*_THINK_TAGS, *CALL_TAGS))))
_END_OF_THINKING = re.compile(r"</(?:think|thinking|thought)>")
_LINES = re.compile(r"(?<=\n)")
_FENCE = re.compile(r"[ \t]*(?:`{3,}|~{3,})([^\n`]*)\n")
_FENCE_BEGUN = re.compile(r"[ \t]*(?:`{0,2}|~{1,2}|(?:`{3,}|~{3,})[^\n`]*)")

_DEEPEST: Final = 20

Label = Literal["thought", "answer", "action"]
State = Literal["open", "thinking", "thought", "answer", "action", "skipped", "over"]
"""Where one is: before any marker, in thinking that a markup of its own marks, in a thought, in the answer, in what is
for the machine, in a result that the model begins with, or behind all that counts."""


class Piece(NamedTuple):
    """A piece of a text: of a thought, of the answer, or of what is for the machine alone."""

    label: Label
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What a text says: it has actions, or an answer, or a problem.

    - `problem`: why it cannot be read, and what is missing, in words for the model.
    - `note`: what was left out, for whoever looks on.
    """

    thought: str = ""
    actions: tuple[Action, ...] = ()
    answer: str | None = None
    problem: str = ""
    note: str = ""


def read_reasoning(text: str, tools: Sequence[ToolDefinition] = ()) -> Reasoning:
    """What the whole text of a model says."""
    reader = ReasoningReader(tools)
    reader.feed(text)
    reader.close()
    return reader.reasoning


class ReasoningReader:
    """Reads a text that comes in pieces: `feed` and at last `close` return what is known by then.

    The thoughts among the pieces, put together, are `reasoning.thought`, those of the answer `reasoning.answer`. A text
    without any marker may be an answer or become a thought: it is held back until that is clear.
    """

    def __init__(self, tools: Sequence[ToolDefinition] = ()) -> None:
        self._tools = tools
        self._depth = 0
        """How often it was begun anew, behind an action that was none."""
        self._objects = True
        """May an object within a thought be a call?"""
        self._state: State = "open"
        self._buffer = ""
        self._before = ""
        """The end of what stands before the buffer in its line."""
        self._at_line = True
        self._in_fence = False
        self._wrapped = False
        """Does all of it stand in a fence?"""
        self._signs = ""
        """What a marker opened, which may be closed behind it, as in `**Answer:** 6`."""
        self._opened = ""
        """What is closed only behind what is said, as in `**Answer: 6**`."""
        self._unmarked: list[str] = []
        self._machine: list[str] = []
        self._said: dict[Label, list[str]] = {"thought": [], "answer": []}
        self._fresh = True
        self._space = ""
        self._pieces: list[Piece] = []
        self._note = ""
        self.reasoning = Reasoning(problem=EMPTY)
        """What the text says; known when it is closed."""

    def feed(self, text: str) -> list[Piece]:
        """Take up more of the text."""
        for line in _LINES.split(text):  # so that the buffer stays short
            self._buffer += line
            self._advance(final=False)
        return self._taken()

    def close(self) -> list[Piece]:
        """The text is at its end."""
        self._advance(final=True)
        self._end()
        found = Reasoning()
        if self._state == "action":
            found = self._settle_action("".join(self._machine))
        elif self._unmarked:
            found = self._settle_unmarked("".join(self._unmarked).strip())
        thought, answer = "".join(self._said["thought"]), "".join(self._said["answer"])
        problem = found.problem or (ONLY_THOUGHT if thought else EMPTY)
        readable = found.actions or answer
        self.reasoning = Reasoning(
            thought, found.actions, answer or None, "" if readable else problem, self._note or found.note
        )
        return self._taken()

    def _taken(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _advance(self, *, final: bool) -> None:
        while self._buffer and self._step(final=final):
            pass

    def _step(self, *, final: bool) -> bool:
        """Take up the beginning of the buffer; False where more must come first."""
        if self._signs:
            if len(self._buffer) < len(self._signs) and self._signs.startswith(self._buffer) and not final:
                return False
            if self._buffer.startswith(self._signs):
                self._buffer = self._buffer[len(self._signs) :]
            else:
                self._opened = self._signs
            self._signs = ""
            return True
        if self._state == "thinking":
            return self._think(final=final)
        if self._state in {"action", "over"}:
            self._say(self._consumed(len(self._buffer)))
            return True
        return self._line(final=final) if self._at_line else self._within(final=final)

    def _think(self, *, final: bool) -> bool:
        found = _END_OF_THINKING.search(self._buffer)
        if found is not None:
            self._say(self._buffer[: found.start()])
            self._buffer = self._buffer[found.end() :]
            self._begin("open")
            return True
        held = len(self._buffer) if final else _begun(self._buffer, _THINK_TAGS)
        self._say(self._consumed(held))
        return held > 0

    def _line(self, *, final: bool) -> bool:
        """The beginning of a line: a marker, a fence, or neither."""
        buffer = self._buffer
        if not self._in_fence and (mark := mark_of_line(buffer)) and self._counts(mark):
            self._turn(mark)
            return True
        if fence := _FENCE.match(buffer if not final or buffer.endswith("\n") else f"{buffer}\n"):
            return self._fence(fence, final=final)
        if not final and (_FENCE_BEGUN.fullmatch(buffer) or (not self._in_fence and may_begin_line(buffer))):
            return False
        if self._is_call(buffer):
            self._begin("action")
            return True
        self._at_line = False
        return True

    def _counts(self, mark: Mark) -> bool:
        """An answer ends only where a new thought, or the result of a tool, begins; it may have lists of actions."""
        return self._state != "answer" or self._fresh or mark.kind in {"thought", "observation"}

    def _is_call(self, text: str) -> bool:
        return self._objects and self._state == "thought" and not self._in_fence and text.lstrip(" \t")[:1] == "{"

    def _fence(self, fence: re.Match[str], *, final: bool) -> bool:
        """A line with a fence: around all that follows, or around code, whose words divide nothing."""
        line = min(fence.end(), len(self._buffer))
        behind = self._buffer[line:].lstrip("\n")
        closing = self._wrapped and not fence[1].strip()
        if not self._in_fence and (closing or self._state in {"open", "thought"}):
            unclear = not behind.strip() or (not closing and (may_begin_line(behind) or not _begun(behind, CALL_TAGS)))
            if unclear and not final:
                return False
            if closing and (self._state != "answer" or not behind.strip()):
                self._wrapped = False
                self._buffer = behind
                return True
            if not closing and mark_of_line(behind):
                self._wrapped = True
                self._buffer = behind
                return True
            if not closing and (self._is_call(behind) or behind.startswith(CALL_TAGS)):
                self._buffer = behind
                self._begin("action")
                return True
        self._in_fence = not self._in_fence
        self._say(self._consumed(line))
        return True

    def _within(self, *, final: bool) -> bool:
        """The middle of a line."""
        end = self._buffer.find("\n") + 1
        line = self._buffer[:end] if end else self._buffer
        if not self._in_fence and self._state != "answer":
            shift = len(self._before)
            mark = mark_in_line(self._before + line)
            tag = _TAG.search(line)
            if mark and (tag is None or mark.start - shift < tag.start()):
                self._say(line[: max(0, mark.start - shift)])
                self._turn(mark._replace(start=mark.start - shift, end=mark.end - shift))
                return True
            if tag:
                self._say(line[: tag.start()])
                self._tag(tag)
                return True
        held = len(line)
        if not end and not final and not self._in_fence and self._state != "answer":
            held = min(begun_in_line(self._before + line) - len(self._before), _begun(line, (*_THINK_TAGS, *CALL_TAGS)))
            held = max(0, held)
        self._before = (self._before + line[:held])[-2:]
        self._say(self._consumed(held))
        if end:
            self._at_line, self._before = True, ""
        return held > 0

    def _tag(self, tag: re.Match[str]) -> None:
        if tag[0] in CALL_TAGS:
            self._buffer = self._buffer[tag.start() :]
            self._begin("action")
            return
        self._buffer = self._buffer[tag.end() :]
        self._before = ""
        if self._state == "open":
            self._flush()
            self._begin("open" if tag[0].startswith("</") else "thinking")

    def _turn(self, mark: Mark) -> None:
        """Go on with what a marker announces."""
        if mark.kind == "observation":
            if self._state in {"open", "skipped"} and not "".join(self._unmarked).strip():
                self._buffer = self._buffer[mark.end :]
                self._begin("skipped")
                return
            self._note = _DROPPED.format("thought" if self._state == "thought" else "answer")
            self._begin("over")
        elif self._state == "answer" and not self._fresh:
            self._note = _MORE
            self._begin("over")
        elif mark.kind in {"action", "input"}:
            self._buffer = self._buffer[mark.start :]
            self._begin("action")
        else:
            self._buffer = self._buffer[mark.end :]
            self._begin("thought" if mark.kind == "thought" else "answer")
            self._signs = mark.open

    def _begin(self, state: State) -> None:
        self._end()
        if state in {"thought", "answer", "action"} and self._unmarked:
            self._flush()
        self._state = state
        self._at_line, self._before, self._in_fence = state == "open", "", False

    def _end(self) -> None:
        """A part is over: what was held back of it, since it might be its end, is left out."""
        held = self._space.rstrip().removesuffix(self._opened) if self._opened else ""
        if held.strip() and self._state in {"thought", "answer"}:
            self._space, self._opened = "", ""
            self._say(held)
        self._fresh, self._space, self._opened = True, "", ""

    def _flush(self) -> None:
        """What had no marker was a thought."""
        text = "".join(self._unmarked)
        self._unmarked.clear()
        self._whole("thought", text)

    def _consumed(self, length: int) -> str:
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        return text

    def _say(self, text: str) -> None:
        if self._state == "open":
            self._unmarked.append(text)
        elif self._state == "action":
            self._machine.append(text)
            self._pieces.append(Piece("action", text))
        elif self._state in {"thinking", "thought"}:
            self._put("thought", text)
        elif self._state == "answer":
            self._put("answer", text)

    def _put(self, label: Label, text: str) -> None:
        """Say it, without the white space at both ends of its part."""
        said = self._said[label]
        if self._fresh:
            text = text.lstrip()
            if not text:
                return
            self._fresh = False
            self._space = "\n" if said else ""
        text = self._space + text
        bare = text.rstrip()
        if self._opened:
            bare = bare.rstrip(self._opened).rstrip()
        self._space = text[len(bare) :]
        if bare:
            said.append(bare)
            self._pieces.append(Piece(label, bare))

    def _whole(self, label: Label, text: str) -> None:
        """Say a part of which all is there."""
        self._end()
        self._put(label, text)
        self._end()

    def _settle_unmarked(self, text: str) -> Reasoning:
        """A text without markers is the answer, unless it is an object that calls a tool."""
        at = calls_in_object(text, self._tools)
        if at is None:
            self._whole("answer", text)
            return Reasoning()
        self._whole("thought", text[:at])
        return self._settle_action(text[at:])

    def _settle_action(self, text: str) -> Reasoning:
        """What the part says that begins with an action."""
        found = find_actions(text.strip(), self._tools)
        if found.thought:
            self._whole("thought", found.thought)
        if found.actions:
            return Reasoning(actions=found.actions, note=_DROPPED.format("action") if found.dropped else "")
        if found.answer is not None:
            self._whole("answer", found.answer)
            return Reasoning()
        if found.rest is not None:
            return self._again(found.rest)
        if text.lstrip().startswith(("{", "`", "~")):  # an object within a thought, and no call
            return self._again(text, objects=False)
        return Reasoning(problem=found.problem)

    def _again(self, text: str, *, objects: bool = True) -> Reasoning:
        """Read on in a text that is no action."""
        if self._depth == _DEEPEST:
            return Reasoning(problem=ONLY_THOUGHT)
        reader = ReasoningReader(self._tools)
        reader._depth, reader._objects = self._depth + 1, objects
        if not objects:
            reader._begin("thought")
        reader.feed(text)
        reader.close()
        self._whole("thought", reader.reasoning.thought)
        self._whole("answer", reader.reasoning.answer or "")
        return reader.reasoning


def _begun(text: str, tags: Sequence[str]) -> int:
    """From where the end of the text could still become one of the tags; its length, where it cannot."""
    at = max(text.rfind("<"), text.rfind("["))
    return at if at >= 0 and any(tag.startswith(text[at:]) for tag in tags) else len(text)
