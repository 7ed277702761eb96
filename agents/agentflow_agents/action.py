"""Calls of tools in the text of a model, in whatever shape models write them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agentflow.errors import shown
from agentflow_llm.loose import as_dict, as_list

from .binding import arguments_of, unfenced
from .literal import UnreadableError, read_literal, value_or_text
from .marker import mark_in_line, mark_of_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentflow_llm import ToolDefinition

    from .marker import Kind

CALL_TAGS: Final = (
    "<tool_call>",
    "<|tool_call>",
    "<|tool_call|>",
    "<function_call>",
    "<function=",
    "<function>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
)
"""What models begin a call with that were taught a markup of their own."""
_TAG = re.compile("|".join(map(re.escape, CALL_TAGS)))
_RESULT_TAG = re.compile(r"</?tool_response>|<\|tool_response\|?>")
_FUNCTION = re.compile(
    r"\s*(?:<function=([^>\s]+)>|<function>\s*([^<\s]+)\s*</function>|([A-Za-z_][\w.-]*)\s*(?:\[ARGS\])?(?=\s*\{))\s*"
)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_BETWEEN = re.compile(r"[;,\s]*(?=[{\[](?!TOOL))")

_NO_TOOL: Final = {"none", "null", "no", "na", "n a", "no tool", "no action", "none needed", "nothing", "not needed"}
_ANSWERING: Final = {"answer", "final answer", "finish", "respond", "response", "reply", "speak", "done"}
_NAMES: Final = ("action", "tool", "tool_name", "name", "function_name", "function")
_INPUTS: Final = ("action_input", "actioninput", "tool_input", "arguments", "args", "parameters", "kwargs", "input")
_WRAPPERS: Final = ("tool_call", "tool_calls", "function_call", "function", "command", "action", "actions")
_THOUGHTS: Final = ("thought", "thoughts", "reasoning")

_WORDS = re.compile(r"[^a-z0-9]+")
_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_CALLED = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*([(\[{])(.*)", re.DOTALL)
_CLOSES: Final = {"(": ")", "[": "]", "{": "}"}
_OPENS = re.compile(r"\s*(?:(?:```+|~~~+)[ \t]*\w*\s*)?(?=[{\[])")
_INPUT_WORD = re.compile(r"\s*(?:tool[ _])?(?:input|arguments|args|parameters)[ \t]*[:\uff1a=]", re.IGNORECASE)
_OBJECT = re.compile(r"^(?:[ \t]*(?:```+|~~~+)[ \t]*\w*[ \t]*\n)?\s*[{\[]", re.MULTILINE)
_MOST_OBJECTS: Final = 20
"""So many are looked at: each that breaks off is read to the end of the text."""
_INPUT_IN_LINE = re.compile(r"\s[*_]{0,2}action[ _]?input[*_]{0,2}[ \t]*[:\uff1a]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Action:
    """A tool that is asked for: its name, and JSON text, which is an object wherever one could be made out."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the part of a text says that begins with an action.

    - `actions`: those that stand before the first result that the model made up by itself.
    - `answer`: what was given in place of an action; None where that was none.
    - `rest`: what stands behind an action that says that no tool is wanted; None where there is none such.
    - `thought`: what was thought, where that stands within an object.
    - `dropped`: did something stand behind the actions that must not count?
    - `problem`: what is wrong, in words for the model, where there is nothing of all this.
    """

    actions: tuple[Action, ...] = ()
    answer: str | None = None
    rest: str | None = None
    thought: str = ""
    dropped: bool = False
    problem: str = ""


class _Call(NamedTuple):
    """A call before its arguments are made out. `given` is text, an object's value, or None for nothing yet."""

    name: str
    given: Any
    end: int
    sure: bool = True
    """Is it known to be one, even if no input follows?"""


def find_actions(text: str, tools: Sequence[ToolDefinition]) -> Found:
    """The calls in a text that begins with one. What follows them does not count."""
    if _TAG.match(text):
        return _result(_calls_in_markup(text), tools, text, "")
    calls: list[_Call] = []
    problem = thought = ""
    dropped = False
    for kind, body, end in _sections(text):
        if kind == "action":
            made, thought_too, problem_too = _calls_of(body, end, tools)
            calls += made
            thought = thought or thought_too
            problem = problem or problem_too
        elif kind == "input":
            if calls and calls[-1].given is None:
                calls[-1] = calls[-1]._replace(given=body, end=end, sure=True)
            else:
                problem = problem or "There is an Action Input, but no Action before it that names the tool."
        elif kind != "thought":
            dropped = True
            break
    unsure = next((call.name for call in calls if not call.sure), None)
    if unsure is not None:
        calls = [call for call in calls if call.sure]
        problem = problem or f"Action: takes the name of one tool and nothing else, not {shown(unsure)}."
    found = _result(calls, tools, text, problem)
    return Found(found.actions, found.answer, found.rest, thought, dropped or found.dropped, found.problem)


