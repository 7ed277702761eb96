"""A workflow: the declaration that is compiled, and what starts its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

from typing_extensions import TypeVar

from .checks import check_overrides, check_slots
from .compiler import STEPS_ROLE, StepSource, check_annotated, collect_steps, compile_graph
from .context import past_of
from .errors import WorkflowConfigurationError, WorkflowRuntimeError, WorkflowValidationError, a, shown
from .events import Event, StartEvent, StopEvent
from .gate import Gate
from .handler import Handler, ResultT
from .host import Host
from .observe import current_scope
from .resource import Pools, Resource, name_of
from .run import ENDED, NEW, RUNNING, Run
from .signature import WORKFLOW_ROLE
from .snapshot import load
from .steps import is_count, is_duration
from .store import StateStore
from .verbose import VerbosePrinter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from .context import Context
    from .graph import Graph
    from .steps import Declaration

StartT = TypeVar("StartT", bound=StartEvent, default=StartEvent)

_attached = 0
"""Counts the functions that were attached to classes: a graph that is older is compiled anew."""


class _Attach:
    """`@step(workflow=X)`: adds a function to a class or, got from an object, to that object alone."""

    def __get__(
        self, workflow: Workflow[Any, Any] | None, cls: type[Workflow[Any, Any]]
    ) -> Callable[[Declaration], None]:
        return partial(_attach, cls if workflow is None else workflow)


def _attach(target: type[Workflow[Any, Any]] | Workflow[Any, Any], declaration: Declaration) -> None:
    global _attached  # noqa: PLW0603 because classes are the process's
    name = declaration.fn.__name__
    if target is Workflow:
        msg = (
            f"@step(workflow=Workflow) on {name!r} would add the step to every workflow there is. Make one of your "
            "own: flow = Workflow(), or class MyFlow(Workflow): pass"
        )
        raise WorkflowValidationError(msg)
    cls = target if isinstance(target, type) else type(target)
    own: dict[str, StepSource] = vars(target).get(STEPS_ROLE, {})
    if name in {**collect_steps(cls, {}), **own}:
        msg = f"{cls.__name__!r} has a step {name!r} already. Give one of the two functions another name."
        raise WorkflowValidationError(msg)
    setattr(target, STEPS_ROLE, {**own, name: StepSource(declaration.fn, declaration)})
    if isinstance(target, type):
        _attached += 1
    else:
        target._graph = target._host = None


class Workflow(Generic[StartT, ResultT]):
    """Subclass it and write steps as methods, or make an object and attach functions to it.

    - `timeout`: seconds that a run may be alive; None for no limit.
    - `verbose`: print each step and what it produced.
    - `num_concurrent_runs`: how many runs of this object go on at once; others wait their turn.
    - `resources`: replaces what steps are injected: `{factory: object}`, or `{factory: Resource(other)}`.
    - `name`: how it is called in traces, drawings and stored runs; the class's name by default.

    `Workflow[MyStart, MyResult]` types what `run` takes and returns.
    """

    cancel_grace: ClassVar[float] = 5.0
    """Seconds that cancelled steps have to end before they are left behind."""
    pause_grace: ClassVar[float] = 30.0
    """Seconds for which nothing of a run may go on before its trace ends there; what goes on begins another."""
    agent_name: str | None = None
    """What the agent is called, where a run of this workflow is a run of an agent; observers are told."""

    asks_for: Sequence[Resource] = ()
    """Resources that steps ask for by `ctx.resource`: `resources=` may replace them too."""

    __agentflow_attach__ = _Attach()

    _timeout: float | None = None
    _verbose: bool = False
    _gate: Gate | None = None
    _resources: Mapping[Callable[..., Any], Any] = {}
    _name: str | None = None
    _workflows: Mapping[str, Workflow[Any, Any]] = {}
    _graph: tuple[int, Graph] | None = None
    """Kept by each class and by each object that has steps of its own; and what `_attached` was then."""
    _pools: Pools | None = None
    _host: Host | None = None
    _compiled: int = -1

    def __init__(
        self,
        timeout: float | None = None,
        verbose: bool = False,  # noqa: FBT001, FBT002 because the documented signature has it so
        num_concurrent_runs: int | None = None,
        resources: Mapping[Callable[..., Any], Any] | None = None,
        name: str | None = None,
    ) -> None:
        _check_options(type(self).__name__, timeout, num_concurrent_runs, resources, name)
        self._timeout = timeout
        self._verbose = verbose
        self._gate = None if num_concurrent_runs is None else Gate(num_concurrent_runs)
        self._resources = dict(resources or {})
        self._name = name

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_annotated(cls)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} workflow{'' if self._name is None else f' {self._name!r}'}>"

    @property
    def name(self) -> str:
        """How it is called."""
        return self._name or type(self).__name__

    @property
    def start_event_class(self) -> type[StartEvent]:
        """The type of event that starts a run: its fields are what `run` takes."""
        return graph_of(self).start

    @property
    def stop_event_class(self) -> type[StopEvent]:
        """The type of event that ends a run; plain StopEvent where there are several."""
        return graph_of(self).stop

    def events(self) -> list[type[Event]]:
        """Every type of event that the steps accept, produce or await."""
        return list(graph_of(self).events())

    def validate(self) -> None:
        """Compile and check it now. Raises `WorkflowValidationError` with what to write instead."""
        self._ready()

    def add_workflows(self, **workflows: Workflow[Any, Any]) -> None:
        """Fill slots for nested workflows: steps' parameters that are annotated with a workflow.

        Raises `WorkflowConfigurationError` for a name that no step has, or what is no workflow.
        """
        slots = {name for plan in graph_of(self).steps for name in plan.spec.slots}
        for name, workflow in workflows.items():
            if name not in slots:
                msg = (
                    f"add_workflows({name}=...): no step of {self.name!r} has such a slot. There are: "
                    f"{', '.join(sorted(slots)) or 'none'}. A slot is a step's parameter: {name}: Workflow"
                )
                raise WorkflowConfigurationError(msg)
            _check_nested(name, workflow)
        self._workflows = {**self._workflows, **workflows}
        self._host = None

    def _ready(self) -> Host:
        """The compiled workflow, compiled now where it is not, or not any more."""
        if self._host is not None and self._compiled == _attached:
            return self._host
        graph = graph_of(self)
        check_slots(graph, self._workflows)
        check_overrides(graph, self._resources, self.asks_for)
        if self._pools is None:
            self._pools = Pools()
        self._host = Host(
            self,
            graph,
            timeout=self._timeout,
            gate=self._gate,
            observers=(VerbosePrinter(),) if self._verbose else (),
            workflows=self._workflows,
            overrides=self._resources,
            pools=self._pools,
            cancel_grace=self.cancel_grace,
            pause_grace=self.pause_grace,
        )
        self._compiled = _attached
        return self._host

    def run(
        self,
        *,
        ctx: Context[Any] | None = None,
        start_event: StartT | None = None,
        stepwise: bool = False,
        detached: bool = False,
        **fields: Any,
    ) -> Handler[ResultT]:
        """Start a run and return its handler at once: `result = await workflow.run(topic="pirates")`.

        What starts it are `fields` of its start event, or the event itself as `start_event`.

        - `ctx`: goes on with the state of a run that has ended, or with a run that was put away.
        - `stepwise`: hold each step until `handler.run_step()`.
        - `detached`: inside a step, make it no child of that step.

        Raises `WorkflowRuntimeError`, with the names of the fields that are wrong, and
        `WorkflowValidationError` where the workflow itself is.
        """
        host = self._ready() if self._host is None or self._compiled != _attached else self._host
        run = self._make_run(host, ctx)
        event = self._start_event(host.graph, run, ctx, start_event, fields)
        if not _in_event_loop():
            msg = (
                f"{self.name}.run() needs a running event loop. Write: asyncio.run(main()), with "
                f"`await {self.name}().run(...)` in main, or in plain code: {self.name}().run_sync(...)"
            )
            raise WorkflowRuntimeError(msg)
        host.recent = run.counts
        if stepwise:
            run.step_by_step(explicit=True)
        if ctx is not None:
            ctx._run = run
        run.start(event, detached=detached)
        return Handler(run, ctx)

    def _make_run(self, host: Host, ctx: Context[Any] | None) -> Run:
        if ctx is None:
            return Run(host, StateStore(host.graph.state))
        if not hasattr(ctx, "_run"):
            msg = (
                f"run(ctx=...) was given a {type(ctx).__name__}, and a Context is needed. What was stored is read by: "
                "run(ctx=Context.from_dict(workflow, data))"
            )
            raise WorkflowRuntimeError(msg)
        old: Any = ctx._run
        if ctx._plan is not None:
            msg = "run(ctx=...) was given the context of a step. A run of its own is started without: workflow.run(...)"
            raise WorkflowRuntimeError(msg)
        if old.status not in {NEW, ENDED}:
            msg = (
                f"the run of {old.graph.name!r} that this context belongs to is still going. Await its handler first, "
                "or store and restore it: Context.from_dict(workflow, ctx.to_dict())"
            )
            raise WorkflowRuntimeError(msg)
        if old.host is not host and old.graph.steps is not host.graph.steps:
            msg = f"this context belongs to {old.graph.name!r}, not to {self.name!r}. Write: Context({self.name}())"
            raise WorkflowRuntimeError(msg)
        if old.status == ENDED:
            run = Run(host, old.store)
            if old.segment is not None:
                run.segment = old.segment.followed_by(old.run_id)
            return run
        old.host = host
        assert isinstance(old, Run)
        return old

    def _start_event(
        self, graph: Graph, run: Run, ctx: Context[Any] | None, start_event: StartT | None, fields: dict[str, Any]
    ) -> StartEvent | None:
        if run.restored is not None:
            if start_event is not None or fields:
                given = "start_event" if start_event is not None else next(iter(fields))
                msg = (
                    f"run(ctx=..., {given}=...): this run of {self.name!r} had not ended; it goes on where it was and "
                    "takes no start event. Write: workflow.run(ctx=ctx)"
                )
                raise WorkflowRuntimeError(msg)
            return None
        if start_event is None:
            return graph.start_event(fields, "" if ctx is None else past_of(ctx))
        if not isinstance(start_event, graph.start):
            msg = (
                f"run(start_event={shown(start_event)}): {self.name!r} starts with {a(graph.start.__name__)}. Write: "
                f"run(start_event={graph.start.__name__}(...))"
            )
            raise WorkflowRuntimeError(msg)
        if fields:
            field = next(iter(fields))
            msg = (
                f"run(start_event=..., {field}=...): a run is started by an event or by fields, not both. Write: "
                f"run(start_event={graph.start.__name__}({field}=...))"
            )
            raise WorkflowRuntimeError(msg)
        return start_event

    def run_sync(self, **arguments: Any) -> ResultT:
        """Run it in plain code and return the result; takes what `run` takes.

        Under a running event loop (a notebook) it runs in a thread of its own, and blocks the caller.
        """

        async def main() -> ResultT:
            handler = self.run(**arguments)
            handler._run.alone = True
            return await handler

        scope = current_scope.get()
        outer = None if scope is None else scope.run
        if _in_event_loop():
            with ThreadPoolExecutor(1, thread_name_prefix="agentflow-run-sync") as pool:
                return pool.submit(copy_context().run, asyncio.run, main()).result()
        if outer is not None and outer.status == RUNNING and outer.thread != get_ident():
            # in a plain step: the child belongs in the event loop of its parent
            return asyncio.run_coroutine_threadsafe(main(), outer.loop).result()
        return asyncio.run(main())

    def __agentflow_run__(self, data: Mapping[str, Any] | None) -> Run:
        """A run that has not begun, for a context: fresh, or from what was stored."""
        host = self._ready()
        run = Run(host, StateStore(host.graph.state))
        if data is not None:
            load(run, data)
        return run

    def __agentflow_session__(self) -> str | None:
        """The conversation to which its runs belong, where no `session(...)` says another."""
        return None

    async def aclose(self) -> None:
        """Tear down the resources that live as long as the workflow, in this event loop."""
        if self._pools is not None:
            errors = await self._pools.here().close()
            if errors:
                msg = f"the teardown of resources of {self.name!r} failed"
                raise BaseExceptionGroup(msg, errors)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


setattr(Workflow, WORKFLOW_ROLE, True)


def graph_of(workflow: Workflow[Any, Any] | type[Workflow[Any, Any]]) -> Graph:
    """The compiled graph of a workflow object or class. Raises `WorkflowValidationError`."""
    if isinstance(workflow, type):
        return _kept_graph(workflow, workflow, {})
    own: dict[str, StepSource] = vars(workflow).get(STEPS_ROLE, {})
    cls = type(workflow)
    return _kept_graph(workflow if own else cls, cls, own).named(workflow.name)


def _kept_graph(holder: Any, cls: type[Workflow[Any, Any]], own: Mapping[str, StepSource]) -> Graph:
    kept: tuple[int, Graph] | None = holder.__dict__.get("_graph")
    if kept is None or kept[0] != _attached:
        kept = holder._graph = (_attached, compile_graph(cls.__name__, collect_steps(cls, own)))
    return kept[1]


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _check_nested(name: str, workflow: object) -> None:
    if not isinstance(workflow, Workflow):
        made = f"{workflow.__name__}()" if isinstance(workflow, type) else "MyFlow()"
        msg = (
            f"add_workflows({name}={shown(workflow)}): it takes a workflow object. Write: add_workflows({name}={made})"
        )
        raise WorkflowConfigurationError(msg)


def _check_options(kind: str, timeout: object, num_concurrent_runs: object, resources: object, name: object) -> None:
    if timeout is not None and not is_duration(timeout):
        msg = (
            f"{kind}(timeout={shown(timeout)}): it is a positive number of seconds. Write {kind}(timeout=60), or None."
        )
    elif num_concurrent_runs is not None and not is_count(num_concurrent_runs):
        msg = (
            f"{kind}(num_concurrent_runs={shown(num_concurrent_runs)}): it is a whole number of 1 or more. Write "
            f"{kind}(num_concurrent_runs=4), or None for no limit."
        )
    elif resources is not None and not isinstance(resources, Mapping):
        msg = (
            f"{kind}(resources={shown(resources)}): it is a mapping of factories to what replaces them. Write "
            f"{kind}(resources={{make_db: my_db}})."
        )
    elif wrong := [key for key in cast("Mapping[object, object]", resources or {}) if not callable(key)]:
        meant: object = wrong[0].factory if isinstance(wrong[0], Resource) else wrong[0]
        key = meant if isinstance(meant, str) else name_of(meant) if callable(meant) else "make_db"
        msg = (
            f"{kind}(resources={{{shown(wrong[0])}: ...}}): the keys are the factories themselves, and this is "
            f"{a(type(wrong[0]).__name__)}. Write {kind}(resources={{{key}: ...}})."
        )
    elif name is not None and not (isinstance(name, str) and name):
        msg = f'{kind}(name={shown(name)}): it is a text. Write {kind}(name="my-flow"), or None for {kind!r}.'
    else:
        return
    raise WorkflowConfigurationError(msg)
