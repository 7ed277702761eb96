"""Agentflow's spans beside all else that a service has: whose they are, where they hang, and none told twice."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import ref

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agentflow import Context as RunContext
from agentflow import Event, StartEvent, StopEvent, Workflow, step
from agentflow.observe import Observer, add_observer
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.discovery import Signal
from agentflow_instrumentation.identity import ByIdentity
from agentflow_llm import ChatMessage, Embeddings, Reply, ScriptedModel, TextPart
from agentflow_llm.chat import BaseChatModel
from agentflow_llm.embedding import BaseEmbedder
from agentflow_llm.records import ChatCall, EmbeddingsCall

HELLO = [ChatMessage(role="user", content="Hello")]


class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=baggage.get_baggage("tenant"))


class Asking(Workflow):
    """Asks a model in its step, then in a span of its own; and runs another workflow."""

    def __init__(self, tracer: trace.Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    @step
    async def ask(self, ev: StartEvent) -> StopEvent:
        model = ScriptedModel(["Hi", "Hi"])
        await model.chat(HELLO)
        await Chain().run()
        with self._tracer.start_as_current_span("mine"):
            await model.chat(HELLO)
        return StopEvent()


class Provider(TracerProvider):
    """One that keeps what ends."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self._kept = InMemorySpanExporter()
        self.add_span_processor(SimpleSpanProcessor(self._kept))

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self._kept.get_finished_spans(), key=lambda span: span.start_time or 0)

    def tree(self, others: dict[int, str] | None = None) -> list[tuple[str, str | None]]:
        """The name of each span, and its parent's, which is here or one of these others."""
        known = {span.context.span_id: span.name for span in self.spans if span.context} | (others or {})
        parents = [known.get(span.parent.span_id, "unknown") if span.parent else None for span in self.spans]
        return [(span.name, parent) for span, parent in zip(self.spans, parents, strict=True)]


@pytest.fixture
def provider() -> Provider:
    made = Provider()
    add_observer(SpanObserver(made))
    return made


# Several providers


async def test_each_of_several_providers_has_a_trace_of_its_own() -> None:
    first, second = Provider(), Provider()
    for one in (first, second):
        add_observer(SpanObserver(one))
    await Chain().run()
    assert first.tree() == second.tree()
    assert first.tree() == [
        ("invoke_workflow Chain", None),
        ("event StartEvent", "invoke_workflow Chain"),
        ("step one", "invoke_workflow Chain"),
    ]
    for one in (first, second):
        _, event, triggered = one.spans
        assert [link.context for link in triggered.links] == [event.context]


async def test_in_each_of_them_calls_and_runs_inside_are_where_they_belong() -> None:
    first, second = Provider(), Provider()
    for one in (first, second):
        add_observer(SpanObserver(one))
    host = first.get_tracer("host")
    with host.start_as_current_span("job"):
        await Asking(host).run()
    hosts = {span.context.span_id: span.name for span in first.spans if span.name in {"job", "mine"} and span.context}
    expected = {
        ("invoke_workflow Asking", "job"),
        ("event StartEvent", "invoke_workflow Asking"),
        ("step ask", "invoke_workflow Asking"),
        ("chat scripted", "step ask"),
        ("invoke_workflow Chain", "step ask"),
        ("event StartEvent", "invoke_workflow Chain"),
        ("step one", "invoke_workflow Chain"),
        ("chat scripted", "mine"),
    }
    assert set(second.tree(hosts)) == expected
    assert {pair for pair in first.tree(hosts) if pair[0] not in hosts.values()} == expected
    assert len({span.context.trace_id for one in (first, second) for span in one.spans if span.context}) == 1


async def test_the_span_of_a_host_is_the_parent_of_runs_in_every_provider_that_has_it(provider: Provider) -> None:
    with provider.get_tracer("host").start_as_current_span("job"):
        await Chain().run()
    assert provider.tree()[:2] == [("job", None), ("invoke_workflow Chain", "job")]


class ProxyTracerProvider:
    """As Logfire's: no hash, equal to all others of its kind, and of a name that the API's own has, too."""

    __hash__ = None  # type: ignore[assignment]  # because dataclasses have it so

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProxyTracerProvider)


def test_a_provider_without_a_hash_is_one_like_any_other() -> None:
    api: Any = ModuleType("api_of_the_test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "api_of_the_test", api)
        signal = Signal("api_of_the_test", "PROVIDER", "NO_SUCH_VARIABLE", Closing)
        for _ in range(2):
            api.PROVIDER = ProxyTracerProvider()
            assert signal.observer().provider is api.PROVIDER
            assert signal.observer() is signal.observer()


class Closing(Observer):
    def __init__(self, provider: object) -> None:
        self.provider = provider

    def close(self) -> None:
        """Have nothing to end."""


def test_a_provider_that_cannot_be_used_takes_nothing_with_it(caplog: pytest.LogCaptureFixture) -> None:
    api: Any = ModuleType("api_of_the_test")
    api.PROVIDER = ProxyTracerProvider()

    def refuse(provider: object) -> Any:
        raise TypeError(provider)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "api_of_the_test", api)
        signal = Signal("api_of_the_test", "PROVIDER", "NO_SUCH_VARIABLE", refuse)
        assert [signal.observer(), signal.observer()] == [None, None]
    assert caplog.messages == ["a ProxyTracerProvider cannot be used; it is left out"]


