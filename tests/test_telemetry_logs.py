"""Log records of OpenTelemetry: of runs and retries, and of what the program logs; and what every line is told."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from opentelemetry import context, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow import (
    ConstantDelayRetryPolicy,
    Context,
    HumanResponseEvent,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    step,
)
from agentflow.clock import use_clock
from agentflow.log import logger
from agentflow.observe import add_observer, session
from agentflow.retry import Retry
from agentflow.testing import FakeClock
from agentflow_agents.tool import Tool
from agentflow_agents.toolbox import Toolbox
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.bridge import OtelHandler
from agentflow_instrumentation.fields import TraceContextFilter, add_trace_context
from agentflow_instrumentation.formatting import configure_logging
from agentflow_instrumentation.logs import LogObserver
from agentflow_instrumentation.record import severity_of
from agentflow_instrumentation.testing import OtlpReceiver
from agentflow_llm.errors import LLMServerError
from agentflow_llm.messages import ChatMessage, Reply
from agentflow_llm.retrying import Retrying
from agentflow_llm.scripted import ScriptedModel

KEY = "sk-abcdefghijklmnopqrstuvwxyz"


@dataclass
class Kept:
    """A log record as it is handed to exporters."""

    event: str | None
    body: Any
    severity: str
    attributes: dict[str, Any]
    span_id: int
    trace_id: int


class Keep:
    """A processor that keeps records."""

    def __init__(self) -> None:
        self.records: list[Kept] = []

    def on_emit(self, log_record: Any) -> None:
        one = log_record.log_record
        told = dict(one.attributes or {})
        self.records.append(Kept(one.event_name, one.body, one.severity_text, told, one.span_id, one.trace_id))

    def enabled(self, **_: Any) -> bool:
        return True

    def shutdown(self) -> None:
        """Nothing is open."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True

    def events(self) -> list[str | None]:
        return [record.event for record in self.records]


def providers() -> tuple[LoggerProvider, Keep]:
    keep = Keep()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(keep)  # type: ignore[arg-type]  # because the SDK's class only says what there is
    return provider, keep


@pytest.fixture
def told() -> Keep:
    """The records of the runs of this test."""
    provider, keep = providers()
    add_observer(LogObserver(provider))
    return keep


