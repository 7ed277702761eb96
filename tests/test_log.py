"""The library's own log lines: silent unless asked for, readable as they are, structured for those who want it."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
import structlog

from agentflow import Context, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from agentflow.clock import use_clock
from agentflow.log import logger
from agentflow.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKFLOW = """
    import logging, sys
    from agentflow import ConstantDelayRetryPolicy, StartEvent, StopEvent, Workflow, step

    class Greeting(Workflow):
        tries = 0

        @step(retry_policy=ConstantDelayRetryPolicy(delay=0.001, maximum_attempts=2))
        async def greet(self, ev: StartEvent) -> StopEvent:
            self.tries += 1
            if self.tries == 1:
                raise ConnectionError("the word is sesame")
            return StopEvent(result=f"{ev.word} is the answer")

    class Failing(Workflow):
        @step
        async def fail(self, ev: StartEvent) -> StopEvent:
            raise LookupError("the word is sesame")

    def both():
        Greeting().run_sync(word="sesame")
        try:
            Failing().run_sync()
        except LookupError:
            pass
"""


def program(code: str) -> tuple[str, list[str]]:
    """Run a program; returns what it wrote to stdout, and the lines that it wrote to stderr, without run ids."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_"))}
    command = [sys.executable, "-W", "error", "-c", dedent(WORKFLOW) + dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.splitlines()


def facts(line: str) -> dict[str, str]:
    """The `key=value` pairs of a line."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def test_nothing_is_said_unless_asked_but_a_warning_is_shown_as_python_shows_warnings() -> None:
    assert program("""
        both()
        from agentflow.log import logger
        logger().info("quiet")
        logger().warning("the collector is dead", place="localhost:4318", tries=3)
    """) == ("", ["the collector is dead place=localhost:4318 tries=3"])


def test_level_info_alone_shows_runs_steps_and_retries() -> None:
    out, lines = program("""
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("agentflow").setLevel(logging.INFO)
        both()
        print([name for name in sys.modules if name.startswith("opentelemetry")])
    """)
    assert out == "[]\n"  # for log lines nobody needs OpenTelemetry
    said = [line.split(" workflow=")[0].split(" duration=")[0] for line in lines]
    assert said == [
        "INFO agentflow.runs: run started",
        "WARNING agentflow.runs: step failed, is tried again step=greet attempt=1 error=ConnectionError wait=0.001",
        "INFO agentflow.runs: step ended step=greet outcome=retried error=ConnectionError",
        "INFO agentflow.runs: step ended step=greet outcome=ok",
        "INFO agentflow.runs: run ended outcome=ok",
        "INFO agentflow.runs: run started",
        "WARNING agentflow.runs: step ended step=fail outcome=error error=LookupError",
        "WARNING agentflow.runs: run ended outcome=error error=LookupError",
    ]
    assert "sesame" not in "".join(lines)
    told = [facts(line) for line in lines]
    assert [one["workflow"] for one in told] == ["Greeting"] * 5 + ["Failing"] * 3
    assert len({one["run_id"] for one in told}) == 2
    assert told[3].keys() == {"step", "outcome", "duration", "waited", "attempt", "workflow", "run_id"}
    assert told[3]["attempt"] == "2"
    assert 0 < float(told[3]["waited"]) < float(told[4]["duration"]) < 5
    assert 0 < float(told[3]["duration"]) < float(told[4]["duration"])


class Quick(Workflow):
    """One step."""

    @step
    async def answer(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=ev.word)


async def test_debug_adds_events_and_how_steps_begin(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "agentflow"):
        await Quick().run(word="sesame")
    said = [(r.levelname, re.split(" workflow=| duration=| waited=", r.getMessage())[0]) for r in caplog.records]
    assert said == [
        ("INFO", "run started"),
        ("DEBUG", "event ended event_type=StartEvent outcome=ok"),
        ("DEBUG", "step started step=answer attempt=1 event_type=StartEvent"),
        ("INFO", "step ended step=answer outcome=ok"),
        ("INFO", "run ended outcome=ok"),
    ]
    assert "sesame" not in caplog.text


class Word(HumanResponseEvent):
    """What a person says."""


class Ordering(Workflow):
    """Waits for a person."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.wait_for_event(Word)
        return StopEvent()


async def test_a_run_that_waits_for_long_is_suspended_and_resumed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "agentflow"), use_clock(clock := FakeClock()):
        handler = Ordering().run()
        await clock.advance(60)
        handler.ctx.send_event(Word())
        await handler
    said = [vars(record)["event"] for record in caplog.records if vars(record)["event"].startswith("run")]
    assert said == ["run started", "run suspended", "run resumed", "run ended"]


