"""A trace in the terminal is a short tree: what happened, how long it took, why, and what went wrong."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from agentflow import Event, StartEvent, StopEvent, Workflow, step
from agentflow.observe import add_observer
from agentflow_instrumentation import ConsoleExporter, SpanObserver
from agentflow_instrumentation.console import Direct
from agentflow_instrumentation.hub import SpanHub
from agentflow_instrumentation.tree import duration

MS = 1_000_000


class Printed:
    """Spans at exact times, and what is printed of them."""

    def __init__(self, file: io.StringIO | None = None) -> None:
        self.file = file or io.StringIO()
        self.exporter = ConsoleExporter(self.file)
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.ends: list[tuple[Span, int]] = []

    def span(  # noqa: PLR0913 because a span has these parts
        self,
        name: str,
        start: float = 0,
        took: float = 1,
        *,
        inside: Span | None = None,
        error: str | None = None,
        links: Sequence[Span] = (),
        events: Sequence[tuple[str, float, Mapping[str, Any]]] = (),
        **facts: Any,
    ) -> Span:
        """A span, in milliseconds; it ends with `show()`. Underscores of facts are dots."""
        context = None if inside is None else set_span_in_context(inside)
        made = self.tracer.start_span(
            name,
            context,
            start_time=int(start * MS),
            attributes={key.replace("__", "."): value for key, value in facts.items()},
            links=[Link(other.get_span_context()) for other in links],
        )
        for event, at, more in events:
            made.add_event(event, dict(more), int(at * MS))
        if error is not None:
            made.set_status(StatusCode.ERROR, error)
        self.ends.append((made, int((start + took) * MS)))
        return made

    def show(self) -> list[str]:
        """End all spans, children first; what is printed, without the title, columns two spaces apart."""
        return [re.sub(r"(?<=\S) {2,}", "  ", line) for line in self.lines()]

    def lines(self) -> list[str]:
        """As it is printed."""
        for made, end in reversed(self.ends):
            made.end(end)
        title, *lines = self.file.getvalue().splitlines()
        assert title.startswith("trace ")
        assert all(len(line) <= 110 for line in lines)
        assert lines.pop() == ""
        return lines


def test_steps_say_what_caused_them_and_how_long_they_waited() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow Chain", 0, 12)
    start = printed.span("event StartEvent", 0, 1, inside=run)
    printed.span("step one", 1, 2.5, inside=run, links=[start], agentflow__triggered_by=["StartEvent 00f1"])
    printed.span(
        "step two",
        5,
        6,
        inside=run,
        agentflow__step__name="two",
        agentflow__triggered_by=["one:A 00f2"],
        agentflow__queue__wait=0.0015,
    )
    assert printed.lines() == [
        "invoke_workflow Chain     12.0 ms",
        "├─ step one                2.5 ms  ← StartEvent",
        "└─ step two                6.0 ms  ← one:A  waited 1.5 ms",
    ]


def test_an_event_is_a_line_only_if_no_step_took_it() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 12)
    one = printed.span("step one", 1, 2, inside=run)
    taken = printed.span("event A", 2, 1, inside=one)
    printed.span("event B", 2, 3, inside=one, agentflow__outcome="dropped")
    printed.span("event Ask", 2.5, 0.05, inside=one, agentflow__outcome="ok")
    printed.span("step two", 3, 2, inside=run, links=[taken])
    assert printed.show() == [
        "invoke_workflow W  12.0 ms",
        "├─ step one  2.0 ms",
        "│  ├─ event B  3.0 ms  dropped",
        "│  └─ event Ask  50 us",
        "└─ step two  2.0 ms",
    ]


def test_a_join_stands_for_the_steps_that_had_not_got_all_yet() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 12)
    for n in range(9):
        printed.span("step join", n, 1, inside=run, agentflow__outcome="collecting")
    printed.span(
        "step join",
        10,
        1,
        inside=run,
        agentflow__outcome="ok",
        agentflow__collected__count=1000,
        agentflow__triggered_by=["work:Done 01"] * 16,
    )
    assert printed.show() == [
        "invoke_workflow W  12.0 ms",
        "└─ step join  1.0 ms  ← 1,000 × work:Done",  # noqa: RUF001 because that is what it prints
    ]


def test_what_happened_in_a_step_that_had_not_got_all_yet_stands_below_it() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 12)
    for n in range(3):
        join = printed.span("step join", n, 1, inside=run, agentflow__outcome="collecting")
        if n == 1:
            printed.span("resource read", n, 0.5, inside=join)
            event = printed.span("event Note", n, 0.5, inside=join)
            printed.span("step note", 5, 1, inside=run, links=[event])
    printed.span("step join", 10, 1, inside=run, agentflow__outcome="ok")
    assert printed.show() == [
        "invoke_workflow W  12.0 ms",
        "├─ step join  1.0 ms  not all has come",
        "│  └─ resource read  0.5 ms",
        "├─ step note  1.0 ms",
        "└─ step join  1.0 ms",
    ]


def test_a_join_that_never_got_all_is_shown() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 12, error="WorkflowStalledError", agentflow__outcome="error")
    printed.span(
        "step join",
        1,
        1,
        inside=run,
        agentflow__outcome="collecting",
        agentflow__triggered_by=["a:A 01", "a:A 02", "b:B 03"],
        agentflow__collected__count=5,
    )
    assert printed.show() == [
        "invoke_workflow W  12.0 ms  error: WorkflowStalledError",
        "└─ step join  1.0 ms  ← 2 × a:A, b:B and 2 more  not all has come",  # noqa: RUF001 because that is what it prints
    ]


def test_what_went_wrong_comes_first() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 5000, error="KeyError: 'no\n such'", agentflow__outcome="error")
    printed.span("step one", 1, 1234, inside=run, error="TimeoutError", agentflow__outcome="timeout")
    printed.span("step two", 2, 1, inside=run, agentflow__outcome="cancelled", agentflow__triggered_by=["one:A 01"])
    assert printed.show() == [
        "invoke_workflow W  5.00 s  error: KeyError: 'no such'",
        "├─ step one  1.23 s  timeout: TimeoutError",
        "└─ step two  1.0 ms  cancelled  ← one:A",
    ]


def test_what_went_wrong_and_what_was_sent_are_not_cut_for_each_other() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 5)
    sent = f'{{"iban":"{"4" * 30}"}}'
    why = "ConnectionError: the bank's server hung up"
    printed.span("execute_tool pay", 1, 1, inside=run, error=why, gen_ai__tool__call__arguments=sent)
    printed.span("SELECT orders", 3, 1, inside=run, error=" ".join(["word"] * 300))
    told = printed.show()
    assert told[1:3] == [f"├─ execute_tool pay  1.0 ms  {sent}", f"│  error: {why}"]
    assert told[3] == "└─ SELECT orders  1.0 ms"
    assert told[4].lstrip().startswith("error: word word")
    assert len(told) == 3 + 4
    assert told[-1].endswith("word …")


def test_an_error_says_where_in_the_code_of_its_users_it_came_up() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 5, error="KeyError", agentflow__outcome="error")
    stack = (
        'Traceback (most recent call last):\n  File "/srv/shop/orders.py", line 12, in pay\n    ...\n'
        '  File "/srv/.venv/lib/python3.13/site-packages/bank/client.py", line 99, in send\nKeyError'
    )
    raised = ("exception", 2, {"exception.type": "KeyError", "exception.stacktrace": stack})
    printed.span("step pay", 1, 1, inside=run, error="KeyError", events=[raised], agentflow__outcome="error")
    assert printed.show() == [
        "invoke_workflow W  5.0 ms  error: KeyError",
        "└─ step pay  1.0 ms  error: KeyError (in pay, orders.py:12)",
    ]


def test_who_is_asked_and_what_became_of_calls_is_told() -> None:
    printed = Printed()
    run = printed.span(
        "invoke_agent bills",
        0,
        9,
        agentflow__segment=2,
        agentflow__agent__stopped_by="turns",
        agentflow__agent__tool_calls__failed=2,
        agentflow__agent__tool_calls__refused=1,
    )
    printed.span(
        "step call", 1, 1, inside=run, agentflow__asked=["ApprovalRequired"], agentflow__approval__tools=["pay"]
    )
    printed.span("step ask", 2, 1, inside=run, agentflow__asked=["Question"])
    printed.span("step decide", 3, 1, inside=run, agentflow__approval__answer="refused")
    assert printed.show() == [
        "invoke_agent bills  9.0 ms  segment 2  stopped by turns  tool calls: 2 failed, 1 refused",
        "├─ step call  1.0 ms  asks for approval of pay",
        "├─ step ask  1.0 ms  asks Question",
        "└─ step decide  1.0 ms  refused",
    ]


def test_each_attempt_says_why_it_is_repeated_and_when() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 12)
    retry = {"error.type": "app.FlakyError", "agentflow.retry.wait": 0.5, "exception.message": "not\nnow"}
    facts: dict[str, Any] = {
        "agentflow__step__name": "work",
        "agentflow__step__attempt": 1,
        "agentflow__outcome": "retried",
    }
    printed.span("step work", 1, 1, inside=run, error="FlakyError", events=[("agentflow.retry", 2, retry)], **facts)
    printed.span("step work", 3, 1, inside=run, agentflow__step__attempt=2)
    assert printed.show() == [
        "invoke_workflow W  12.0 ms",
        "├─ step work  1.0 ms  retried after 500 ms: FlakyError: not now",
        "└─ step work (attempt 2)  1.0 ms",
    ]


def test_a_chat_tells_its_tokens_and_each_repeated_request() -> None:
    printed = Printed()
    think = printed.span("step think", 0, 12)
    retry = {"error.type": "openai.RateLimitError", "http.response.status_code": 429, "agentflow.retry.wait": 2.0}
    printed.span(
        "chat tiny",
        1,
        10,
        inside=think,
        events=[("agentflow.retry", 2, retry)],
        gen_ai__usage__input_tokens=1812,
        gen_ai__usage__output_tokens=31,
        gen_ai__usage__cache_read__input_tokens=512,
        gen_ai__usage__reasoning__output_tokens=9,
        agentflow__chat__output__tool_calls=2,
    )
    printed.span("chat tiny", 11, 1, inside=think, gen_ai__usage__output_tokens=3)
    printed.span("chat tiny", 12, 1, inside=think, server__address="here", agentflow__llm__usage__missing=True)
    assert printed.show() == [
        "step think  12.0 ms",
        "├─ chat tiny  10.0 ms  1,812 (512 cached) -> 31 (9 reasoning) tokens, 2 tool calls",
        "│  retry 1  after 2.00 s: RateLimitError (429)",
        "├─ chat tiny  1.0 ms  ? -> 3 tokens",
        "└─ chat tiny  1.0 ms  tokens are not known",
    ]


def test_tools_and_retrievals_tell_what_they_may() -> None:
    printed = Printed()
    call = printed.span("step call", 0, 12, agentflow__stream__events=1)
    arguments = '{"query":"cats"}'
    tool = printed.span("execute_tool search", 1, 10, inside=call, gen_ai__tool__call__arguments=arguments)
    printed.span(
        "retrieval docs",
        2,
        10,
        inside=tool,
        agentflow__retrieval__documents__count=3,
        gen_ai__retrieval__query__text="how\nlong",
    )
    assert printed.show() == [
        "step call  12.0 ms  1 event streamed",
        '└─ execute_tool search  10.0 ms  {"query":"cats"}',
        "   └─ retrieval docs  10.0 ms  3 documents  how long",
    ]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([("waiting", 1), ("answered", 1501)], "1.50 s of it waiting for Answer"),
        ([("waiting", 1)], "waiting for Answer"),
    ],
)
def test_a_step_that_waited_for_a_human_says_for_how_long(events: list[tuple[str, float]], told: str) -> None:
    printed = Printed()
    notes = [(f"agentflow.{name}", at, {f"agentflow.{name}.type": "Answer"}) for name, at in events]
    printed.span("step ask", 0, 2000, events=notes)
    assert printed.show() == [f"step ask  2.00 s  {told}"]


def test_a_long_row_of_equal_siblings_is_folded() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 2000)
    for n in range(1000):
        printed.span("step count", n, 0.5, inside=run)
    printed.span("step count", 1000, 1, inside=run, error="ValueError", agentflow__outcome="error")
    with_child = printed.span("step count", 1001, 1, inside=run)
    printed.span("mine", 1001, 1, inside=with_child)
    assert printed.show() == [
        "invoke_workflow W  2.00 s",
        "├─ step count  0.5 ms",
        "├─ step count  0.5 ms",
        "├─ … 998 more step count  998 ms",
        "├─ step count  1.0 ms  error: ValueError",
        "└─ step count  1.0 ms",
        "   └─ mine  1.0 ms",
    ]


def test_folded_siblings_hide_neither_the_longest_nor_their_end() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 2000)
    for n in range(10):
        printed.span("step count", n, 1500 if n == 5 else 1, inside=run)
    assert printed.show()[-1] == "└─ … 8 more step count  1.50 s  the longest 1.50 s"


def test_a_long_loop_is_folded_by_its_steps() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 200)
    for n in range(100):
        printed.span(("step ping", "step pong")[n % 2], n, 0.5, inside=run)
    assert printed.show() == [
        "invoke_workflow W  200 ms",
        "├─ step ping  0.5 ms",
        "├─ step pong  0.5 ms",
        "├─ step ping  0.5 ms",
        "├─ step pong  0.5 ms",
        "└─ … 96 more: 48 × step ping, 48 × step pong  95.5 ms",  # noqa: RUF001 because that is what it prints
    ]


@pytest.mark.parametrize(
    ("ns", "told"),
    [
        (0, "0 us"),
        (99_400, "99 us"),
        (100_000, "0.1 ms"),
        (99_940_000, "99.9 ms"),
        (100_000_000, "100 ms"),
        (1_000_000_000, "1.00 s"),
        (59_990_000_000, "59.99 s"),
        (200_000_000_000, "3 min 20 s"),
        (7_500_000_000_000, "2 h 5 min"),
        (273_600_000_000_000, "3 d 4 h"),
    ],
)
def test_times_are_told_as_one_reads_them(ns: int, told: str) -> None:
    assert duration(ns) == told


# when it prints


def test_a_trace_is_printed_when_its_local_root_has_ended() -> None:
    printed = Printed()
    far = SpanContext(0xF00D, 0xCAFE, is_remote=True, trace_flags=TraceFlags(1))
    root = printed.tracer.start_span("GET /ask", set_span_in_context(NonRecordingSpan(far)))
    printed.tracer.start_span("invoke_workflow W", set_span_in_context(root)).end()
    assert printed.file.getvalue() == ""
    root.end()
    title, first, second, *_ = printed.file.getvalue().splitlines()
    assert title == f"trace {0xF00D:032x}"
    assert (first.split()[0], second.split()[:2]) == ("GET", ["└─", "invoke_workflow"])


def test_what_is_unfinished_is_printed_at_the_end() -> None:
    printed = Printed()
    root = printed.tracer.start_span("never ends")
    printed.tracer.start_span("step one", set_span_in_context(root)).end()
    printed.provider.shutdown()
    title, line, *_ = printed.file.getvalue().splitlines()
    assert title.endswith(", unfinished")
    assert line.startswith("step one")


def test_memory_is_bounded() -> None:
    printed = Printed()
    root = printed.tracer.start_span("root")
    for _ in range(20_010):
        printed.tracer.start_span("step one", set_span_in_context(root)).end()
    root.end()
    assert "and 10 spans more, which were not kept" in printed.file.getvalue()
    other = Printed()
    for n in range(300):
        never = other.tracer.start_span("never ends")
        other.tracer.start_span(f"step {n}", set_span_in_context(never)).end()
    assert other.file.getvalue().count("unfinished") == 44
    assert "step 43 " in other.file.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        printed = Printed(Terminal())
        run = printed.span("run", 0, 5, error="ValueError", agentflow__outcome="error")
        printed.span("step a", 0, 1, inside=run, agentflow__outcome="cancelled", agentflow__triggered_by=["A 01"])
        for made, end in reversed(printed.ends):
            made.end(end)
        return printed.file.getvalue()

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31merror: ValueError\x1b[0m" in shown()
    assert "\x1b[33mcancelled\x1b[0m\x1b[2m  ← A\x1b[0m" in shown()
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b" not in shown()


def test_a_terminal_that_knows_no_lines_gets_ascii() -> None:
    class Old(io.StringIO):
        @property
        def encoding(self) -> str:  # type: ignore[override]  # the base class leaves it open
            return "latin-1"

    printed = Printed(Old())
    run = printed.span("run", 0, 5)
    printed.span("step a", 0, 1, inside=run, agentflow__triggered_by=["A 01"])
    assert printed.show()[1] == "`- step a  1.0 ms  <- A"


def test_it_prints_to_the_standard_error_output(capsys: pytest.CaptureFixture[str]) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ConsoleExporter()))
    provider.get_tracer("t").start_span("mine").end()
    out, err = capsys.readouterr()
    assert out == ""
    assert "mine" in err


def test_a_closed_terminal_costs_nothing_but_the_trace(caplog: pytest.LogCaptureFixture) -> None:
    file = io.StringIO()
    direct = Direct(ConsoleExporter(file), "the console")
    hub = SpanHub()
    hub.add(direct)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(hub)  # type: ignore[arg-type]  # because the SDK's class only says which methods there are
    file.close()
    for _ in range(3):
        provider.get_tracer("t").start_span("mine").end()
    (problem,) = direct.problems()
    assert problem.startswith("the trace could not be shown on the console: ValueError")
    assert [record.message for record in caplog.records] == [problem]
    assert not hub.force_flush()
    direct.shutdown()


async def test_a_real_run_is_one_short_tree() -> None:
    class Job(Event):
        n: int

    class Doubles(Workflow):
        @step
        async def split(self, ev: StartEvent) -> Job:
            return Job(n=ev.n)

        @step
        async def work(self, ev: Job) -> StopEvent:
            return StopEvent(result=2 * ev.n)

    printed = Printed()
    add_observer(SpanObserver(printed.provider))
    await Doubles().run(n=3)
    _, *lines = printed.file.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["invoke_workflow Doubles", "├─ step split", "└─ step work", ""]
    assert "← split:Job" in lines[2]


def test_an_error_is_told_in_full_where_it_came_up_and_by_name_above() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 3, error="KeyError: 'colour'")
    step = printed.span("step work", 1, 2, inside=run, error="KeyError: 'colour'")
    printed.span("execute_tool paint", 2, 1, inside=step, error="KeyError: 'colour'")
    assert printed.show() == [
        "invoke_workflow W  3.0 ms  error: KeyError",
        "└─ step work  2.0 ms  error: KeyError",
        "   └─ execute_tool paint  1.0 ms  error: KeyError: 'colour'",
    ]


def test_however_deep_the_labels_can_be_read() -> None:
    printed = Printed()
    span: Span | None = None
    for depth in range(40):
        span = printed.span(f"invoke_workflow Number{depth}", depth, 100 - depth, inside=span)
    printed.span("step last", 50, 1, inside=span, agentflow__triggered_by=["StartEvent 00f1"])
    for made, end in reversed(printed.ends):
        made.end(end)
    shown = printed.file.getvalue()
    for depth in range(40):
        assert f"invoke_workflow Number{depth} " in shown
    assert "StartEvent" in shown


def test_the_deepest_levels_are_numbered_instead_of_indented() -> None:
    printed = Printed()
    span: Span | None = None
    for depth in range(1500):
        span = printed.span("invoke_workflow W", depth, 3000 - depth, inside=span)
    for made, end in reversed(printed.ends):
        made.end(end)
    lines = printed.file.getvalue().splitlines()
    assert max(map(len, lines)) < 250
    assert any("(level 57) invoke" in line for line in lines)
    assert lines[-2].strip() == "… and more below"


def test_what_would_steer_the_terminal_is_escaped() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow \x1b]0;title\x07", 0, 9, error="ValueError: \x1b[2Jgone\u202e")
    printed.span("execute_tool x", 1, 1, inside=run, gen_ai__tool__call__arguments="\x1b[31m \x9b1m")
    shown = "\n".join(printed.lines())
    assert not [c for c in shown if c != "\n" and not c.isprintable()]
    for escaped in (r"\x1b]0;title\x07", r"\x1b[2Jgone\u202e", r"\x1b[31m \x9b1m"):
        assert escaped in shown


def test_what_ends_later_than_its_trace_is_not_printed_as_another() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow Chain", 0, 9)
    late = printed.tracer.start_span("execute_tool search", set_span_in_context(run))
    before = printed.lines()
    late.end()
    printed.exporter.shutdown()
    assert before == ["invoke_workflow Chain      9.0 ms"]
    assert printed.file.getvalue().count("trace ") == 1


def test_calls_of_clients_say_in_a_few_words_what_they_came_to() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 60)
    facts: dict[str, dict[str, Any]] = {
        "chat m": {
            "gen_ai.usage.input_tokens": 1200,
            "gen_ai.usage.output_tokens": 80,
            "agentflow.llm.cost": 0.00042,
            "gen_ai.response.time_to_first_chunk": 0.35,
        },
        "chat cached": {"agentflow.llm.cache.hit": True},
        "chat missed": {"agentflow.llm.cache.hit": False},
        "chat limited": {"agentflow.llm.rate_limit.wait": 3.25},
        "embeddings v": {
            "agentflow.embeddings.texts": 12,
            "gen_ai.embeddings.dimension.count": 1536,
            "gen_ai.usage.input_tokens": 80,
        },
        "embeddings failed": {"agentflow.embeddings.texts": 1},
        "rerank judge": {"agentflow.rerank.documents.given": 20, "agentflow.rerank.documents.kept": 5},
        "memory put": {"agentflow.memory.messages.given": 1},
        "memory get": {"agentflow.memory.messages.got": 8, "agentflow.memory.trimmed": 4},
    }
    for at, (name, told) in enumerate(facts.items()):
        printed.span(name, at, inside=run, **told)
    assert printed.show()[1:] == [
        "├─ chat m  1.0 ms  1,200 -> 80 tokens  $0.00042  first after 350 ms",
        "├─ chat cached  1.0 ms  from the cache",
        "├─ chat missed  1.0 ms",
        "├─ chat limited  1.0 ms  3.25 s of it waiting for the rate limit",
        "├─ embeddings v  1.0 ms  12 texts × 1,536  80 tokens",  # noqa: RUF001 because that is what it prints
        "├─ embeddings failed  1.0 ms  1 text",
        "├─ rerank judge  1.0 ms  20 documents -> 5",
        "├─ memory put  1.0 ms  1 message",
        "└─ memory get  1.0 ms  8 messages  4 left out",
    ]


def test_what_else_happened_to_a_call_is_told_below_it() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 60)
    retry = {"agentflow.retry.wait": 1.0, "error.type": "agentflow_llm.errors.RateLimitError"}
    instead = {
        "agentflow.fallback.to": "ollama/small",
        "error.type": "LLMServerError",
        "http.response.status_code": 503,
    }
    wrong = {"error.type": "LLMOutputError", "exception.message": "It lacks 'name'."}
    for name in ("chat m", "chat m"):
        printed.span(
            name,
            inside=run,
            events=[
                ("agentflow.retry", 0.1, retry),
                ("agentflow.fallback", 0.2, instead),
                ("agentflow.retry", 0.3, retry),
                ("agentflow.repair", 0.4, wrong),
                ("agentflow.order_kept", 0.5, wrong),
            ],
        )
    told = [
        "│  retry 1  after 1.00 s: RateLimitError",
        "│  fallback  to ollama/small: LLMServerError (503)",
        "│  retry 2  after 1.00 s: RateLimitError",
        "│  repair  LLMOutputError: It lacks 'name'.",
        "│  order kept  LLMOutputError: It lacks 'name'.",
    ]
    assert printed.show()[1:] == [
        "├─ chat m  1.0 ms",
        *told,
        "└─ chat m  1.0 ms",
        *[line.replace("│  ", "      ") for line in told],
    ]


def test_what_somebody_else_has_written_stands_as_it_is() -> None:
    printed = Printed()
    run = printed.span("invoke_workflow W", 0, 12, error="ValueError: 2 x 3 <- 6", agentflow__outcome="error")
    printed.span("execute_tool multiply", 1, 1, inside=run, gen_ai__tool__call__arguments="2 x 3 <- 6")
    assert printed.show() == [
        "invoke_workflow W  12.0 ms  error: ValueError: 2 x 3 <- 6",
        "└─ execute_tool multiply  1.0 ms  2 x 3 <- 6",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_off_prints_nothing_of_its_parents(tmp_path: Path) -> None:
    printed = Printed()
    tracer = printed.provider.get_tracer("x")
    with tracer.start_as_current_span("root"):
        tracer.start_span("child").end()
        told = tmp_path / "told"
        child = os.fork()
        if not child:
            try:
                printed.exporter.shutdown()
                told.write_text(f"[{printed.file.getvalue()}]")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    assert told.read_text() == "[]"
    assert "child" in printed.file.getvalue()