@pytest.fixture
def spans() -> Callable[[], dict[int, str]]:
    """The names of the spans that have ended, by id."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider))
    return lambda: {span.context.span_id: span.name for span in exporter.get_finished_spans() if span.context}


class Failing(Workflow):
    """Fails with a text that no log record may have."""

    @step
    async def fail(self, ev: StartEvent) -> StopEvent:
        raise LookupError(f"no {ev.what} for {KEY}")


class Patient(Workflow):
    """Succeeds at the second attempt."""

    tries = 0

    @step(retry_policy=ConstantDelayRetryPolicy(delay=5, maximum_attempts=2))
    async def try_(self, ev: StartEvent) -> StopEvent:
        self.tries += 1
        if self.tries == 1:
            raise ConnectionError("gone")
        return StopEvent(result="there")


class Endless(Workflow):
    """Waits until it is cancelled."""

    @step
    async def wait(self, ev: StartEvent) -> StopEvent:
        await asyncio.Event().wait()
        return StopEvent()


# the records of runs and retries


async def test_a_run_has_a_record_of_its_start_and_of_its_end_in_its_span(
    told: Keep, spans: Callable[[], dict[int, str]]
) -> None:
    class Greeting(Workflow):
        @step
        async def greet(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result="hello")

    with session("chat-42", user="ada"):
        handler = Greeting().run()
        await handler
    began, ended = told.records
    assert (began.event, began.body, began.severity) == ("agentflow.run.started", "run started: Greeting", "INFO")
    assert (ended.event, ended.body, ended.severity) == ("agentflow.run.ended", "run ended: Greeting: ok", "INFO")
    who = {
        "agentflow.run.id": handler.run_id,
        "agentflow.workflow.name": "Greeting",
        "session.id": "chat-42",
        "user.id": "ada",
        "agentflow.segment": 1,
    }
    assert began.attributes == who
    assert 0 < ended.attributes.pop("agentflow.run.duration") < 5
    assert ended.attributes == {**who, "agentflow.outcome": "ok"}
    assert [spans()[record.span_id] for record in told.records] == ["invoke_workflow Greeting"] * 2
    assert began.trace_id == ended.trace_id != 0


@pytest.mark.parametrize(("content", "text"), [("none", None), ("preview", "no bread for **********")])
async def test_a_run_that_fails_tells_the_error_and_its_text_only_where_content_may_go_out(
    content: Any, text: str | None
) -> None:
    provider, keep = providers()
    add_observer(LogObserver(provider, content=content))
    with pytest.raises(LookupError):
        await Failing().run(what="bread")
    ended = keep.records[-1]
    assert (ended.severity, ended.attributes["agentflow.outcome"]) == ("ERROR", "error")
    assert ended.attributes["error.type"] == ended.attributes["exception.type"] == "LookupError"
    assert ended.attributes.get("exception.message") == text
    assert "in fail" in ended.attributes["exception.stacktrace"]
    assert KEY not in str(keep.records)
    assert ("bread" in str(keep.records)) is (text is not None)


async def test_redactors_hold_for_the_texts_of_errors() -> None:
    provider, keep = providers()
    add_observer(LogObserver(provider, content="full", redactors=[lambda text, where: text.replace("bread", "XXX")]))
    with pytest.raises(LookupError):
        await Failing().run(what="bread")
    assert keep.records[-1].attributes["exception.message"] == "no XXX for **********"
    assert "bread" not in str(keep.records)


async def test_a_run_that_is_cancelled_or_takes_too_long_is_told_so(told: Keep) -> None:
    handler = Endless().run()
    await asyncio.sleep(0)
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    with use_clock(clock := FakeClock()):
        late = Endless(timeout=3).run()
        await clock.advance(3)
        with pytest.raises(TimeoutError):
            await late
    ends = [(r.severity, r.attributes["agentflow.outcome"], r.attributes.get("error.type")) for r in told.records[1::2]]
    assert ends == [("INFO", "cancelled", None), ("ERROR", "timeout", "timeout")]


async def test_each_retry_of_a_step_is_a_record_in_the_span_of_the_attempt_that_failed(
    told: Keep, spans: Callable[[], dict[int, str]]
) -> None:
    with use_clock(clock := FakeClock()):
        handler = Patient().run()
        await clock.advance(5)
        assert await handler == "there"
    assert told.events() == ["agentflow.run.started", "agentflow.step.retry", "agentflow.run.ended"]
    retry = told.records[1]
    assert retry.severity == "WARN"
    assert spans()[retry.span_id] == "step try_"
    shown = {k: v for k, v in retry.attributes.items() if k not in {"exception.stacktrace", "agentflow.run.id"}}
    assert shown == {
        "agentflow.workflow.name": "Patient",
        "agentflow.step.name": "try_",
        "agentflow.retry.attempt": 1,
        "agentflow.retry.wait": 5.0,
        "error.type": "ConnectionError",
        "exception.type": "ConnectionError",
    }


async def test_retries_of_models_and_tools_are_records_too(told: Keep) -> None:
    async def flaky(word: str) -> str:
        """Look a word up."""
        if not tries:
            tries.append(word)
            raise ConnectionError("gone")
        return "found"

    tries: list[str] = []
    answer = Reply(message=ChatMessage(role="assistant", content="Yes."), finish_reason="stop")
    scripted = ScriptedModel([LLMServerError("down", status=503), answer])
    box = Toolbox([Tool(flaky, retry=Retry(attempts=2, wait=2))])
    with use_clock(clock := FakeClock()), scripted:
        asking = asyncio.ensure_future(
            Retrying(scripted, Retry(attempts=2, wait=1)).chat([ChatMessage(role="user", content="sesame?")])
        )
        await clock.advance(10)
        await asking
        calling = asyncio.ensure_future(box.execute("c1", "flaky", '{"word": "sesame"}'))
        await clock.advance(10)
        await calling
    assert told.events() == ["agentflow.llm.retry", "agentflow.tool.retry"]
    model, tool = [record.attributes for record in told.records]
    assert (model["gen_ai.request.model"], model["agentflow.retry.wait"]) == ("scripted", 1.0)
    assert (tool["gen_ai.tool.name"], tool["agentflow.retry.wait"]) == ("flaky", 2.0)
    assert "sesame" not in str(told.records)


async def test_runs_that_are_still_open_when_nobody_will_hear_of_their_end_are_suspended() -> None:
    provider, keep = providers()
    add_observer(observer := LogObserver(provider))
    handler = Endless().run()
    await asyncio.sleep(0)
    observer.close()
    assert keep.events() == ["agentflow.run.started", "agentflow.run.suspended"]
    assert keep.records[-1].attributes["agentflow.outcome"] == "suspended"
    observer.close()
    assert len(keep.records) == 2
    await handler.cancel_run()


class Word(HumanResponseEvent):
    """What a person says."""

    text: str


class Ordering(Workflow):
    """Waits for a person."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=(await ctx.wait_for_event(Word)).text)


