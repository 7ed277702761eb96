"""A run is stopped at every turn of the event loop, in every way: its trace is whole, and nothing is left behind.

Each scene is run to its end once, which says how many turns it takes. Then it is run once for each turn, and stopped
there. What holds for every trace, tests/contract.py checks; what holds after a stop, `Swept.check`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import warnings
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from functools import partial
from typing import Annotated, Any

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from agentflow.clock import Timer, use_clock
from agentflow.errors import AgentflowError
from agentflow.observe import Observer, Operation, add_observer, current_scope, remove_observer
from agentflow.retry import ConstantDelayRetryPolicy, Retry
from agentflow.testing import FakeClock
from agentflow_agents import FunctionAgent, tool
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.conventions import check_trace
from agentflow_llm import ScriptedModel, ToolCallPart
from agentflow_llm.chat import BaseChatModel
from agentflow_llm.errors import LLMServerError
from agentflow_llm.memory import ChatMemory
from agentflow_llm.messages import ChatMessage, Delta, Reply, Usage
from agentflow_llm.records import ChatCall

Stop = Callable[["Stage"], None]
Scene = Callable[["Stage"], Coroutine[Any, Any, None]]

LIMIT = 1000.0
"""Seconds that a run may take: no wait in a scene is as long."""


class SweptClock(FakeClock):
    """Short waits take three turns of the loop; the time limits of runs wait until they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[Callable[[], object]] = []

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Have it called when its time has come."""
        if delay >= LIMIT:
            self.limits.append(callback)
        timer = super().call_later(1.0, callback)
        if delay < LIMIT:
            self._soon(callback, timer, 3)
        return timer

    def _soon(self, callback: Callable[[], object], timer: Any, turns: int) -> None:
        if timer.callback is None:
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._soon, callback, timer, turns - 1)
        else:
            callback()


class SweptLoop(asyncio.SelectorEventLoop):
    """Does something at one turn."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        super().__init__()
        self.turns = 0
        self._at = at
        self._act = act

    def _run_once(self) -> None:
        self.turns += 1
        if self.turns == self._at:
            self.call_soon(self._act)
        super()._run_once()  # type: ignore[misc]  # because the types leave it out


