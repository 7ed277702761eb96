"""What a trace has to have, said in tests; what it has instead, where it has not.

```python
with recorded_trace() as trace:
    await workflow.run()
trace.has("step", name="greet", outcome="ok")
```
"""

from __future__ import annotations

import difflib
from collections import Counter
from contextlib import contextmanager
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any, Self, cast, get_args

from agentflow.observe import Outcome, add_observer, remove_observer

from . import names
from .conventions import CONVENTIONS, check_trace
from .received import SpanRecord, record_of, tree_of
from .spans import SpanObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from .content import Content
    from .spans import Events


class Trace:
    """The spans of a test, and what they have to be. What is asked of it raises `AssertionError`, or returns it again.

    A span is named by all of its name (`"step greet"`) or by the first word of it (`"step"`).
    """

    def __init__(self, spans: Callable[[], Iterable[Any]]) -> None:
        self._spans = spans

    def __str__(self) -> str:
        return tree_of(self.spans)

    @property
    def spans(self) -> list[SpanRecord]:
        """All that have ended, as they began."""
        return sorted(map(record_of, self._spans()), key=lambda span: span.start)

    def has(  # noqa: PLR0913 because a span has these sides
        self,
        span: str,
        *,
        name: str | None = None,
        outcome: str | None = None,
        parent: str | None = None,
        attributes: Mapping[str, object] | None = None,
        count: int | None = None,
    ) -> Self:
        """There is such a span, or there are exactly `count`.

        - `name`: the span's name after its first word: the step, the tool, the model.
        - `outcome`: "ok", "error", "timeout", "cancelled", "suspended", "retried", "collecting", "dropped".
        - `parent`: the span in which it is, "" for none.
        - `attributes`: values that it has, `...` for any.

        Raises `ValueError` for an outcome that there is not, and for a first word that is a kind of span misspelt.
        """
        wanted = _Wanted(span, name, outcome, parent, attributes or {})
        all_of_them = self.spans
        found = [one for one in all_of_them if not wanted.misses(one, all_of_them)]
        if found if count is None else len(found) == count:
            return self
        msg = f"there is no {wanted}" if not found else f"there are {len(found)}, not {count}: {wanted}"
        if not found:
            msg += wanted.nearest(all_of_them)
        raise AssertionError(self._shown(msg))

    def has_no(
        self,
        span: str,
        *,
        name: str | None = None,
        outcome: str | None = None,
        parent: str | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> Self:
        """There is no such span. Raises `ValueError` as `has` does: what is misspelt is never there."""
        wanted = _Wanted(span, name, outcome, parent, attributes or {})
        all_of_them = self.spans
        found = [one for one in all_of_them if not wanted.misses(one, all_of_them)]
        if not found:
            return self
        times = "" if len(found) == 1 else f", {len(found)} times"
        raise AssertionError(self._shown(f"there is a span that should not be{times}: {wanted}"))

    def tree(self, expected: str) -> Self:
        """All spans are these, as they began: each in a line, two spaces deeper than its parent; outcomes but "ok".

        Spans of events count where `expected` has one.
        """
        want = dedent(expected).strip().splitlines()
        got = tree_of(self.spans, events=any(line.lstrip().startswith("event ") for line in want)).splitlines()
        if [line.rstrip() for line in want] != got:
            lines = "\n".join(difflib.ndiff([line.rstrip() for line in want], got))
            msg = f"the trace is another one; - should be there, + is there:\n{indent(lines, '  ')}"
            raise AssertionError(msg)
        return self

    def links(self, span: str, *, to: Sequence[str]) -> Self:
        """There is such a span that links to spans of these names, each as often as it is there."""
        all_of_them = self.spans
        by_id = {one.span_id: one.name for one in all_of_them}
        found = [one for one in all_of_them if _is(one, span)]
        linked = [[by_id.get(link.span_id, f"(unknown {link.span_id})") for link in one.links] for one in found]
        if any(_same(each, to) for each in linked):
            return self
        msg = f"there is no {span!r} that links to {list(to)}"
        if found:
            msg += "; they link to " + ", or to ".join(str(each) for each in linked)
        raise AssertionError(self._shown(msg))

    def well_formed(self) -> Self:
        """Each span of agentflow's is as docs/spans.md says."""
        wrong = check_trace(self.spans)
        if wrong:
            raise AssertionError(self._shown("\n".join(wrong)))
        return self

    def _shown(self, msg: str) -> str:
        shown = str(self)
        return f"{msg}\nthe trace is\n{indent(shown, '  ')}" if shown else f"{msg}\nthere are no spans"


def assert_trace(source: Any) -> Trace:
    """What tests ask of spans: of those of an `OtlpReceiver`, an `InMemorySpanExporter`, or a list of spans.

    Raises `TypeError` for anything else.
    """
    finished: Callable[[], Iterable[Any]] | None = getattr(source, "get_finished_spans", None)
    if finished is not None:
        return Trace(finished)
    found = Trace(lambda: getattr(source, "spans", source))
    if not hasattr(source, "spans") and not isinstance(source, list | tuple):
        msg = (
            f"assert_trace({source!r}): there are no spans in a {type(source).__name__}. Give it an OtlpReceiver, an "
            "InMemorySpanExporter, or a list of spans."
        )
        raise TypeError(msg)
    return found


@contextmanager
def recorded_trace(*, content: Content = "full", events: Events = "spans") -> Generator[Trace]:
    """Record the spans of everything that starts inside the block, in memory; no provider has to be set up.

    - `content`, `events`: as `setup` has them; here all content is there unless you say otherwise.
    """
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 because only those who test need it
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415 because as above
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415 because as above
        InMemorySpanExporter,
    )
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415 because as above

    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observer = SpanObserver(provider, content=content, events=events)
    add_observer(observer)
    try:
        yield Trace(exporter.get_finished_spans)
    finally:
        remove_observer(observer)
        observer.close()