async def test_a_run_that_waits_for_long_is_suspended_and_resumed(told: Keep) -> None:
    with use_clock(clock := FakeClock()):
        handler = Ordering().run()
        await clock.advance(60)
        handler.ctx.send_event(Word(text="bread"))
        assert await handler == "bread"
    assert told.events() == [f"agentflow.run.{what}" for what in ("started", "suspended", "resumed", "ended")]
    assert [record.attributes["agentflow.segment"] for record in told.records] == [1, 1, 2, 2]
    assert {record.attributes["agentflow.run.id"] for record in told.records} == {handler.run_id}
    assert "agentflow.run.suspended.duration" in told.records[2].attributes
    assert "bread" not in str(told.records)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_records_arrive_by_otlp(protocol: str) -> None:
    with OtlpReceiver() as receiver:
        if protocol == "http":
            from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # noqa: PLC0415 because one of two is asked for
                OTLPLogExporter as HttpExporter,
            )

            exporter: Any = HttpExporter(endpoint=f"{receiver.http_endpoint}/v1/logs")
        else:
            from opentelemetry.exporter.otlp.proto.grpc._log_exporter import (  # noqa: PLC0415 because one of two is asked for
                OTLPLogExporter as GrpcExporter,
            )

            exporter = GrpcExporter(endpoint=receiver.grpc_endpoint, insecure=True)
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        add_observer(LogObserver(provider))
        with pytest.raises(LookupError):
            await Failing().run(what="bread")
        receiver.wait_for(logs=2)
        provider.shutdown()
    began, ended = receiver.logs
    assert (began.event_name, began.severity) == ("agentflow.run.started", "INFO")
    assert (ended.event_name, ended.severity) == ("agentflow.run.ended", "ERROR")
    assert ended.scope == "agentflow"
    assert ended.attributes["exception.type"] == "LookupError"


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_"))}


SOON = {"OTEL_BLRP_SCHEDULE_DELAY": "20"}  # milliseconds; a second by default
KILLED = """
import asyncio, sys
from agentflow import StartEvent, StopEvent, Workflow, step
from agentflow_instrumentation import setup

class Endless(Workflow):
    @step
    async def wait(self, ev: StartEvent) -> StopEvent:
        await asyncio.Event().wait()
        return StopEvent()

setup("otlp", endpoint=sys.argv[1], logs=True)
Endless().run_sync()
"""


def test_a_process_that_is_killed_leaves_the_record_of_its_start() -> None:
    with OtlpReceiver() as receiver:
        process = subprocess.Popen([sys.executable, "-c", KILLED, receiver.http_endpoint], env=_clean() | SOON)
        try:
            receiver.wait_for(logs=1, timeout=30)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert [record.event_name for record in receiver.logs] == ["agentflow.run.started"]
    assert receiver.logs[0].trace_id
    assert not receiver.named("invoke_workflow Endless")