class Ledger(Observer, SpanProcessor):
    """What began, and what ended how often."""

    def __init__(self) -> None:
        self.begun: dict[int, str] = {}
        self.ended: Counter[int] = Counter()
        self.started_spans: list[str] = []
        self.spans: list[ReadableSpan] = []

    def started(self, op: Operation) -> None:
        self.begun[op.ref.id] = f"{op.kind} {op.name}"  # the operation would hold its span

    def finished(self, op: Operation, error: BaseException | None) -> None:
        self.ended[op.ref.id] += 1

    def on_start(self, span: Span, parent_context: otel.Context | None = None) -> None:
        self.started_spans.append(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Lines(logging.Handler):
    """What is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


class Stage:
    """Where one scene is played."""

    def __init__(self) -> None:
        self.handler: Any = None
        self.stream: Any = None
        self.main: asyncio.Task[None]
        self.clock = SweptClock()
        self.closing: asyncio.Task[None] | None = None


# scenes


_elsewhere: list[str] = []
"""Where another span was current than should have been."""


def here(name: str) -> None:
    """Look whether this span is the current one."""
    found = getattr(trace.get_current_span(), "name", "")
    if found != name:
        _elsewhere.append(f"{found!r} was current, not {name!r}")


class Job(Event):
    n: int


class Done(Event):
    n: int


class Question(InputRequiredEvent):
    text: str


class Answer(HumanResponseEvent):
    text: str


async def connect() -> AsyncGenerator[str]:
    await asyncio.sleep(0)
    try:
        yield "open"
    finally:
        await asyncio.sleep(0)


class Child(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(0)
        return StopEvent(result="grown")


class Everything(Workflow):
    """Fans out, retries, collects, asks a person, runs another workflow, and has something to tear down."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.failures = 1

    @step
    async def begin(self, ctx: Context, ev: StartEvent, it: Annotated[str, Resource(connect)]) -> Job | None:
        for n in range(3):
            ctx.send_event(Job(n=n))
        return None

    @step(num_workers=2, retry_policy=ConstantDelayRetryPolicy(2, 1))
    async def work(self, ctx: Context, ev: Job) -> Done:
        await asyncio.sleep(0)
        if ev.n == 1 and self.failures:
            self.failures -= 1
            raise LookupError("once")
        ctx.write_event_to_stream(Event())
        return Done(n=ev.n)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        if ctx.collect_events(ev, [Done] * 3) is None:
            return None
        await ctx.wait_for_event(Answer, waiter_event=Question(text="?"))
        here("step join")
        result = await Child().run()
        here("step join")
        return StopEvent(result=result)


async def answer(handler: Any) -> None:
    async for event in handler.stream_events():
        if isinstance(event, Question):
            handler.ctx.send_event(Answer(text="yes"))


async def everything(stage: Stage) -> None:
    handler = stage.handler = Everything(timeout=LIMIT).run()
    with contextlib.suppress(AgentflowError):
        await answer(handler)
        await handler


@tool(retry=Retry(attempts=2, wait=1))
async def flaky(n: int) -> str:
    """Fail once."""
    await asyncio.sleep(0)
    if n == 0 and not _failed:
        _failed.append(n)
        raise LookupError("once")
    return str(n)


@tool
async def delegate() -> str:
    """Let another workflow do it."""
    result = await Child().run()
    here("execute_tool delegate")
    return str(result)


_failed: list[int] = []


async def agent(stage: Stage) -> None:
    _failed.clear()
    calls = [
        ToolCallPart(id="1", name="flaky", arguments='{"n": 0}'),
        ToolCallPart(id="2", name="delegate", arguments="{}"),
    ]
    model = ScriptedModel([calls, "That is all."])
    handler = stage.handler = FunctionAgent([flaky, delegate], model, timeout=LIMIT).run("What?")
    with contextlib.suppress(AgentflowError):
        async for _ in handler.stream_events():
            pass
        await handler


class Drip(BaseChatModel):
    """Fails once, and answers piece by piece then."""

    def __init__(self) -> None:
        super().__init__("drip", "drip", retry=Retry(attempts=3, wait=1))
        self.failures = 1

    async def answer(self, call: ChatCall) -> Reply:
        await asyncio.sleep(0)
        message = ChatMessage(role="assistant", content="one two")
        return Reply(message=message, finish_reason="stop", model="drip-1", usage=Usage(input_tokens=1))

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise LLMServerError("busy", status=503)
        for word in ("one", " two"):
            await asyncio.sleep(0)
            yield Delta(text=word)
        yield await self.answer(call)


QUESTION = [ChatMessage(role="user", content="Why?")]


class Streams(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        stage: Stage = ev.get("stage")
        stage.stream = Drip().stream(QUESTION)
        async for delta in stage.stream:
            ctx.write_event_to_stream(Event(text=delta.text))
            here("step ask")
            await asyncio.sleep(0)
        here("step ask")
        return StopEvent()


async def streams(stage: Stage) -> None:
    handler = stage.handler = Streams(timeout=LIMIT).run(stage=stage)
    with contextlib.suppress(AgentflowError):
        async for _ in handler.stream_events():
            pass
        await handler


async def stream_alone(stage: Stage) -> None:
    await ChatMemory().aput(*QUESTION)
    here("")
    await Drip().chat(QUESTION)
    here("")
    stage.stream = Drip().stream(QUESTION)
    async with stage.stream as stream:
        async for _ in stream:
            here("")
            await asyncio.sleep(0)
    here("")


async def stream_left(stage: Stage) -> None:
    """Whoever reads it does not close it."""
    stream = Drip().stream(QUESTION)
    async for _ in stream:
        await asyncio.sleep(0)
    here("")


# ways to stop


def cancel_run(stage: Stage) -> None:
    """Whoever holds the handler cancels the run."""
    if stage.handler is not None:
        stage.handler.cancel_run()


def cancel_caller(stage: Stage) -> None:
    """The task that awaits is cancelled, and cancels the run then, as a service does whose client is gone."""
    stage.main.cancel()


def time_out(stage: Stage) -> None:
    """The time limit of the run goes off."""
    for limit in stage.clock.limits:
        limit()


def close_stream(stage: Stage) -> None:
    """Another task, in a context of its own, closes the stream of the chat."""
    if stage.stream is not None:
        stage.closing = asyncio.ensure_future(stage.stream.aclose())


def leave_loop(stage: Stage) -> None:
    """The program ends: `asyncio.run` cancels whatever goes on."""
    raise SystemExit


def close_loop(stage: Stage) -> None:
    """The loop ends, and nobody cancels what goes on."""
    asyncio.get_running_loop().stop()


SCENES: dict[str, tuple[Scene, tuple[Stop, ...]]] = {
    "everything": (everything, (cancel_run, cancel_caller, time_out, leave_loop, close_loop)),
    "agent": (agent, (cancel_run, cancel_caller, time_out, leave_loop, close_loop)),
    "streams": (streams, (cancel_run, cancel_caller, time_out, close_stream, leave_loop, close_loop)),
    "stream_alone": (stream_alone, (cancel_caller, close_stream, leave_loop)),
    "stream_left": (stream_left, (cancel_caller, leave_loop, close_loop)),
}
PAIRS = [(scene, stop) for scene, (_, stops) in SCENES.items() for stop in stops]


class Swept:
    """One scene, stopped at one turn."""

    def __init__(self, scene: str, stop: Stop, at: int) -> None:
        self.where = f"{scene} after {stop.__name__} at turn {at}"
        self.stop = stop
        self.ledger = Ledger()
        self.lines = Lines()
        self.problems: list[str] = []
        self.turns = 0
        self.left: list[str] = []
        _elsewhere.clear()
        self._play(SCENES[scene][0], at)
        self.problems += _elsewhere

    def _play(self, scene: Scene, at: int) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.ledger)
        observer = SpanObserver(provider)
        add_observer(observer)
        add_observer(self.ledger)
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self.lines)
        try:
            self._run(scene, at)
            observer.close()
            gc.collect()
        finally:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(self.lines)
            remove_observer(observer)
            remove_observer(self.ledger)

    def _run(self, scene: Scene, at: int) -> None:
        """Nothing holds the loop, its tasks or the run when this is over."""
        stage = Stage()
        loop = SweptLoop(at, partial(self.stop, stage))
        with use_clock(stage.clock), contextlib.suppress(SystemExit, RuntimeError), self._way(loop) as runs:
            runs(self._main(scene, stage, loop))

    @contextlib.contextmanager
    def _way(self, loop: SweptLoop) -> Generator[Callable[[Coroutine[Any, Any, None]], None]]:
        """Runs what it is given, as programs do; or with a loop that is closed without more ado."""
        if self.stop is not close_loop:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                yield runner.run
            return
        with contextlib.closing(loop):
            yield loop.run_until_complete

    async def _main(self, scene: Scene, stage: Stage, loop: SweptLoop) -> None:
        stage.main = asyncio.ensure_future(self._played(scene, stage))
        with contextlib.suppress(asyncio.CancelledError):
            await stage.main
        self.turns = loop.turns
        if stage.handler is not None:
            await stage.handler.cancel_run()
        for _ in range(3):
            await asyncio.sleep(0)
        if stage.closing is not None:
            await stage.closing
        self.left = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    async def _played(self, scene: Scene, stage: Stage) -> None:
        try:
            await scene(stage)
        finally:
            if otel.get_current() or current_scope.get() is not None:
                self.problems.append(f"{otel.get_current()} {current_scope.get()} is current")

    def check(self) -> None:
        """Raise AssertionError with everything that is wrong."""
        ledger, spans = self.ledger, self.ledger.spans
        lines = [] if self.stop is close_loop else self.lines.lines  # asyncio says that tasks were pending
        problems = [*self.problems, *lines, *self.left, *check_trace(spans)]
        for op, label in ledger.begun.items():
            many = ledger.ended[op]
            if many != 1 and (
                many or self.stop not in {leave_loop, close_loop}
            ):  # what the loop never began, nobody can end
                problems.append(f"{label} ended {many} times")
        begun, ended = Counter(ledger.started_spans), Counter(span.name for span in spans)
        if begun != ended:
            problems.append(f"spans that began and did not end: {begun - ended}; that only ended: {ended - begun}")
        ids = {span.context.span_id for span in spans if span.context}
        problems += [f"{s.name} has no parent in the trace" for s in spans if s.parent and s.parent.span_id not in ids]
        outcomes = Counter(outcome(span) for span in spans)
        roots = [outcome(span) for span in spans if span.parent is None and span.name.startswith("invoke_")]
        if len(roots) > 1:
            problems.append(f"there are several roots: {roots}")
        if wrong := outcomes.keys() - ALLOWED[self.stop]:
            problems.append(f"nothing ends as {wrong} here")
        if roots == ["ok"] and (wrong := outcomes.keys() - WITHIN_OK[self.stop]):
            problems.append(f"it went well, and these did not: {wrong}")
        assert not problems, "\n".join([self.where, *problems, tree(spans)])