def calls_in_object(text: str, tools: Sequence[ToolDefinition]) -> int | None:
    """Where an object begins that calls a tool, though nothing but its members says so; None where there is none."""
    for found in islice(_OBJECT.finditer(text), _MOST_OBJECTS):
        try:
            value, _ = read_literal(text, found.end() - 1)
        except UnreadableError:
            continue
        if _calls_in(value, tools, 0, sure=False):
            return found.start()
    return None


def _result(calls: Sequence[_Call], tools: Sequence[ToolDefinition], text: str, problem: str) -> Found:
    """The calls with their arguments, up to one that is none."""
    actions: list[Action] = []
    for call in calls:
        tool = tool_named(call.name, tools) or _tool_in_words(call.name, tools)
        plain = _plain(call.name)
        if tool is None and plain in _NO_TOOL | _ANSWERING:
            if actions:
                return Found(tuple(actions), dropped=True)
            said = "" if call.given is None or plain in _NO_TOOL else _said(call.given)
            return Found(answer=said) if said else Found(rest=text[call.end :])
        actions.append(Action(call.name if tool is None else tool.name, arguments_of(call.given, tool)))
    return Found(tuple(actions), problem="" if actions else problem or "The Action could not be read.")


def _sections(text: str) -> Iterator[tuple[Kind, str, int]]:
    """The parts of the text, and where each ends. What stands in an object is not taken for a marker."""
    mark = mark_of_line(text)
    kind: Kind = "action" if mark is None else mark.kind
    at = 0 if mark is None else mark.end
    signs = "" if mark is None else mark.open
    while True:
        at += len(signs) if text.startswith(signs, at) else 0
        found = _next_section(text, at, kind)
        if found is None:
            yield kind, text[at:], len(text)
            return
        following, start, end, signs = found
        yield kind, text[at:start], start
        kind, at = following, end


def _next_section(text: str, at: int, kind: Kind) -> tuple[Kind, int, int, str] | None:
    """The kind of the next part, where its marker begins and ends, and what it opens."""
    if kind in {"action", "input"} and (opening := _OPENS.match(text, at)):
        with suppress(UnreadableError):
            at = read_literal(text, opening.end())[1]
    new_line = False
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        mark = mark_of_line(text, at) if new_line else None
        mark = mark or mark_in_line(text, at, end)
        given = _INPUT_IN_LINE.search(text, at, end) if kind == "action" else None
        if given and (mark is None or given.start() < mark.start):
            return "input", given.start(), given.end(), ""
        if mark is not None and (kind != "input" or mark.kind == "observation" or mark.start == at):
            return mark.kind, mark.start, mark.end, mark.open
        at, new_line = end, True
    return None


def _calls_of(body: str, end: int, tools: Sequence[ToolDefinition]) -> tuple[list[_Call], str, str]:
    """The calls in what stands behind `Action:`; what is thought in there; and what is wrong."""
    body = unfenced(body)
    if not body:
        return [], "", "Action: takes the name of one tool. It is missing."
    if body[0] in "{[":
        try:
            value, _ = read_literal(body)
        except UnreadableError as error:
            return [], "", f"The Action is no valid JSON ({error})."
        calls = _calls_in(value, tools, end, sure=True)
        return calls, _thought_in(value), "" if calls else "The Action names no tool."
    return [_call_of(body, end, tools)], "", ""


