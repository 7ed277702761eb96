"""A workflow: the declaration that is compiled, and what starts its runs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from typing_extensions import TypeVar

from .errors import WorkflowConfigurationError, WorkflowRuntimeError, WorkflowValidationError
from .events import Event, StartEvent, StopEvent
from .gate import Gate
from .graph import STEPS_ROLE, Graph, check_overrides, check_slots, collect_functions, compile_graph
from .handler import Handler, ResultT
from .host import Host
from .observe import current_scope
from .run import ENDED, NEW, RUNNING, Run
from .snapshot import load
from .steps import WORKFLOW_ROLE, declaration_of
from .store import StateStore
from .verbose import VerbosePrinter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from .context import Context

StartT = TypeVar("StartT", bound=StartEvent, default=StartEvent)

_attached = 0
"""Counts the functions that were attached to classes: a graph that is older is compiled anew."""


class _Attach:
    """`@step(workflow=X)`: adds a function to a class or, got from an object, to that object alone."""

    def __get__(self, workflow: Workflow[Any, Any] | None, cls: type[Workflow[Any, Any]]) -> Callable[..., None]:
        return partial(_attach, cls if workflow is None else workflow)


def _attach(target: type[Workflow[Any, Any]] | Workflow[Any, Any], fn: Callable[..., Any]) -> None:
    global _attached  # noqa: PLW0603 because classes are the process's
    if target is Workflow:
        msg = (
            f"@step(workflow=Workflow) on {fn.__name__!r} would add the step to every workflow there is. Make one of your "
            "own: flow = Workflow(), or class MyFlow(Workflow): pass"
        )
        raise WorkflowValidationError(msg)
    cls = target if isinstance(target, type) else type(target)
    own: dict[str, Callable[..., Any]] = vars(target).get(STEPS_ROLE, {})
    if fn.__name__ in {**collect_functions(cls, {}), **own}:
        msg = f"step {fn.__name__!r} is already part of {cls.__name__!r}. Give one of the two functions another name."
        raise WorkflowValidationError(msg)
    setattr(target, STEPS_ROLE, {**own, fn.__name__: fn})
    _attached += 1
    if not isinstance(target, type):
        target._host = None


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

    __agentflow_attach__ = _Attach()

    _timeout: float | None = None
    _verbose: bool = False
    _gate: Gate | None = None
    _resources: Mapping[Callable[..., Any], Any] = {}  # noqa: RUF012 because it is only ever replaced
    _name: str | None = None
    _workflows: Mapping[str, Workflow[Any, Any]] = {}  # noqa: RUF012 because it is only ever replaced
    _host: Host | None = None
    _compiled: int = -1

    def __init__(  # noqa: PLR0913 because these are the options of a workflow
        self,
        timeout: float | None = None,
        verbose: bool = False,  # noqa: FBT001, FBT002 because the documented signature has it so
        num_concurrent_runs: int | None = None,
        resources: Mapping[Callable[..., Any], Any] | None = None,
        name: str | None = None,
    ) -> None:
        kind = type(self).__name__
        if timeout is not None and (not isinstance(timeout, int | float) or timeout <= 0):
            msg = f"{kind}(timeout={timeout!r}): a time-out is a positive number of seconds, or None for no limit."
            raise WorkflowConfigurationError(msg)
        if num_concurrent_runs is not None and (not isinstance(num_concurrent_runs, int) or num_concurrent_runs < 1):
            msg = f"{kind}(num_concurrent_runs={num_concurrent_runs!r}): it is a whole number of 1 or more, or None."
            raise WorkflowConfigurationError(msg)
        if resources is not None and not hasattr(resources, "keys"):
            msg = f"{kind}(resources={resources!r}): it is a mapping. Write resources={{make_db: my_db}}"
            raise WorkflowConfigurationError(msg)
        self._timeout = timeout
        self._verbose = verbose
        self._gate = None if num_concurrent_runs is None else Gate(num_concurrent_runs)
        self._resources = dict(resources or {})
        self._name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} workflow{'' if self._name is None else f' {self._name!r}'}>"

    # -- what it is, from outside ----------------------------------------------------------------

    @property
    def name(self) -> str:
        """How it is called."""
        return self._name or type(self).__name__

    @property
    def start_event_class(self) -> type[StartEvent]:
        """The type of event that starts a run: its fields are what `run` takes."""
        return self._ready(slots=False).graph.start

    @property
    def stop_event_class(self) -> type[StopEvent]:
        """The type of event that ends a run; plain StopEvent where there are several."""
        return self._ready(slots=False).graph.stop

    def events(self) -> list[type[Event]]:
        """Every type of event that the steps accept, produce or await."""
        return list(self._ready(slots=False).graph.events())

    def validate(self) -> None:
        """Compile and check it now. Raises `WorkflowValidationError` with what to write instead."""
        self._ready()

    # -- setting it up ------------------------------------------------------------------------------

    def add_workflows(self, **workflows: Workflow[Any, Any]) -> None:
        """Fill slots for nested workflows: steps' parameters that are annotated with a workflow.

        Raises `WorkflowConfigurationError` for a name that no step has, or what is no workflow.
        """
        slots = {name for plan in graph_of(self).steps for name in plan.spec.slots}
        for name, workflow in workflows.items():
            if name not in slots:
                msg = f"add_workflows({name}=...): no step of {self.name!r} has such a slot. There are: {sorted(slots) or 'none'}."
                raise WorkflowConfigurationError(msg)
            if not isinstance(workflow, Workflow):
                made = f"{workflow.__name__}()" if isinstance(workflow, type) else "MyFlow()"
                msg = f"add_workflows({name}={workflow!r}): a slot takes a workflow object. Write add_workflows({name}={made})"
                raise WorkflowConfigurationError(msg)
        self._workflows = {**self._workflows, **workflows}
        self._host = None

    def _ready(self, *, slots: bool = True) -> Host:
        """The compiled workflow, compiled now where it is not, or not any more."""
        host = self._host
        if host is not None and self._compiled == _attached:
            return host
        graph = graph_of(self)
        check_overrides(graph, self._resources)
        host = Host(
            self,
            graph,
            timeout=self._timeout,
            gate=self._gate,
            observers=(VerbosePrinter(),) if self._verbose else (),
            workflows=self._workflows,
            overrides=self._resources,
            cancel_grace=self.cancel_grace,
        )
        if slots:
            check_slots(graph, self._workflows)
            self._host, self._compiled = host, _attached
        return host

    # -- running it -----------------------------------------------------------------------------------

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
        event = self._start_event(host.graph, run, start_event, fields)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            msg = (
                f"{self.name}.run() needs a running event loop. Write: asyncio.run(main()), with "
                f"`await {self.name}().run(...)` in main, or in plain code: {self.name}().run_sync(...)"
            )
            raise WorkflowRuntimeError(msg) from None
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
        old: Any = ctx._run
        if ctx._plan is not None:
            msg = "run(ctx=...) was given the context of a step. A run of its own is started without: workflow.run(...)"
            raise WorkflowRuntimeError(msg)
        if old.status == ENDED:
            return Run(host, old.store)
        if old.status != NEW:
            msg = (
                f"the run of {old.graph.name!r} that this context belongs to is still going. Await its handler first, or "
                "store and restore it: Context.from_dict(workflow, ctx.to_dict())"
            )
            raise WorkflowRuntimeError(msg)
        if old.host is not host and old.graph is not host.graph:
            msg = f"this context belongs to {old.graph.name!r}, not to {self.name!r}. Make one for it: Context(workflow)"
            raise WorkflowRuntimeError(msg)
        old.host = host
        assert isinstance(old, Run)
        return old

    def _start_event(
        self, graph: Graph, run: Run, start_event: StartT | None, fields: dict[str, Any]
    ) -> StartEvent | None:
        if run.restored is not None:
            if start_event is not None or fields:
                given = "start_event" if start_event is not None else next(iter(fields))
                msg = (
                    f"run(ctx=..., {given}=...): this run of {self.name!r} had not ended; it goes on where it was and takes "
                    "no start event. Write: workflow.run(ctx=ctx)"
                )
                raise WorkflowRuntimeError(msg)
            return None
        if start_event is None:
            return graph.start_event(fields)
        if not isinstance(start_event, graph.start):
            msg = f"run(start_event={start_event!r}): {self.name!r} starts with a {graph.start.__name__}. Write: run(start_event={graph.start.__name__}(...))"
            raise WorkflowRuntimeError(msg)
        if fields:
            msg = f"run(start_event=..., {next(iter(fields))}=...): fields belong in the event. Give either the event or its fields."
            raise WorkflowRuntimeError(msg)
        return start_event

    def run_sync(self, **arguments: Any) -> ResultT:
        """Run it in plain code and return the result; takes what `run` takes.

        Under a running event loop (a notebook) it runs in a thread of its own, and blocks the caller.
        """

        async def main() -> ResultT:
            return await self.run(**arguments)

        scope = current_scope.get()
        outer = None if scope is None else scope.run
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if outer is not None and outer.status == RUNNING and outer.thread != get_ident():
                # in a plain step: the child belongs in the event loop of its parent
                return asyncio.run_coroutine_threadsafe(main(), outer.loop).result()
            return asyncio.run(main())
        with ThreadPoolExecutor(1, thread_name_prefix="agentflow-run-sync") as pool:
            return pool.submit(copy_context().run, asyncio.run, main()).result()

    def __agentflow_run__(self, data: Mapping[str, Any] | None) -> Run:
        """A run that has not begun, for a context: fresh, or from what was stored."""
        host = self._ready()
        run = Run(host, StateStore(host.graph.state))
        if data is not None:
            load(run, data)
        return run

    # -- closing it -----------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Tear down the resources that live as long as the workflow, in this event loop."""
        if self._host is not None:
            errors = await self._host.pool.close()
            if errors:
                msg = f"closing {self.name!r}"
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
    cls = workflow if isinstance(workflow, type) else type(workflow)
    own: dict[str, Callable[..., Any]] = {} if isinstance(workflow, type) else vars(workflow).get(STEPS_ROLE, {})
    name = cls.__name__ if isinstance(workflow, type) else workflow.name
    kept: tuple[int, str, Graph] | None = None if own else vars(cls).get("_graph")
    if kept is not None and kept[:2] == (_attached, name):
        return kept[2]
    functions = collect_functions(cls, own)
    graph = compile_graph(name, functions)
    assert all(declaration_of(fn) is not None for fn in functions.values())
    if not own:
        cls._graph = (_attached, name, graph)  # type: ignore[attr-defined]  # each class has its own
    return graph