LOGGERS = "agentflow", "asyncio", "opentelemetry"
WENT_WELL = {"ok", "retried", "collecting"}
ALLOWED: dict[Stop, set[str]] = {
    cancel_run: WENT_WELL | {"cancelled", "dropped"},
    cancel_caller: WENT_WELL | {"cancelled", "dropped"},
    time_out: WENT_WELL | {"cancelled", "dropped", "timeout"},
    close_stream: WENT_WELL | {"cancelled"},
    leave_loop: WENT_WELL | {"cancelled", "dropped", "suspended"},
    close_loop: WENT_WELL | {"cancelled", "dropped", "suspended"},
}
WITHIN_OK: dict[Stop, set[str]] = dict.fromkeys(ALLOWED, WENT_WELL) | {close_stream: WENT_WELL | {"cancelled"}}


def outcome(span: ReadableSpan) -> str:
    return str((span.attributes or {}).get("agentflow.outcome"))


def tree(spans: list[ReadableSpan]) -> str:
    """The spans, indented."""
    lines: list[str] = []

    def show(parent: int | None, depth: int) -> None:
        for span in sorted(spans, key=lambda span: span.start_time or 0):
            if (span.parent.span_id if span.parent else None) == parent:
                assert span.context
                lines.append(f"{'  ' * depth}{span.name} {outcome(span)}")
                show(span.context.span_id, depth + 1)

    show(None, 0)
    return "\n".join(lines)


@pytest.fixture
def unraisable(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What was raised where nobody could hear it, and what was not closed."""
    heard: list[str] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda args: heard.append(f"{args.err_msg} {args.exc_value!r}")
    gc.collect()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield heard
    finally:
        sys.unraisablehook = before


@pytest.mark.parametrize(("scene", "stop"), PAIRS)
def test_a_run_that_is_stopped_at_any_turn_has_a_whole_trace(scene: str, stop: Stop, unraisable: list[str]) -> None:
    whole = Swept(scene, stop, 0)
    whole.check()
    assert outcome(whole.ledger.spans[-1]) == "ok"
    for at in range(1, whole.turns + 1):
        Swept(scene, stop, at).check()
        wrong = [line for line in unraisable if stop is not close_loop or "never awaited" not in line]
        assert not wrong, f"{scene} after {stop.__name__} at turn {at}: {wrong}"