HOST = """
import sys
from agentflow import StartEvent, StopEvent, Workflow, step
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider

class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        return StopEvent()

class Say:
    def on_emit(self, log_record): print(log_record.log_record.event_name)
    def shutdown(self): pass
    def force_flush(self, timeout_millis=0): return True

provider = LoggerProvider()
provider.add_log_record_processor(Say())
_logs.set_logger_provider(provider)
Chain().run_sync()
print("agentflow_instrumentation.spans" in sys.modules)
"""


def test_a_logger_provider_that_the_host_has_set_is_used_without_traces() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HOST], capture_output=True, text=True, env=_clean(), check=False
    )
    assert (done.stdout.split(), done.stderr) == (["agentflow.run.started", "agentflow.run.ended", "False"], "")


# what the program logs


@pytest.fixture
def lines() -> Iterator[Keep]:
    """The records of what this test logs."""
    provider, keep = providers()
    handler = OtelHandler(provider)
    logging.getLogger().addHandler(handler)
    yield keep
    logging.getLogger().removeHandler(handler)


def test_a_line_is_sent_with_its_text_level_fields_and_place(lines: Keep) -> None:
    logging.getLogger("shop").warning(
        "%s items", 3, extra={"order": "A-1", "tags": ["x", "y"], "total": 1.5, "no": None}
    )
    (record,) = lines.records
    assert (record.body, record.severity, record.event) == ("3 items", "WARN", None)
    assert record.attributes.pop("code.file.path") == __file__
    assert record.attributes.pop("code.line.number") > 0
    assert record.attributes == {
        "order": "A-1",
        "tags": '["x","y"]',
        "total": 1.5,
        "code.function.name": "test_a_line_is_sent_with_its_text_level_fields_and_place",
    }


def test_levels_between_the_known_ones_have_a_severity_too() -> None:
    named = [severity_of(level).name for level in (0, 5, 10, 20, 25, 30, 40, 50, 99)]
    assert named == ["TRACE", "TRACE4", "DEBUG", "INFO", "INFO4", "WARN", "ERROR", "FATAL", "FATAL4"]


async def test_a_line_in_a_step_is_told_of_its_run_and_belongs_to_its_span(
    lines: Keep, spans: Callable[[], dict[int, str]]
) -> None:
    class Shop(Workflow):
        @step
        async def sell(self, ev: StartEvent) -> StopEvent:
            logging.getLogger("shop").warning("sold")
            await asyncio.to_thread(logging.getLogger("shop").warning, "packed")
            return StopEvent()

    with session("chat-42"):
        handler = Shop().run()
        await handler
    for record in lines.records:
        assert spans()[record.span_id] == "step sell"
        assert {key: value for key, value in record.attributes.items() if not key.startswith("code.")} == {
            "agentflow.run.id": handler.run_id,
            "agentflow.workflow.name": "Shop",
            "agentflow.step.name": "sell",
            "agentflow.step.attempt": 1,
            "session.id": "chat-42",
        }
    assert [record.body for record in lines.records] == ["sold", "packed"]


def test_an_exception_is_sent_and_recognised_secrets_are_not(lines: Keep) -> None:
    try:
        raise PermissionError(f"bad key {KEY}")  # noqa: TRY301 because it is what the line shows
    except PermissionError:
        logging.getLogger("shop").exception("refused %s", KEY, extra={"key": KEY, "more": {"key": KEY}})
    (record,) = lines.records
    assert record.body == "refused **********"
    assert record.attributes["exception.type"] == "PermissionError"
    assert record.attributes["exception.message"] == "bad key **********"
    assert "in test_an_exception_is_sent" in record.attributes["exception.stacktrace"]
    assert KEY not in str(record).replace("{KEY}", "")