class _Wanted:
    """What a span has to be."""

    def __init__(
        self, span: str, name: str | None, outcome: str | None, parent: str | None, attributes: Mapping[str, object]
    ) -> None:
        _check("outcome", outcome, get_args(Outcome), at_all=True)
        _check("span", span.partition(" ")[0], tuple(CONVENTIONS), at_all=False)
        self._span = span if name is None else f"{span} {name}"
        self._outcome = outcome
        self._parent = parent
        self._attributes = attributes

    def __str__(self) -> str:
        said = [repr(self._span)]
        if self._outcome is not None:
            said.append(f"with outcome {self._outcome!r}")
        if self._parent is not None:
            said.append(f"in {self._parent!r}" if self._parent else "without a parent")
        said += [f"with {key} {'there' if value is ... else repr(value)}" for key, value in self._attributes.items()]
        return ", ".join(said)

    def misses(self, span: SpanRecord, all_of_them: list[SpanRecord]) -> list[str]:
        """What a span has not, beginning with its name."""
        missing: list[str] = []
        if not _is(span, self._span):
            missing.append(f"it is {span.name!r}")
        outcome = span.attributes.get(names.OUTCOME)
        if self._outcome is not None and outcome != self._outcome:
            missing.append(f"its outcome is {outcome!r}")
        if self._parent is not None:
            around = next((one for one in all_of_them if one.span_id == span.parent_id), None)
            if not (around is None and not self._parent) and not (around is not None and _is(around, self._parent)):
                missing.append("it has no parent" if around is None else f"it is in {around.name!r}")
        for key, value in self._attributes.items():
            found: Any = span.attributes.get(key)
            if key not in span.attributes:
                missing.append(f"it has no {key}")
            elif value not in (..., found, _frozen(found)):
                missing.append(f"its {key} is {found!r}")
        return missing

    def nearest(self, spans: list[SpanRecord]) -> str:
        """The span that comes next to it, and what that lacks."""
        if not spans:
            return ""

        def distance(span: SpanRecord) -> float:
            alike = difflib.SequenceMatcher(None, span.name, self._span).ratio()
            return len(self.misses(span, spans)) - alike + (0 if _is(span, self._span) else 10)

        best = min(spans, key=distance)
        return f"\nnearest is {best.name!r}: {', '.join(self.misses(best, spans))}"


def _check(what: str, given: str | None, choices: tuple[str, ...], *, at_all: bool) -> None:
    """What is misspelt would never be found. `at_all`: there are no others than these."""
    if given is None or given in choices:
        return
    close = difflib.get_close_matches(given, choices, 1, 0.8)
    if close or at_all:
        meant = f' Did you mean "{close[0]}"?' if close else ""
        msg = f"{what} {given!r}: there is no such {what}.{meant} Choose from: {', '.join(choices)}."
        raise ValueError(msg)


def _is(span: SpanRecord, name: str) -> bool:
    return name in {span.name, span.name.partition(" ")[0]}


def _same(some: Sequence[str], wanted: Sequence[str]) -> bool:
    return Counter(some) == Counter(wanted)


def _frozen(value: Any) -> object:
    """A list as the tuple that the SDK has, for who asks with one."""
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value