def _call_of(text: str, end: int, tools: Sequence[ToolDefinition]) -> _Call:
    """The call that is meant by a name, `name(arguments)`, `name[input]`, or a name with an object behind it."""
    first, _, more = text.partition("\n")
    name = first.strip(" \t*_`\"'<>.,:")
    announced = _INPUT_WORD.match(more)
    given = more[announced.end() :] if announced else more if _OPENS.match(more) else None
    if not _is_name(name, tools) and (called := _CALLED.match(text)):
        inner = called[3]
        if called[2] == "{":
            inner = "{" + inner
        elif _CLOSES[called[2]] in inner:
            inner = inner.rpartition(_CLOSES[called[2]])[0]
        return _Call(called[1], inner, end)
    if _is_name(name, tools) or _NAME.fullmatch(name):
        return _Call(name, given, end)
    return _Call(name, given, end, sure=given is not None)


def _calls_in(value: Any, tools: Sequence[ToolDefinition], end: int, *, sure: bool) -> list[_Call]:
    """The calls that an object, or a list of them, stands for. What is not `sure` to be a call must look like one."""
    if isinstance(value, list):
        return [call for item in as_list(value) for call in _calls_in(item, tools, end, sure=sure)]
    if isinstance(value, str):
        return [_Call(value, None, end)] if sure else []
    members = {_plain(key).replace(" ", "_"): inner for key, inner in as_dict(value).items()}
    for wrapper in _WRAPPERS:
        if isinstance(members.get(wrapper), dict | list):
            calls = _calls_in(members[wrapper], tools, end, sure=sure or wrapper != "actions")
            if calls:
                return calls
    key = next((key for key in _NAMES if isinstance(members.get(key), str)), None)
    if key is None:
        return []
    name: str = members[key]
    tool = tool_named(name, tools)
    given = next((members[each] for each in _INPUTS if each in members), None)
    if given is None and tool is not None:  # they may stand beside the name
        own = as_dict(tool.parameters.get("properties"))
        given = {name: inner for name, inner in as_dict(value).items() if name in own and name != key} or None
    if not sure and not (key == "action" and given is not None) and (tool is None or given is None):
        return []
    return [_Call(name, given, end)]


def _thought_in(value: Any) -> str:
    members = {_plain(key): inner for key, inner in as_dict(value).items()}
    return next((members[key] for key in _THOUGHTS if isinstance(members.get(key), str)), "")


def _calls_in_markup(text: str) -> list[_Call]:
    cut = _RESULT_TAG.search(text)
    text = text if cut is None else text[: cut.start()]
    calls: list[_Call] = []
    at = 0
    while tag := _TAG.search(text, at):
        at = tag.end()
        if named := _FUNCTION.match(text, tag.start() if tag[0].startswith("<function") else at):
            at = named.end()
            given: Any = None
            if text.startswith("{", at):
                given, at = value_or_text(text, at)
            else:
                end = text.find("</function>", at)
                at, body = (len(text), text[at:]) if end < 0 else (end, text[at:end])
                given = dict(_PARAMETER.findall(body)) or None
            calls.append(_Call(named[1] or named[2] or named[3], given, at))
            continue
        while begin := _BETWEEN.match(text, at):
            value, at = value_or_text(text, begin.end())
            calls += _calls_in(value, (), at, sure=True) if not isinstance(value, str) else []
    return calls


def tool_named(name: str, tools: Sequence[ToolDefinition]) -> ToolDefinition | None:
    """The tool that is meant, whatever the case, and with spaces for underscores."""
    plain = {_plain(name), _plain(name.rpartition(".")[2])}
    exact = next((tool for tool in tools if tool.name == name), None)
    return exact or next((tool for tool in tools if _plain(tool.name) in plain), None)


def _tool_in_words(text: str, tools: Sequence[ToolDefinition]) -> ToolDefinition | None:
    """The only tool that a sentence names."""
    named = [tool for tool in tools if " " in text and re.search(rf"\b{re.escape(tool.name)}\b", text)]
    return named[0] if len(named) == 1 else None


def _is_name(name: str, tools: Sequence[ToolDefinition]) -> bool:
    return tool_named(name, tools) is not None or _plain(name) in _NO_TOOL | _ANSWERING


def _plain(name: str) -> str:
    return _WORDS.sub(" ", name.lower()).strip()


def _said(given: Any) -> str:
    """An answer that was given as the input of an action: a text, or an object with the text in it."""
    if isinstance(given, str):
        text = unfenced(given)
        value, end = value_or_text(text)
        if end < len(text) or not isinstance(value, str | dict) or len(as_dict(value)) > 1:
            return text
        given = value if isinstance(value, str) else as_dict(value)
    members = as_dict(given)
    if len(members) == 1:
        given = next(iter(members.values()))
    return given.strip() if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