def test_lines_of_agentflow_have_their_facts_as_attributes_and_texts_of_errors_where_content_may_go_out(
    lines: Keep,
) -> None:
    logger().warning("slow", run_id="r-1", seconds=2.5, exc_info=ValueError("what a user said"))
    (record,) = lines.records
    assert record.body == "slow"
    assert (record.attributes["agentflow.run.id"], record.attributes["seconds"]) == ("r-1", 2.5)
    assert record.attributes["exception.type"] == "ValueError"
    assert "what a user said" not in str(record)


def test_what_is_told_already_or_would_go_round_in_a_circle_is_not_sent(lines: Keep) -> None:
    logging.getLogger("agentflow.runs").warning("run started")
    logging.getLogger("opentelemetry.exporter").error("cannot export")
    token = context.attach(context.set_value("suppress_instrumentation", True))  # noqa: FBT003 because it is its signature
    logging.getLogger("urllib3").warning("connection refused")
    context.detach(token)
    assert lines.records == []


def test_a_field_that_cannot_be_shown_costs_neither_line_nor_program(lines: Keep) -> None:
    class Strange:
        def __repr__(self) -> str:
            raise RuntimeError

    logging.getLogger("shop").warning("odd", extra={"odd": Strange(), "bytes": b"\xff", "deep": {"a": Strange()}})
    (record,) = lines.records
    assert (record.attributes["odd"], record.attributes["deep"]) == ('"<Strange>"', '{"a":"<Strange>"}')


def test_a_line_of_structlog_on_its_way_to_its_formatter_is_sent_in_parts(lines: Keep) -> None:
    log = structlog.wrap_logger(
        logging.getLogger("shop"),
        processors=[add_trace_context, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(7, 8, is_remote=False))):
        try:
            raise KeyError("x")  # noqa: TRY301 because it is what the line shows
        except KeyError:
            log.exception("sold", item="bread")
    (record,) = lines.records
    assert (record.body, record.trace_id, record.span_id) == ("sold", 7, 8)
    assert (record.attributes["item"], record.attributes["exception.type"]) == ("bread", "KeyError")
    assert "trace_id" not in record.attributes


def test_where_it_is_the_only_handler_warnings_are_still_shown(capfd: pytest.CaptureFixture[str]) -> None:
    provider, keep = providers()
    alone = logging.getLogger("alone")
    alone.propagate = False
    alone.addHandler(handler := OtelHandler(provider))
    alone.setLevel(logging.INFO)
    try:
        alone.info("quiet")
        alone.warning("loud")
    finally:
        alone.removeHandler(handler)
    assert [record.body for record in keep.records] == ["quiet", "loud"]
    assert capfd.readouterr().err == "loud\n"


# what every line is told


class Asking(Workflow):
    """Tells what its steps know of themselves."""

    @step
    async def ask(self, ev: StartEvent) -> StopEvent:
        with trace.use_span(
            trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1)))
        ):
            here = add_trace_context(None, "info", {"event": "x"})
            there = await asyncio.to_thread(add_trace_context, None, "info", {"event": "x", "step": "mine"})
        return StopEvent(result=(here, there))


async def test_a_processor_tells_span_run_step_and_session() -> None:
    assert add_trace_context(None, "info", {}) == {}  # from now on, steps are known
    with session("chat-42"):
        handler = Asking().run()
        here, there = await handler
    assert here == {
        "event": "x",
        "trace_id": "00000000000000000000000000000001",
        "span_id": "0000000000000002",
        "trace_flags": "01",
        "session": "chat-42",
        "run_id": handler.run_id,
        "workflow": "Asking",
        "step": "ask",
        "attempt": 1,
    }
    assert there == {**here, "step": "mine"}  # what a line says itself stays


async def test_the_processor_knows_the_run_where_nobody_listens_and_nothing_outside() -> None:
    handler = Asking().run()
    here, _ = await handler
    assert (here["run_id"], here["workflow"], "step" in here) == (handler.run_id, "Asking", False)
    assert add_trace_context(None, "info", {"event": "x"}) == {"event": "x"}
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(add_trace_context(None, "info", {})))
    thread.start()
    thread.join()
    assert found == [{}]


