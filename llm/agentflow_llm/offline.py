"""A model without a language model: it chooses tools by their words, and answers by quoting what they returned."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .chat import BaseChatModel
from .errors import LLMOutputError
from .extraction import Extraction
from .loose import as_dict, as_list, excerpt, parsed
from .messages import ChatMessage, RefusalPart, Reply, TextPart, ToolCallPart
from .reading import Text, quotes, stems, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Unpack

    from .messages import AnyPart, ToolDefinition, ToolResultPart
    from .model import ModelOptions
    from .output import OutputFormat
    from .reading import Quote
    from .records import ChatCall

CLOSING = "(offline: no language model was asked; these are quotations, chosen by their words)"

_MOST_CALLS = 2
_MOST_QUOTES = 3
_LEAST_SCORE = 0.12
_LEAST_SHARED = 2
"""A sentence with less of the question, or with fewer of its words, is no answer: one word may be there by chance."""
_LEAST_SPOKEN = 0.5
"""Texts that have so much of the question's words are about it, whatever each of their sentences has."""
_LEAST_NUMBERED = 0.3
"""Passages that a search found all have words of the question: so much is wanted of a sentence in one of these."""
_CLOSE = 0.7
_SHORT = 400
_ASKING = "ask input keyword message phrase prompt q queries query question request search term text topic"
_HANDLING = "file filename handle id ids key link path ref reference source uri url"
_QUESTIONS = frozenset(_ASKING.split())
"""Words in the names of parameters that take the question itself."""
_HANDLES = frozenset(_HANDLING.split())
"""Words in the names of parameters that take what only another tool can tell."""
_TEXTS = ("text", "content", "passage", "snippet", "body", "summary", "document", "page_content")
_HEADINGS = ("heading", "title", "section")
_SOURCES = ("source", "id", "url", "path", "title", "name")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_PASSAGE = re.compile(r"^\[(\d+)\][ \t]*(.*)$", re.MULTILINE)
_OTHERWISE = re.compile(r"\bsay (?:only|just|exactly):\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_LABEL = re.compile(r"(?:question|q|query)\s*:\s*", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“`]([^\"”`]+)[\"”`]")
_NAME = re.compile(r"\b[A-Z][\w-]*(?:(?:,? (?:of |the |de |la |van |von )?)[A-Z][\w-]*)*")


class OfflineModel(BaseChatModel):
    """Works without a network, and without understanding: the same messages get the same answer.

    - It calls the tools whose words the question has, with what fits their parameters: the question itself,
      names, numbers and choices in it, and values of the same name in the JSON of earlier results. For
      one question no call is made twice; what was found for an earlier question does not count.
    - Then it answers with the sentences, of the results or of the text above the question, that speak most
      of the question, and with their sources. Where none does, it says so.

    Where the text above the question has numbered passages, "[1] ...", each sentence is quoted with the number of its
    own; and where it says what to say if they do not hold the answer, "say only: ...", that is what is said then.

    An `output=` is filled in the same way, from the sentences that would be quoted. Where what it must have is not
    there, or could be this as well as that, the answer is a refusal that says so. Every other answer ends with a
    line that says what it is.

    It takes the options of other models, so that it can stand in for them, and makes no use of them.
    """

    def __init__(self, **options: Unpack[ModelOptions]) -> None:
        super().__init__("offline", "offline", **options)

    async def answer(self, call: ChatCall) -> Reply:
        """See `OfflineModel`."""
        talk = _Talk(call.messages)
        calls = talk.calls(call.tools, call.parameters.get("tool_choice"))
        content: Sequence[AnyPart] = calls
        if not calls:
            said = f"{talk.answer()}\n\n{CLOSING}"
            content = [TextPart(text=said) if call.output is None else talk.filled(call.output)]
        return Reply(
            message=ChatMessage(role="assistant", content=content),
            finish_reason="tool_calls" if calls else "stop",
            model=self.model,
        )


