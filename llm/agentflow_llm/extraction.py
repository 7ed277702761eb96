"""The fields of a JSON schema, filled with what stands in texts; what does not stand there stays empty."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .loose import as_dict, as_list
from .reading import quotes, stems, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .reading import Quote, Text

_NAME = re.compile(r"\b[A-Z][\w'-]*(?: (?:(?:of|the|de|la|van|von) )*[A-Z][\w'-]*)*")
_NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DATE = re.compile(rf"\b\d{{4}}-\d{{2}}-\d{{2}}\b|\b(?:\d{{1,2}} )?{_MONTH} (?:\d{{1,2}}, )?\d{{4}}\b")
_WRITTEN = ("%Y-%m-%d", "%d %B %Y", "%B %d, %Y", "%d %b %Y", "%b %d, %Y")
_QUOTED = re.compile(r"[\"\u201c]([^\"\u201d]+)[\"\u201d]")
_YEAR = re.compile(r"[12]\d{3}")
_NEGATED = re.compile(r"\b(?:not|no|never|none|neither|nor|without|cannot)\b|n't\b", re.IGNORECASE)
_PLACES = {"address", "capital", "city", "country", "location", "place", "region", "state", "town", "village"}
_PEOPLE = {"author", "client", "customer", "employee", "name", "owner", "people", "person", "user", "who", "writer"}
_SAYINGS = {
    "answer", "content", "description", "explanation", "quote", "reason", "reasoning", "reply", "response", "result",
    "sentence", "summary", "text",
}  # fmt: skip
"""Words in the names of fields that take what is said to the question."""
_ASKED = {"query", "question"}
_SOURCES = {"citation", "citations", "source", "sources"}
_WHERE = re.compile(r"\b(?:in|at|from|near|to|of)\s+(?:the\s+)?$")
_NEAR = 1.0
_BESIDE = 0.3
_IN_PLACE = 0.5
_MARGIN = 0.1
"""How much likelier a value must be than the next one: what could be this as well as that, is not known."""
_MOST = 5


class Extraction:
    """Values for fields, from the texts that a question is asked about.

    - `said`: the sentences that answer the question, the best first.
    - `known`: the values of a field of this name in JSON that was found, best first.
    """

    def __init__(
        self, question: str, texts: Sequence[Text], said: Sequence[Quote], known: Callable[[str], Sequence[Any]]
    ) -> None:
        self._question = question
        self._texts = texts
        self._said = said
        self._known = known
        self._asked = set(stems(question)) if "?" in question else set[str]()
        self._definitions: Mapping[str, Any] = {}
        self._within: list[str] = []
        """The definitions that are being filled: a schema may hold itself."""

    def fill(self, schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The object, and the names of the fields that it must have and for which nothing was found."""
        self._definitions = as_dict(schema.get("$defs")) or as_dict(schema.get("definitions"))
        name = str(schema.get("$ref"))
        self._within = [name]
        return self._object({**self._definition(name), **schema})

    def _definition(self, name: str) -> dict[str, Any]:
        return as_dict(self._definitions.get(name.rpartition("/")[2]))

    def _object(self, schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        filled: dict[str, Any] = {}
        missing: list[str] = []
        needed = as_list(schema.get("required"))
        for name, field in as_dict(schema.get("properties")).items():
            value, found = self._value(name, as_dict(field))
            if found:
                filled[name] = value
            elif name in needed:
                missing.append(name)
        return filled, missing

    def _value(self, name: str, schema: dict[str, Any]) -> tuple[Any, bool]:
        """The value of a field, and whether there is one."""
        if "$ref" in schema:
            ref = str(schema["$ref"])
            if ref in self._within:
                return None, False
            self._within.append(ref)
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            answer = self._value(name, {**self._definition(ref), **rest})
            self._within.pop()
            return answer
        several = as_list(schema.get("anyOf")) or as_list(schema.get("oneOf")) or as_list(schema.get("allOf"))
        kinds = schema.get("type")
        if isinstance(kinds, list):
            several = [{**schema, "type": kind} for kind in as_list(schema["type"])]
        for one in map(as_dict, several):
            value, found = self._value(name, {"description": schema.get("description"), **one})
            if found:
                return value, True
        if several:
            return None, any(as_dict(one).get("type") == "null" for one in several)
        if "const" in schema:
            return schema["const"], True
        values = self._values(name, schema)
        return (values[0], True) if values else (None, False)

    def _values(self, name: str, schema: dict[str, Any]) -> list[Any]:  # noqa: PLR0911 because each type has its own
        """What may stand in a field, best first; nothing where that cannot be known."""
        options = as_list(schema.get("enum"))
        if options:
            return self._option(name, schema, options)
        match schema.get("type"):
            case "object":
                filled, missing = self._object(schema)
                return [] if missing or all(value is None for value in filled.values()) else [filled]
            case "array":
                return [self._list(name, as_dict(schema.get("items")), schema)]
            case "boolean":
                return self._truth(name, schema)
            case "integer" | "number":
                known = [value for value in self._known(name) if isinstance(value, int | float)]
                return known or [_number(text) for text in self._candidates(name, schema, _numbers)]
            case "string" | None:
                return self._string(name, schema)
            case _:
                return []

    def _option(self, name: str, schema: dict[str, Any], options: Sequence[Any]) -> list[Any]:
        """The option whose words stand in the best sentence that has those of any."""
        known = [value for value in self._known(name) if value in options]
        for quote in () if known else self._sentences(name, schema):
            found = set(stems(quote.text))
            chosen = [option for option in options if set(stems(str(option))) and set(stems(str(option))) <= found]
            if chosen:
                return chosen if len(chosen) == 1 else []
        return known

    def _list(self, name: str, items: dict[str, Any], schema: dict[str, Any]) -> list[Any]:
        single = name.removesuffix("s")
        if name in _SOURCES:
            return list(dict.fromkeys(quote.source for quote in self._said if quote.source))
        items = {"description": schema.get("description"), **items}
        if "$ref" in items or "anyOf" in items:
            value, found = self._value(single, items)
            return [value] if found else []
        return self._values(single, {**items, "several": True})[:_MOST]

    def _truth(self, name: str, schema: dict[str, Any]) -> list[Any]:
        about = set(stems(name)) - {"is", "has"}
        for quote in self._sentences(name, schema):
            if about and about <= set(stems(quote.text)):
                return [_NEGATED.search(quote.text) is None]
        return [value for value in self._known(name) if isinstance(value, bool)]

    def _string(self, name: str, schema: dict[str, Any]) -> list[Any]:
        described = {word.lower() for word in words(name)}
        if described & _ASKED:
            return [self._question]
        known = [str(value) for value in self._known(name)]
        if known:
            return known
        if described & _SOURCES:
            return [quote.source for quote in self._said if quote.source][:1]
        if described & _SAYINGS:
            return [" ".join(quote.text for quote in self._said)] if self._said else []
        if schema.get("format") in {"date", "date-time"} or "date" in described:
            return [_date(text, schema) for text in self._candidates(name, schema, _dates)]
        return self._candidates(name, schema, _names)

    def _sentences(self, name: str, schema: dict[str, Any]) -> list[Quote]:
        """The sentences that may tell a field, those first that say most of it and of the question."""
        about = f"{name} {schema.get('description') or ''}"
        if self._asked:
            allowed = {quote.text for quote in self._said}
            return [quote for quote in quotes(f"{self._question} {about}", self._texts) if quote.text in allowed]
        return quotes(about, self._texts)

    def _candidates(
        self, name: str, schema: dict[str, Any], find: Callable[[str], Iterator[tuple[int, str]]]
    ) -> list[str]:
        """Values in the sentences, the likeliest first; none where two are as likely."""
        about = set(stems(name)) | set(stems(str(schema.get("description") or "")))
        scored: dict[str, float] = {}
        for quote in self._sentences(name, schema):
            for at, text in find(quote.text):
                if self._asked and set(stems(text)) <= self._asked and not text.isdecimal():
                    continue
                near = self._nearness(quote.text, at, text, about)
                if find is _names:
                    near += self._fitness(quote.text[:at], about)
                    if not near and not self._asked:  # a name like another, of which nothing says that it is the one
                        continue
                if name == "year" and not _YEAR.fullmatch(text):
                    continue
                scored[text] = max(quote.score + near, scored.get(text, 0.0))
        ranked = sorted(scored, key=lambda text: -scored[text])
        tied = len(ranked) > 1 and scored[ranked[0]] - scored[ranked[1]] < _MARGIN
        return [] if tied and not schema.get("several") else ranked

    def _fitness(self, before: str, about: set[str]) -> float:
        """More where a name stands as those of places do, or of people, and the field is for such."""
        kind = _PLACES if _WHERE.search(before) else _PEOPLE
        return _IN_PLACE if about & set(stems(" ".join(kind))) else 0.0

    def _nearness(self, sentence: str, at: int, text: str, about: set[str]) -> float:
        """More where words of the field, or of the question, stand close by."""
        before, after = words(sentence[:at])[::-1], words(sentence[at + len(text) :])
        return _NEAR * _closeness(before, after, about) + _BESIDE * _closeness(before, after, self._asked)


def _closeness(before: Sequence[str], after: Sequence[str], wanted: set[str]) -> float:
    places = [place for side in (before, after) for place, word in enumerate(side) if wanted & set(stems(word))]
    return 1 / (1 + min(places)) if places else 0.0


def _names(sentence: str) -> Iterator[tuple[int, str]]:
    """What is quoted, and what is written with capitals; a capital at the beginning may be one of the sentence."""
    for found in _QUOTED.finditer(sentence):
        yield found.start(1), found[1]
    for found in _NAME.finditer(sentence):
        name, at = found[0], found.start()
        first, _, rest = name.partition(" ")
        if at == 0 and not stems(first):  # "The", "In"
            name, at = rest, len(first) + 1
        if name and stems(name):
            yield at, name


def _numbers(sentence: str) -> Iterator[tuple[int, str]]:
    return ((found.start(), found[0]) for found in _NUMBER.finditer(sentence))


def _dates(sentence: str) -> Iterator[tuple[int, str]]:
    return ((found.start(), found[0]) for found in _DATE.finditer(sentence))


def _number(text: str) -> int | float:
    number = float(text.replace(",", ""))
    return int(number) if number.is_integer() else number


def _date(text: str, schema: Mapping[str, Any]) -> str:
    if schema.get("format") != "date":
        return text
    for written in _WRITTEN:
        try:
            return datetime.strptime(text, written).date().isoformat()  # noqa: DTZ007 because a day has no time zone
        except ValueError:
            continue
    return text