async def test_a_filter_makes_it_usable_in_a_plain_format() -> None:
    class Shop(Workflow):
        @step
        async def sell(self, ev: StartEvent) -> StopEvent:
            log.warning("sold")
            return StopEvent()

    said: list[str] = []

    class Say(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(self.format(record))

    handler = Say()
    handler.addFilter(TraceContextFilter())
    handler.setFormatter(logging.Formatter("%(message)s %(workflow)s %(step)s %(attempt)s %(trace_id)s %(session)s"))
    log = logging.getLogger("shop")
    log.addHandler(handler)
    try:
        log.warning("open")
        await Shop().run()
        log.warning("closed", extra={"step": "my own"})
    finally:
        log.removeHandler(handler)
    assert said == ["open - - - - -", "sold Shop sell 1 - -", "closed - my own - - -"]


LOGGING = """
import logging, sys
import structlog
from agentflow import Event, StartEvent, StopEvent, Workflow, step
from agentflow.log import logger
from agentflow_instrumentation.formatting import configure_logging

logging.basicConfig(stream=sys.stdout)
configure_logging({json})
configure_logging({json}, level="info")
log = structlog.get_logger("shop")

class Speechless:
    def __repr__(self):
        raise OSError

class Shop(Workflow):
    @step
    async def sell(self, ev: StartEvent) -> StopEvent:
        log.info("sold %s", "bread", price=2)
        logging.getLogger("std").info("packed %s", "it", extra={{"box": 7}})
        log.debug("not shown")
        log.info("odd", ratio=float("nan"), pairs={{(1, 2): 3}}, speechless=Speechless())
        try:
            password = "the value of a variable"
            raise ValueError("no change")
        except ValueError:
            log.exception("alas")
            logger().warning("ours", key="sk-abcdefghijklmnopqrstuvwxyz")
        return StopEvent()

with structlog.contextvars.bound_contextvars(request="r-7"):
    Shop().run_sync()
"""


def logged(as_json: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOGGING.format(json=as_json)],
        capture_output=True,
        text=True,
        env=_clean(),
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


def test_configured_logging_writes_every_line_once_to_stderr_as_json_where_that_is_no_terminal() -> None:
    shown = logged("None")
    told = [json.loads(line, parse_constant=pytest.fail) for line in shown.splitlines()]
    assert [(one["logger"], one["level"], one["event"]) for one in told] == [
        ("agentflow.runs", "info", "run started"),
        ("shop", "info", "sold bread"),
        ("std", "info", "packed it"),
        ("shop", "info", "odd"),
        ("shop", "error", "alas"),
        ("agentflow", "warning", "ours"),
        ("agentflow.runs", "info", "step ended"),
        ("agentflow.runs", "info", "run ended"),
    ]
    assert {(one["workflow"], one["run_id"], one["request"]) for one in told} == {("Shop", told[0]["run_id"], "r-7")}
    assert [one["step"] for one in told[1:-1]] == ["sell"] * 6
    assert (told[1]["price"], told[2]["box"], told[5]["key"]) == (2, 7, "**********")
    assert (told[3]["ratio"], told[3]["pairs"], told[3]["speechless"]) == ("nan", {"<tuple>": 3}, "<Speechless>")
    assert all(one["timestamp"].endswith("Z") for one in told)
    assert told[4]["exception"][0]["exc_value"] == "no change"
    assert told[4]["exception"][0]["frames"][-1]["name"] == "sell"
    assert "the value of a variable" not in shown


def test_configured_logging_writes_text_for_people_where_that_is_asked_for() -> None:
    shown = logged("False")
    assert "sold bread" in shown
    assert "price=2" in shown
    assert "\x1b" not in shown
    assert "Traceback (most recent call last)" in shown
    assert KEY not in shown


@pytest.mark.parametrize("level", ["LOUD", True, None])
def test_a_level_that_is_none_is_refused(level: Any) -> None:
    with pytest.raises(ValueError, match=r'configure_logging\(level=.*Choose from: "DEBUG", "INFO"'):
        configure_logging(level=level)