@dataclass(frozen=True)
class _Result:
    """What came of a tool call."""

    part: ToolResultPart
    arguments: dict[str, Any]

    @property
    def data(self) -> Any:
        """Its JSON, or None where it is plain text."""
        return parsed(self.part.content)

    def objects(self) -> Iterator[dict[str, Any]]:
        """The JSON objects in it, better ones first where they have a score."""
        found = [*_objects(self.data)]
        yield from sorted(found, key=lambda item: -_score(item))

    def texts(self) -> list[Text]:
        """The passages in it."""
        given = [str(value) for value in self.arguments.values() if isinstance(value, str)]
        otherwise = given[0] if given and not _takes(self.arguments, _QUESTIONS) else self.part.name
        if self.data is None or isinstance(self.data, str):
            return [Text(self.data or self.part.content, otherwise)]
        items = ((item, _first(item, _TEXTS)) for item in self.objects())
        return [
            Text(text, _first(item, _SOURCES) or otherwise, _first(item, _HEADINGS)) for item, text in items if text
        ]

    def short(self) -> str | None:
        """It as one line, where it is a plain value rather than passages to search."""
        if _takes(self.arguments, _HANDLES) or self.part.content.strip() in {"", "[]", "{}", "null"}:
            return None
        if self.data is not None and self.texts():
            return None
        text = " ".join(self.part.content.split())
        return text if 0 < len(text) <= _SHORT and "\n\n" not in self.part.content else None