async def test_lines_of_runs_can_be_silenced_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "agentflow.runs"), caplog.at_level(logging.INFO, "agentflow"):
        await Quick().run(word="sesame")
        logger().info("still here")
    assert caplog.messages == ["still here"]


@pytest.fixture
def written() -> Iterator[list[logging.LogRecord]]:
    """The records that reach the logger's handlers."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler, log = Keep(), logging.getLogger("agentflow")
    log.addHandler(handler)
    yield records
    log.removeHandler(handler)


def test_facts_stand_in_the_message_and_in_fields_of_the_record(written: list[logging.LogRecord]) -> None:
    logger().warning("100% of %s left", workflow="My Flow", seconds=0.00025, steps=["a", "b"], empty="", by={"a": 1})
    (record,) = written
    assert record.getMessage() == "100% of %s left workflow='My Flow' seconds=0.00025 steps=a,b empty=''"
    fields = vars(record)
    assert {name: fields[name] for name in ("event", "workflow", "seconds", "steps", "empty", "by")} == {
        "event": "100% of %s left",
        "workflow": "My Flow",
        "seconds": 0.00025,
        "steps": ["a", "b"],
        "empty": "",
        "by": {"a": 1},
    }


def test_long_and_many_lined_facts_keep_the_message_one_short_line(written: list[logging.LogRecord]) -> None:
    logger().warning("said", text="a\nb", long="x" * 10_000, many=[str(i) for i in range(1000)])
    message = written[0].getMessage()
    assert message.startswith(r"said text='a\nb' long='xxx")
    assert len(message) < 300
    assert len(written[0].long) == 10_000  # type: ignore[attr-defined]  # because it is an extra field


@pytest.mark.parametrize(
    "name", ["name", "args", "msg", "message", "asctime", "module", "process", "taskName", "exc_text"]
)
def test_a_fact_may_have_the_name_of_something_that_records_have(name: str, written: list[logging.LogRecord]) -> None:
    """As what an application binds to its context may."""
    with structlog.contextvars.bound_contextvars(**{name: "mine"}):
        logger().warning("said")
    assert written[0].getMessage() == f"said {name}=mine"
    assert vars(written[0])[f"{name}_"] == "mine"


def test_a_line_names_the_code_that_wrote_it(written: list[logging.LogRecord]) -> None:
    logger().warning("one")
    try:
        int("x")
    except ValueError:
        logger().exception("two")
    here = "test_a_line_names_the_code_that_wrote_it"
    assert [(record.filename, record.funcName) for record in written] == [("test_log.py", here)] * 2
    assert written[1].exc_info
    assert written[1].exc_info[0] is ValueError


def test_a_structlog_host_with_the_stock_processors_gets_event_and_fields_once(
    written: list[logging.LogRecord],
) -> None:
    logger().warning("slow", workflow="W", seconds=2.5)
    vars(written[0]).pop("message", None)  # left there by a formatter of pytest's
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.KeyValueRenderer(sort_keys=True),
        ],
    )
    assert formatter.format(written[0]) == "event='slow' seconds=2.5 workflow='W'"