def test_what_is_known_by_identity_lives_as_long_as_it_does() -> None:
    known: ByIdentity[str] = ByIdentity()
    first, second = ProxyTracerProvider(), ProxyTracerProvider()
    known[first] = "first"
    assert (first in known, second in known) == (True, False)
    known[second] = "second"
    assert (known[first], known.get(second)) == ("first", "second")
    known.discard(second)
    assert known.get(second) is None
    gone = ref(first)
    del first
    assert gone() is None


# Web frameworks


class Spans:
    """As the ASGI instrumentation does it: a SERVER span around each request, current while it is handled."""

    def __init__(self, app: Any, provider: Provider) -> None:
        self._app = app
        self._tracer = provider.get_tracer("asgi")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._tracer.start_as_current_span(scope["path"], kind=SpanKind.SERVER):
            token = otel.attach(baggage.set_baggage("tenant", "acme"))
            try:
                await self._app(scope, receive, send)
            finally:
                otel.detach(token)


class Told(Event):
    number: int


class Counting(Workflow):
    """Puts numbers on its stream until it is stopped."""

    @step
    async def count(self, ctx: RunContext, ev: StartEvent) -> StopEvent:
        for number in range(1000):
            ctx.write_event_to_stream(Told(number=number))
            await asyncio.sleep(0)
        await asyncio.Event().wait()
        return StopEvent()


async def plain(request: Request) -> Response:
    return JSONResponse(await Chain().run())


async def in_background(request: Request) -> Response:
    async def later() -> None:
        await Chain().run()

    return JSONResponse({}, background=BackgroundTask(later))


async def detached(request: Request) -> Response:
    request.app.state.later = asyncio.create_task(_after_the_request(request.app.state.answered))
    return JSONResponse({})


async def _after_the_request(answered: asyncio.Event) -> None:
    await answered.wait()
    await Chain().run()


async def streamed(request: Request) -> Response:
    async def lines() -> AsyncGenerator[str]:
        handler = Counting().run()
        try:
            async for event in handler.stream_events():
                yield f"data: {event}\n\n"
        finally:
            await handler.cancel_run()

    return StreamingResponse(lines(), media_type="text/event-stream")


@pytest.fixture
def app(provider: Provider) -> Any:
    made = Starlette(
        routes=[Route(f"/{view.__name__}", view) for view in (plain, in_background, detached, streamed)],
    )
    made.state.answered = asyncio.Event()
    wrapped: Any = Spans(made, provider)
    return SimpleNamespace(asgi=wrapped, state=made.state)


async def get(app: Any, path: str, *, leave_at: int = 1_000) -> bytes:
    """The body of the answer. The client goes after so many pieces."""
    body: list[bytes] = []
    gone = asyncio.Event()
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in asked:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        body.append(message.get("body", b""))
        if len(body) > leave_at:
            gone.set()

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "asgi": {}}
    await app.asgi(scope, receive, send)
    return b"".join(body)


async def test_a_run_in_a_request_is_below_its_span_and_has_its_baggage(app: Any, provider: Provider) -> None:
    assert await get(app, "/plain") == b'"acme"'
    assert provider.tree()[:2] == [("/plain", None), ("invoke_workflow Chain", "/plain")]


async def test_a_run_in_the_background_of_a_request_is_below_it_too(app: Any, provider: Provider) -> None:
    await get(app, "/in_background")
    assert provider.tree()[:2] == [("/in_background", None), ("invoke_workflow Chain", "/in_background")]


async def test_a_run_that_begins_when_the_request_is_over_stays_in_its_trace(app: Any, provider: Provider) -> None:
    await get(app, "/detached")
    app.state.answered.set()
    await app.state.later
    assert provider.tree()[:2] == [("/detached", None), ("invoke_workflow Chain", "/detached")]