class _Talk:
    """A conversation as far as it matters to what comes next."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        asked = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
        said = messages[asked].text if asked >= 0 else ""
        self.question, self.context = _split(said)
        self.passages, told = _numbered(self.context)
        otherwise = _OTHERWISE.search(told) if self.passages else None
        self._otherwise = otherwise[1].strip() if otherwise else ""
        now = messages[asked + 1 :]  # what was found for another question says nothing about this one
        made = {call.id: call for message in now for call in message.tool_calls}
        self.made = {(call.name, _same(parsed(call.arguments))) for call in made.values()}
        self.count = len({call.id for message in messages for call in message.tool_calls})
        self.results = [_result(part, made) for message in now for part in message.tool_results]

    def calls(self, tools: Sequence[ToolDefinition], choice: str | None) -> list[ToolCallPart]:
        """The calls that are worth making now, of one tool."""
        if choice == "none" or not self.question:
            return []
        forced = choice not in {None, "auto"}
        offers: list[tuple[float, str, list[dict[str, Any]]]] = []
        for tool in tools:
            if forced and choice not in {"required", tool.name}:
                continue
            worth, arguments = self._offer(tool, tools)
            new = [given for given in arguments if (tool.name, _same(given)) not in self.made]
            if new and (worth > 0 or forced):
                offers.append((worth, tool.name, new))
        if not offers:
            return []
        _, name, arguments = max(offers, key=lambda offer: offer[0])
        return [
            ToolCallPart(id=f"call_{self.count + number}", name=name, arguments=json.dumps(given, ensure_ascii=False))
            for number, given in enumerate(arguments, start=1)
        ]

    def _offer(self, tool: ToolDefinition, tools: Sequence[ToolDefinition]) -> tuple[float, list[dict[str, Any]]]:
        """How much a tool has to do with the question, and the arguments of each call that could be made of it."""
        properties = as_dict(tool.parameters.get("properties"))
        required = [name for name in as_list(tool.parameters.get("required")) if name in properties]
        about = stems(f"{tool.name} {tool.description} {' '.join(properties)}")
        asked = set(stems(self.question))
        named = len(asked.intersection(stems(tool.name)))
        worth = named + 0.5 * len(asked.intersection(about))
        fill = _Filling(self, tool, [other.name for other in tools if other is not tool])
        many: str | None = None
        choices: dict[str, list[Any]] = {}
        for name in properties:
            values = fill.values(name, as_dict(properties[name]), needed=name in required)
            if name in required and not values:
                return 0.0, []
            if values:
                choices[name] = values
                many = many or (name if len(values) > 1 else None)
        worth += fill.evidence
        if not required and not named and self.results:
            worth = 0.0
        calls = [{name: values[0] for name, values in choices.items()}]
        if many is not None:
            calls = [{**calls[0], many: value} for value in choices[many][:_MOST_CALLS]]
        return worth, calls

    def answer(self) -> str:
        """What the results, or the text above the question, say about it."""
        if not self.question:
            return "There is no question to answer."
        results = self.results
        good = [result for result in results if result.part.outcome == "ok"]
        lines = [
            f"{result.part.name}{_shown(result.arguments)}: {short}" for result in good if (short := result.short())
        ]
        lines += self._quoted()
        failed = [result for result in results if result.part.outcome != "ok"]
        if not lines and failed:
            return "\n".join(f"{r.part.name} failed: {excerpt(r.part.content, 500)}" for r in failed)
        if lines:
            return "\n".join(lines)
        looked = "Nothing that the tools returned" if results else "Nothing that I was given"
        return self._otherwise or f"I cannot answer this. {looked} speaks of it: {self.question}"

    def filled(self, output: OutputFormat) -> TextPart | RefusalPart:
        """An object of a given shape, as JSON; or why there is none."""
        texts = self._texts()
        if not self.context and not self.results:  # what is to be filled in may stand in the request itself
            texts = [Text(self.question, "")]
        extraction = Extraction(self.question, texts, self._best(texts), self.known)
        found, missing = extraction.fill(output.schema)
        text = json.dumps(found, ensure_ascii=False)
        if missing or all(value is None for value in found.values()):
            what = f"to put into {', '.join(map(repr, missing))}" if missing else "of it"
            why = self._otherwise or f"I cannot answer this. I find nothing {what}: {self.question}"
            return RefusalPart(text=f"{why}\n\n{CLOSING}")
        try:
            output.read(text)
        except LLMOutputError as error:
            return RefusalPart(text=f"I cannot answer this. What I find does not fit: {error}\n\n{CLOSING}")
        return TextPart(text=text)

    def known(self, name: str) -> list[Any]:
        """The values of that name in the newest results that have any, best first."""
        for result in reversed([r for r in self.results if r.part.outcome == "ok"]):
            found = [item[name] for item in result.objects() if isinstance(item.get(name), str | int | float)]
            if not found and isinstance(result.data, int | float) and stem_of(name) in stems(result.part.name):
                found = [result.data]
            if found:
                return list(dict.fromkeys(found))[:_MOST_CALLS]
        return []

    def _texts(self) -> list[Text]:
        """All that may be quoted."""
        results = [result for result in self.results if result.part.outcome == "ok"]
        texts = [text for result in results if result.short() is None for text in result.texts()]
        headings = {text.source: text.heading for text in texts if text.heading}
        texts = [replace(text, heading=headings.get(text.source, "")) for text in texts]
        return [*texts, *(self.passages or [Text(self.context, "")] * bool(self.context))]

    def _best(self, texts: Sequence[Text]) -> list[Quote]:
        """The sentences that answer the question."""
        found = quotes(self.question, texts)
        if not found:
            return []
        best = found[0].score
        asked = set(stems(self.question))
        least, score = max(1, min(_LEAST_SHARED, len(asked) - 1)), max(_LEAST_SCORE, _CLOSE * best)
        spoken = asked.intersection(stems(" ".join(text.text for text in texts)))
        if self.passages:
            score = max(_LEAST_NUMBERED, score)
        elif len(spoken) >= max(_LEAST_SHARED, _LEAST_SPOKEN * len(asked)):
            # the texts as a whole are about it, so one word in a sentence of theirs is no chance
            least, score = 1, min(score, best)
        return [quote for quote in found if quote.score >= score and quote.shared >= least][:_MOST_QUOTES]

    def _quoted(self) -> list[str]:
        kept = self._best(self._texts())
        return [f"{quote.text} [{quote.source}]" if quote.source else quote.text for quote in kept]


class _Filling:
    """Finds values for the parameters of one tool. `evidence` grows with each that could hardly be chance."""

    def __init__(self, talk: _Talk, tool: ToolDefinition, others: Sequence[str]) -> None:
        self.talk = talk
        self.tool = tool
        self.evidence = 0.0
        self._numbers = [float(number) for number in _NUMBER.findall(talk.question)]
        self._follows = any(other in tool.description for other in others)

    def values(self, name: str, schema: dict[str, Any], *, needed: bool) -> list[Any]:
        """What the parameter could be, best first; nothing where that cannot be known."""
        question = self.talk.question
        options = as_list(schema.get("enum"))
        if options:
            chosen = [option for option in options if set(stems(str(option))) & set(stems(question))]
            self.evidence += len(chosen[:1])
            return chosen[:1]
        known = self.talk.known(name) if needed else []
        if known:
            self.evidence += 2
            return known
        kind = schema.get("type")
        if kind in {"integer", "number"}:
            return self._number(name, kind, needed=needed)
        if kind == "boolean":
            return [bool(set(stems(name)) & set(stems(question)))] if needed else []
        if not needed or kind not in {"string", None}:
            return []
        return self._string(name, schema)

    def _number(self, name: str, kind: str, *, needed: bool) -> list[Any]:
        if not needed:
            said = re.search(rf"\b{re.escape(name)}\W+(?:of |to )?(\d+)", self.talk.question, re.IGNORECASE)
            return [int(said[1])] if said else []
        if not self._numbers:
            return []
        number = self._numbers.pop(0)
        self.evidence += 0.5
        return [int(number) if kind == "integer" else number]

    def _string(self, name: str, schema: dict[str, Any]) -> list[Any]:
        question = self.talk.question
        described = {word.lower() for word in words(name)}
        if described & _QUESTIONS:
            self.evidence += 0.25  # who wants the question itself, is worth asking
            return [question]
        quoted: list[Any] = _QUOTED.findall(question)
        if self._follows or described & _HANDLES:
            return quoted[:_MOST_CALLS]
        about = set(stems(f"{self.tool.name} {self.tool.description} {name} {schema.get('description') or ''}"))
        if not about & set(stems(question)):
            return []
        first = question.split(maxsplit=1)[0]
        named = [n for n in _NAME.findall(question) if n != first and not set(stems(n)) <= about]
        left = " ".join(word for word in words(question) if stems(word) and stem_of(word) not in about)
        return (quoted or named or [left] * bool(left))[:_MOST_CALLS]


def stem_of(name: str) -> str:
    """The last word of a name, as `stems` has it: a parameter `max_population` is about population."""
    return (stems(name) or [name])[-1]


def _result(part: ToolResultPart, made: dict[str, ToolCallPart]) -> _Result:
    call = made.get(part.call_id)
    return _Result(part, as_dict(parsed(call.arguments)) if call is not None else {})


def _split(said: str) -> tuple[str, str]:
    """A user's message as the question, and the text that it is about, if there is one."""
    paragraphs = [paragraph.strip() for paragraph in re.split(r"\n\s*\n", said.strip()) if paragraph.strip()]
    lines = said.strip().splitlines()
    if len(paragraphs) < 2 and len(lines) > 1:  # noqa: PLR2004 because one and the other are two
        paragraphs = lines
    if len(paragraphs) <= 1:
        return said.strip(), ""
    at = last = len(paragraphs) - 1
    if _LABEL.match(paragraphs[last]) is None:
        at = next((i for i in reversed(range(last + 1)) if paragraphs[i].endswith("?")), last)
    found = _LABEL.match(paragraphs[at])
    question = paragraphs[at][found.end() :] if found else paragraphs[at]
    return question, "\n\n".join(paragraphs[:at] + paragraphs[at + 1 :])


