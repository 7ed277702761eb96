"""The runs that go on, what waits in them, and who works: read when metrics are collected, from whatever thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from opentelemetry.metrics import Observation

from . import names
from .fork import after_fork
from .tally import CONTENT, EXPORT, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions

    from .bounded import Bounded
    from .instruments import Callback


class Going:
    """A run that goes on. It lives as long as somebody can still hear of its end."""

    __slots__ = ("__weakref__", "agent", "calls", "context", "engine", "luggage", "workflow")

    def __init__(self, workflow: str, agent: str | None, context: Context) -> None:
        self.workflow = workflow
        self.agent = agent
        self.context = context
        """What is current in it: the span, where there is one."""
        self.engine: ref[Any] | None = None
        """The engine's run, as its first step has told."""
        self.calls = [0, 0]
        """Those of models and of tools, in all segments of an agent's run."""
        self.luggage: dict[str, str] | None = None
        """What is stored with an agent's run."""

    def begin(self, luggage: dict[str, str], before: str) -> None:
        """It is an agent's. `before`: what is stored of its calls in the segments before this one."""
        self.luggage = luggage
        if before:
            self.calls = [int(many) for many in before.split()]
            luggage[names.CALLS_BEFORE] = before

    def called(self, *, tool: bool) -> None:
        """A model or a tool was called."""
        if self.luggage is not None:
            self.calls[tool] += 1
            self.luggage[names.CALLS_BEFORE] = "{} {}".format(*self.calls)


class Load:
    """All runs that go on, and the events that were sent."""

    def __init__(self, bounded: Bounded) -> None:
        self._bounded = bounded
        self._going: dict[int, ref[Going]] = {}
        self._places: dict[tuple[str, str], Mapping[str, str]] = {}
        self._workflows: dict[str, Mapping[str, str]] = {}
        self._sent: dict[tuple[str | None, str], tuple[str, str]] = {}
        self._events = Tally()
        after_fork(self._forked)

    def _forked(self) -> None:
        """The runs that go on are the parent's."""
        self._going.clear()

    def enter(self, ident: int, going: Going) -> None:
        """A run begins."""
        self._going[ident] = ref(going)
        if going.workflow not in self._workflows:
            self._workflows[going.workflow] = {names.WORKFLOW_OF: going.workflow}

    def leave(self, ident: int) -> None:
        """It has ended."""
        self._going.pop(ident, None)

    def clear(self) -> None:
        """Forget the runs that go on: nobody will hear of their end here."""
        self._going.clear()

    def place(self, workflow: str | None, step: str) -> Mapping[str, str]:
        """The dimensions of a step. Its gauges are 0 while nothing goes on: a series that comes and goes has gaps."""
        bounded = self._bounded
        key = bounded.value(names.WORKFLOW_OF, workflow or ""), bounded.value(names.STEP, step)
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = {names.WORKFLOW_OF: key[0], names.STEP: key[1]}
        return found

    def sent(self, workflow: str | None, event: str) -> None:
        """An event was sent."""
        key = self._sent.get((workflow, event))
        if key is None:
            bounded = self._bounded
            key = bounded.value(names.WORKFLOW_OF, workflow or ""), bounded.value(names.EVENT_TYPE, event)
            if names.OTHER not in key:  # else there would be no end of them
                self._sent[workflow, event] = key
        self._events.add(*key)

    def callbacks(self) -> dict[str, Callback]:
        """What is observed, by metric."""
        return {
            names.METRIC_RUNS: self._observe_runs,
            names.METRIC_QUEUE_DEPTH: self._observe_depth,
            names.METRIC_BUSY: self._observe_busy,
            names.METRIC_EVENTS: lambda _: _counts(self._events, names.WORKFLOW_OF, names.EVENT_TYPE),
            names.METRIC_CONTENT_DROPPED: lambda _: _counts(CONTENT, names.CONTENT_REASON),
            names.METRIC_EXPORT_DROPPED: lambda _: _counts(EXPORT, names.SIGNAL, names.EXPORT_REASON),
        }

    def _live(self) -> Iterator[tuple[Going, dict[str, tuple[int, int]]]]:
        """The runs that go on, each with what its steps have to do."""
        for ident, known in list(self._going.items()):
            going = known()
            engine: Any = None if going is None or going.engine is None else going.engine()
            if going is None or (going.engine is not None and engine is None):
                self.leave(ident)  # it was given up: nobody holds it, and it never ended
                continue
            load: dict[str, tuple[int, int]] | None = {} if engine is None else engine.load()
            if load is not None:
                yield going, load

    def _observe_runs(self, _: CallbackOptions) -> Iterator[Observation]:
        many = dict.fromkeys(list(self._workflows), 0)
        for going, _load in self._live():
            many[going.workflow] = many.get(going.workflow, 0) + 1
        for workflow, number in many.items():
            yield Observation(number, self._workflows[workflow])

    def _observe_depth(self, _: CallbackOptions) -> Iterator[Observation]:
        return self._sums(0)

    def _observe_busy(self, _: CallbackOptions) -> Iterator[Observation]:
        return self._sums(1)

    def _sums(self, which: int) -> Iterator[Observation]:
        sums = dict.fromkeys(list(self._places), 0)
        for going, load in self._live():
            for step, both in load.items():
                place = going.workflow, self._bounded.value(names.STEP, step)
                sums[place] = sums.get(place, 0) + both[which]
        for (workflow, step), number in sums.items():
            yield Observation(number, {names.WORKFLOW_OF: workflow, names.STEP: step})


def _counts(tally: Tally, *dimensions: str) -> Iterator[Observation]:
    for key, many in tally.read().items():
        yield Observation(many, dict(zip(dimensions, key, strict=True)))