async def test_a_stream_that_its_reader_leaves_ends_its_run_as_cancelled(
    app: Any, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    before = otel.get_current()
    with caplog.at_level(logging.DEBUG, logger="opentelemetry"):
        await get(app, "/streamed", leave_at=3)
        for _ in range(100):  # the run is not waited for: the request was cancelled
            await asyncio.sleep(0)
    assert caplog.messages == []
    assert otel.get_current() == before
    outcomes = {span.name: (span.attributes or {}).get("agentflow.outcome") for span in provider.spans}
    assert outcomes == {
        "/streamed": None, "invoke_workflow Counting": "cancelled", "event StartEvent": "ok", "step count": "cancelled",
    }  # fmt: skip
    assert provider.tree()[:2] == [("/streamed", None), ("invoke_workflow Counting", "/streamed")]


# Instrumentors of clients: what keeps them silent below a model's call


class Looking(BaseChatModel):
    """A model of the user's own: what its context is while it answers."""

    def __init__(self, look: Callable[[], None] = lambda: None) -> None:
        super().__init__("own", "own")
        self.seen = Context()
        self._look = look

    async def answer(self, call: ChatCall) -> Reply:
        self._look()
        self.seen = otel.get_current()
        return Reply(message=ChatMessage(role="assistant", content=[TextPart(text="Hi")]), model="own")


class LookingEmbedder(BaseEmbedder):
    def __init__(self) -> None:
        super().__init__("own", "own")
        self.seen = Context()

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        self.seen = otel.get_current()
        return Embeddings([[1.0] for _ in call.texts], model="own")


class Data:
    """As the record into which the official instrumentors put what they would tell."""


def imported(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these modules be there, as if somebody had imported them."""
    for name in names:
        module = ModuleType(name)
        module.InferenceData = Data  # type: ignore[attr-defined]  # because one of them has it
        patch.setitem(sys.modules, name, module)


def said(context: Context) -> dict[str, object]:
    """What a context says besides what is current."""
    return {key: value for key, value in context.items() if "current-span" not in key and key != "agentflow.place"}


@pytest.fixture(autouse=True)
def no_instrumentors(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith(("openinference.", "opentelemetry.util.genai", "opentelemetry.semconv_ai")):
            monkeypatch.delitem(sys.modules, name)


async def test_where_no_instrumentor_is_imported_a_call_changes_nothing(provider: Provider) -> None:
    model = Looking()
    await model.chat(HELLO)
    assert said(model.seen) == {}
    assert trace.get_current_span(model.seen).get_span_context() == provider.spans[0].context


MODELS = "suppress_language_model_instrumentation"
INFERENCE = "opentelemetry.genai.client.inference.context"


@pytest.mark.parametrize(
    ("module", "keys"),
    [
        ("openinference.instrumentation.openai", {MODELS, _SUPPRESS_INSTRUMENTATION_KEY}),
        ("openinference.instrumentation.anthropic", {MODELS, _SUPPRESS_INSTRUMENTATION_KEY}),
        ("logfire._internal.integrations.llm_providers.llm_provider", {MODELS, _SUPPRESS_INSTRUMENTATION_KEY}),
        ("openinference.instrumentation", set[str]()),
        ("opentelemetry.util.genai.invocation", {MODELS, INFERENCE}),
        ("opentelemetry.semconv_ai", {MODELS}),
    ],
)
async def test_a_call_is_told_to_the_instrumentors_that_are_imported(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, module: str, keys: set[str]
) -> None:
    imported(monkeypatch, module)
    model, embedder = Looking(), LookingEmbedder()
    before = otel.get_current()
    await model.chat(HELLO)
    await embedder.embed(["a"])
    assert said(model.seen).keys() == said(embedder.seen).keys() == keys
    assert all(value is True or isinstance(value, Data) for value in said(model.seen).values())
    assert otel.get_current() == before


async def test_where_nobody_looks_on_the_instrumentors_of_others_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    imported(monkeypatch, "openinference.instrumentation.openai")
    model = Looking()
    await model.chat(HELLO)
    assert said(model.seen) == {}


async def test_baggage_that_a_model_leaves_stays_without_what_silences_others(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(monkeypatch, "openinference.instrumentation.openai", "opentelemetry.util.genai.invocation")

    async def call() -> Context:
        await Looking(lambda: void(otel.attach(baggage.set_baggage("tenant", "acme")))).chat(HELLO)
        return otel.get_current()

    left = await asyncio.create_task(call())
    assert baggage.get_baggage("tenant", left) == "acme"
    assert not said(left).keys() & {MODELS, INFERENCE, _SUPPRESS_INSTRUMENTATION_KEY}


async def test_what_the_host_has_silenced_stays_so(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(monkeypatch, "openinference.instrumentation.openai")

    async def call() -> Context:
        otel.attach(otel.set_value(_SUPPRESS_INSTRUMENTATION_KEY, "by the host"))
        await ScriptedModel(["Hi"]).chat(HELLO)
        return otel.get_current()

    assert said(await asyncio.create_task(call())) == {_SUPPRESS_INSTRUMENTATION_KEY: "by the host"}


def void(_: object) -> None:
    """Keep nothing."""


def test_an_observer_needs_no_provider_of_the_sdk() -> None:
    add_observer(SpanObserver(trace.NoOpTracerProvider()))
    add_observer(Observer())
    assert Chain().run_sync() is None
