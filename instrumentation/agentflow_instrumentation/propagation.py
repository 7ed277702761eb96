"""Traces that go on in another process: what a message carries, and what its consumer runs under.

```python
message.headers = inject()                      # where it is sent: in a step, a tool, a request
with continued(message.headers):                # where it is taken up
    await workflow.run(order=message.body)
```
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from opentelemetry import baggage, propagate, trace
from opentelemetry import context as otel

from agentflow.observe import current_session
from agentflow.observe import session as belonging_to

from . import names
from .trail import leave, with_span

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, MutableMapping

    from opentelemetry.context import Context

    Headers = Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None


def inject(headers: MutableMapping[str, str] | None = None, *, session: bool = False) -> MutableMapping[str, str]:
    """What a message has to carry for its consumer to go on with the current trace: `{"traceparent": "00-..."}`.

    - `headers`: filled and returned; by default a new dict.
    - `session`: let the baggage name the current session and its user, too, as `session.id` and `user.id`.

    The format is that of OpenTelemetry's global propagator: W3C `traceparent`, `tracestate` and `baggage` unless
    `OTEL_PROPAGATORS` or the host says otherwise. What is not sampled, and what came in where telemetry is turned
    off, is handed on like anything else.
    """
    made: MutableMapping[str, str] = {} if headers is None else headers
    context = otel.get_current()
    current = current_session.get() if session else None
    if current is not None:
        context = baggage.set_baggage(names.SESSION, current.id, context)
        if current.user is not None:
            context = baggage.set_baggage(names.USER, current.user, context)
    propagate.inject(made, context)
    return made


def extract(headers: Headers) -> Context:
    """The OpenTelemetry context that a message came from; the current one, where it says nothing.

    - `headers`: a mapping, or pairs as Kafka's clients have them; names and values are text or bytes.
    """
    given: Any = headers
    pairs: Iterable[tuple[Any, Any]] = given.items() if isinstance(headers, Mapping) else given or ()
    carrier = {_text(name).lower(): _text(value) for name, value in pairs if isinstance(value, str | bytes)}
    return propagate.extract(carrier)


@contextmanager
def continued(headers: Headers, *, link: bool = False, session: bool = False) -> Generator[None]:
    """Let what is run inside go on with the trace of a message.

    - `headers`: see `extract`.
    - `link`: begin a new trace for each run, whose span links to the sender's. For messages that may have waited
      long, or of which one trace sends thousands.
    - `session`: let runs belong to the session and user that the baggage names as `session.id` and `user.id`, if it
      does. They come from whoever sent the message.
    """
    context = extract(headers)
    if link:
        sender = trace.get_current_span(context)
        context = with_span(trace.INVALID_SPAN, context)
        if sender.get_span_context().is_valid:
            context = otel.set_value(names.SENT_BY, sender.get_span_context(), context)
    named = _session(context) if session else nullcontext()
    token = otel.attach(context)
    try:
        with named:
            yield
    finally:
        leave(token)


def _session(context: Context) -> Any:
    id_, user = (baggage.get_baggage(key, context) for key in (names.SESSION, names.USER))
    if not (isinstance(id_, str) and id_):
        return nullcontext()
    return belonging_to(id_, user if isinstance(user, str) and user else None)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
