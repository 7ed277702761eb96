"""Traces, metrics and logs as `setup()` sets them up, each from its observer to its ways out."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from . import discovery, providers
from .content import CAPTURE
from .discovery import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .content import Content
    from .discovery import Signal
    from .hub import Hub
    from .pipeline import Way
    from .prometheus import Page
    from .readers import Readings
    from .redactors import Redactor
    from .spans import Events, SpanObserver

_previewing: WeakSet[_Spans] = WeakSet()
"""Those whose content level nobody chose: it is "none" as soon as spans go elsewhere than to the terminal."""
_handlers: list[logging.Handler] = []
"""What leads log lines to the logger provider; the root logger has the last of them, lest a line be told twice."""


class Part:
    """One signal, from its observer to its outlets, until `close` and `stop`."""

    def __init__(self, signal: Signal, provider: Any, hub: Hub, ways: Sequence[Way], choice: Choice) -> None:
        self.provider = provider
        self.ways = tuple(ways)
        self.undo: list[Callable[[], None]] = []
        """What else is to be taken back."""
        self._signal = signal
        self._hub = hub
        self._choice = choice
        for way in ways:
            hub.add(way)
        signal.use(provider, choice)

    def close(self) -> None:
        """Observe no more, and let the observer tell what is open."""
        self._choice.observer.close()
        self._signal.leave(self.provider, self._choice, ours=self.provider in providers.ours)
        for back in self.undo:
            back()

    def undo_all(self) -> None:
        """As if it had never been, where another part cannot be set up."""
        self.close()
        self.stop()

    def stop(self) -> None:
        """Let go of the outlets, which have been shut down."""
        for way in self.ways:
            self._hub.remove(way)


class _Spans(Choice):
    observer: SpanObserver

    def __init__(self, provider: Any, content: Content | None, events: Events, redactors: Sequence[Redactor]) -> None:
        self._provider = provider
        self._content: Content | None = content
        self._events: Events = events
        self._redactors = redactors
        super().__init__(self._make)

    def _make(self) -> Any:
        from .spans import SpanObserver  # noqa: PLC0415 because only who traces needs it

        return SpanObserver(self._provider, content=self._content, events=self._events, redactors=self._redactors)

    def hide(self) -> None:
        """Show no content any more."""
        self._content = "none"
        self.observer.content = "none"


def traces(  # noqa: PLR0913 because setup() says all of it
    provider: Any,
    outlets: Sequence[Way],
    *,
    sampling: float | None,
    content: Content | None,
    events: Events,
    redactors: Sequence[Redactor],
) -> Part:
    """Traces: how many, and what of the user's data they show."""
    unsample = providers.sample(provider, sampling)  # first: the observer asks what the sampler is like
    hub = providers.span_hub(provider)
    led = (*hub.outlets, *outlets)
    stays_here = provider in providers.ours and all(outlet.key == "console" for outlet in led)
    for earlier in () if stays_here else tuple(_previewing):
        earlier.hide()
    by_default = content is None and CAPTURE not in os.environ
    choice = _Spans(provider, "preview" if by_default and stays_here else content, events, redactors)
    if by_default:
        _previewing.add(choice)
    part = Part(discovery.TRACES, provider, hub, outlets, choice)
    part.undo.append(unsample)
    return part


def metrics(provider: Any, ways: Sequence[Readings | Page]) -> Part:
    """Metrics."""
    from .metrics import MetricObserver  # noqa: PLC0415 because only who measures needs it

    hub = providers.reading_hub(provider)
    part = Part(discovery.METRICS, provider, hub, ways, Choice(partial(MetricObserver, provider)))
    for way in ways:
        way.attach(provider, hub)
    return part


def logs(provider: Any, outlet: Way, *, content: Content | None, redactors: Sequence[Redactor]) -> Part:
    """Log records of runs, and the lines of the program, unless the program sends them itself."""
    from .bridge import OtelHandler  # noqa: PLC0415 because only who sends logs needs it
    from .logs import LogObserver  # noqa: PLC0415 because as above

    choice = Choice(partial(LogObserver, provider, content=content, redactors=redactors))
    part = Part(discovery.LOGS, provider, providers.log_hub(provider), [outlet], choice)
    if not any(hasattr(handler, "_logger_provider") for handler in logging.getLogger().handlers):  # the SDK's has one
        handler = OtelHandler(provider, content=content, redactors=redactors)
        _hand_to(handler)
        part.undo.append(partial(_hand_to, handler, done=True))
    return part


def _hand_to(handler: logging.Handler, *, done: bool = False) -> None:
    root = logging.getLogger()
    for known in _handlers:
        root.removeHandler(known)
    if done:
        _handlers.remove(handler)
    else:
        _handlers.append(handler)
    for latest in _handlers[-1:]:
        root.addHandler(latest)