def _numbered(context: str) -> tuple[list[Text], str]:
    """The passages of a text that numbers them from 1, each with its number as source, and what stands before them."""
    starts: list[re.Match[str]] = []
    for found in _PASSAGE.finditer(context):
        if int(found[1]) == len(starts) + 1:
            starts.append(found)
    if not starts:
        return [], context
    ends = [*(found.start() for found in starts[1:]), len(context)]
    passages = [
        Text(context[found.end() : end].strip() or found[2], found[1], found[2])
        for found, end in zip(starts, ends, strict=True)
    ]
    return passages, context[: starts[0].start()]


def _objects(data: Any) -> Iterator[dict[str, Any]]:
    """The objects of a JSON value: it, or those in its lists."""
    if isinstance(data, dict):
        held = as_dict(data)
        yield held
        data = [item for value in held.values() for item in as_list(value)]
    yield from (as_dict(item) for item in as_list(data) if isinstance(item, dict))


def _score(item: dict[str, Any]) -> float:
    score = item.get("score")
    return float(score) if isinstance(score, int | float) else 0.0


def _first(item: dict[str, Any], names: Iterable[str]) -> str:
    return next((str(item[name]) for name in names if isinstance(item.get(name), str | int) and item[name] != ""), "")


def _same(arguments: Any) -> str:
    return json.dumps(arguments, sort_keys=True)


def _takes(arguments: dict[str, Any], kind: frozenset[str]) -> bool:
    return any({word.lower() for word in words(name)} & kind for name in arguments)


def _shown(arguments: dict[str, Any]) -> str:
    return f"({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
