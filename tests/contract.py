"""Every span that agentflow ends while the tests run is checked: whoever made the provider, in whatever thread."""

from __future__ import annotations

import logging
from random import SystemRandom
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator

from agentflow_instrumentation import names
from agentflow_instrumentation.conventions import Place, check, check_trace, check_tree, placed
from agentflow_instrumentation.receiver import OtlpReceiver


class Contract(logging.Handler):
    """What was wrong so far. Hears what the SDK complains of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.wrong: list[str] = []
        self.checks: list[Checks] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Hear of spans that end twice or change when they have ended, and of contexts that nobody can leave."""
        text = record.getMessage()
        if "ended span" in text or "detach context" in text:
            self.wrong.append(text)

    def broken(self) -> list[str]:
        """What was wrong since this was last asked."""
        wrong, self.wrong = self.wrong, []
        checks, self.checks = self.checks, []
        for one in checks:
            places, one.places = one.places, []
            wrong += check_tree(places)
        return wrong


contract = Contract()


class Checks(SpanProcessor):
    """Checks each span of one provider when it ends, and all of them together when the test is over."""

    def __init__(self) -> None:
        self.places: list[Place] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Check a span of ours."""
        scope = span.instrumentation_scope
        if scope is None or scope.name != names.SCOPE:
            return
        contract.wrong += check(span)
        for name, value in (span.attributes or {}).items():
            if isinstance(value, list) or value is None:  # the SDK makes tuples, and those in the cheap way have to be
                contract.wrong.append(f"{span.name}: {name} is {value!r}")
        if not self.places:
            contract.checks.append(self)
        self.places.append(placed(span))


class Unseeded(IdGenerator):
    """Ids that are new each time, also where hypothesis begins `random` anew for each example."""

    def __init__(self) -> None:
        self.random = SystemRandom()

    def generate_span_id(self) -> int:
        """Of 64 bits."""
        return self.random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        """Of 128 bits."""
        return self.random.getrandbits(128) or 1


def watch() -> None:
    """Let every provider and every receiver have its spans checked from now on."""
    made, left = TracerProvider.__init__, OtlpReceiver.__exit__

    def make(self: TracerProvider, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **{"id_generator": Unseeded(), **kwargs})
        self.add_span_processor(Checks())

    def leave(self: OtlpReceiver, *args: Any) -> None:
        left(self, *args)
        contract.wrong += check_trace(self.spans)

    TracerProvider.__init__ = make  # type: ignore[method-assign]  # because nothing else sees every provider
    OtlpReceiver.__exit__ = leave  # type: ignore[method-assign]  # because spans of other programs arrive only here
    for name in ("opentelemetry.sdk.trace", "opentelemetry.context"):
        logging.getLogger(name).addHandler(contract)
