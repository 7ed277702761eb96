"""Checkpoints of runs: what each completed step left, and runs that start from there."""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from pydantic import BaseModel

from .context import Context
from .errors import WorkflowConfigurationError
from .handler import ResultT
from .snapshot import dump
from .store import copied, deeply
from .workflow import graph_of

if TYPE_CHECKING:
    from .delivery import Worker
    from .events import Event
    from .handler import Handler
    from .run import Run
    from .workflow import Workflow

_DATA = (BaseModel, dict, list, tuple, set, frozenset, deque)


@dataclass
class Checkpoint:
    """A run as it was when a step had completed."""

    last_completed_step: str
    input_event: Event
    output_event: Event | list[Event] | None
    """A copy of what the step returned. Change it before `run_from`, and the run goes on with the change."""
    ctx_state: dict[str, Any]
    """The rest of the run, as `Context.to_dict` gives it; values that cannot be stored are kept as objects.

    Of those, what is data - models, dataclasses, containers - is a copy, anything else the object itself.
    """
    id_: str = field(default_factory=lambda: str(uuid.uuid4()))


class WorkflowCheckpointer(Generic[ResultT]):
    """Runs a workflow and keeps a checkpoint for every step that completes, in the order of completion.

    They are kept in memory, by run: `checkpointer.checkpoints[handler.run_id]`. `disabled_steps` names
    steps that leave none.
    """

    def __init__(self, workflow: Workflow[Any, ResultT], disabled_steps: list[str] | None = None) -> None:
        self.workflow = workflow
        self.checkpoints: dict[str, list[Checkpoint]] = {}
        self._disabled: set[str] = set()
        for step in disabled_steps or ():
            self.disable_checkpoint(step)

    @property
    def enabled_checkpoints(self) -> set[str]:
        """The steps that leave checkpoints."""
        return {plan.name for plan in graph_of(self.workflow).steps} - self._disabled

    def enable_checkpoint(self, step: str) -> None:
        """Let a step leave checkpoints again. Raises `WorkflowConfigurationError` for an unknown step."""
        self._check(step)
        self._disabled.discard(step)

    def disable_checkpoint(self, step: str) -> None:
        """Let a step leave no checkpoints. Raises `WorkflowConfigurationError` for an unknown step."""
        self._check(step)
        self._disabled.add(step)

    def _check(self, step: str) -> None:
        names = [plan.name for plan in graph_of(self.workflow).steps]
        if step not in names:
            msg = f"{self.workflow.name!r} has no step {step!r}. It has: {names}."
            raise WorkflowConfigurationError(msg)

    def run(self, **arguments: Any) -> Handler[ResultT]:
        """As `Workflow.run`, with checkpoints."""
        return self._record(self.workflow.run(**arguments))

    def run_from(self, checkpoint: Checkpoint, *, stepwise: bool = False, **fields: Any) -> Handler[ResultT]:  # noqa: ARG002 because the start step is over
        """Start a run of its own from a checkpoint: no step that had completed is executed again.

        `fields` for a start event are taken, as the documents have it, and have no effect: what reads
        them has run already. Raises `WorkflowRuntimeError` where the step does not declare its edited
        output, and `ContextSerdeError` where the workflow does not have it any more.
        """
        self._check(checkpoint.last_completed_step)
        state = {**_again(checkpoint.ctx_state), "run_id": str(uuid.uuid4())}
        context = Context[Any].from_dict(self.workflow, state)
        run: Any = context._run
        run.segment.fork(str(checkpoint.ctx_state["run_id"]))
        plan = run.graph.by_name[checkpoint.last_completed_step]
        output = _output(checkpoint.output_event)
        for event in _events(output):
            run.graph.returned(plan, event)
        run.continue_from(plan.name, output)
        return self._record(self.workflow.run(ctx=context, stepwise=stepwise))

    def _record(self, handler: Handler[ResultT]) -> Handler[ResultT]:
        kept = self.checkpoints.setdefault(handler.run_id, [])
        handler._run.record(partial(self._keep, kept))
        return handler

    def _keep(self, kept: list[Checkpoint], run: Run, worker: Worker, out: Any) -> None:
        if worker.plan.name not in self._disabled:
            state = dump(run, without=worker, keep=_kept)
            checkpoint = Checkpoint(worker.plan.name, copied(worker.event, _kept), _output(out), state)
            kept.append(checkpoint)
            run.note(worker, "checkpoint", {"id": checkpoint.id_, "step": checkpoint.last_completed_step})

    def filter_checkpoints(
        self,
        run_id: str | None = None,
        last_completed_step: str | None = None,
        input_event_type: type[Event] | None = None,
        output_event_type: type[Event] | None = None,
    ) -> list[Checkpoint]:
        """The checkpoints, of one run or of all, that fit what is given."""
        if run_id is not None and run_id not in self.checkpoints:
            msg = f"there are no checkpoints of a run {run_id!r}. There are of: {list(self.checkpoints)}."
            raise WorkflowConfigurationError(msg)
        runs = self.checkpoints.values() if run_id is None else [self.checkpoints[run_id]]
        return [
            c
            for checkpoints in runs
            for c in checkpoints
            if (last_completed_step is None or c.last_completed_step == last_completed_step)
            and (input_event_type is None or type(c.input_event) is input_event_type)
            and (output_event_type is None or any(type(e) is output_event_type for e in _events(c.output_event)))
        ]


def _events(output: Event | list[Event] | None) -> list[Event]:
    return output if isinstance(output, list) else [] if output is None else [output]


def _output(output: Event | list[Event] | None) -> Any:
    copies = [copied(event, _kept) for event in _events(output)]
    return copies if isinstance(output, list) else copies[0] if copies else None


def _kept(value: Any) -> Any:
    """What stands in a checkpoint for a value: data is copied, for the run goes on and changes it."""
    return deeply(value) if isinstance(value, _DATA) or is_dataclass(value) else value


def _again(stored: Any) -> Any:
    """What is stored once more, so that no run changes what another one starts from."""
    if stored.__class__ is dict:
        return {key: _again(value) for key, value in stored.items()}
    return [_again(value) for value in stored] if stored.__class__ is list else _kept(stored)
