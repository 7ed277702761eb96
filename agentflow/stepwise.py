"""Running a workflow one step at a time: what a step produced is held until it is sent on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .errors import WorkflowRuntimeError

if TYPE_CHECKING:
    from contextvars import Context as Variables

    from .events import Event
    from .graph import StepPlan


class Held(NamedTuple):
    """An event that was produced and waits to be sent on."""

    event: Event
    plan: StepPlan | None
    """The step that produced it."""
    step: str | None
    """The step that it was addressed to, if it was."""
    variables: Variables
    cause: Any
    """The operation of the step that produced it, where somebody looks on."""


class Steppable(Protocol):
    """What a stepper needs of a run."""

    delayed: Any
    """What waits for its next attempt."""
    waits: Any
    """What is suspended until an event comes."""

    @property
    def over(self) -> bool:
        """Has it ended?"""
        ...

    @property
    def executing(self) -> bool:
        """Is a step running that is not suspended in a wait?"""
        ...

    def start_next(self) -> bool:
        """Start the first delivery that is ready, if one is."""
        ...

    def pass_on(self, held: Held, event: Event) -> None:
        """Deliver what was held."""
        ...

    def fail_if_stalled(self) -> bool:
        """Fail the run if nothing of it can ever go on."""
        ...


class Stepper:
    """Starts one delivery of a run at a time.

    `explicit` is `run(stepwise=True)`: what is not sent on stays where it is. Otherwise the next call
    sends on what the caller left.
    """

    def __init__(self, run: Steppable, *, explicit: bool) -> None:
        self.explicit = explicit
        self._run = run
        self._produced: list[Held] = []
        self._handed: list[Held] = []
        self._progress: asyncio.Future[None] | None = None
        self._busy = False

    @property
    def held(self) -> list[Held]:
        """Everything that was produced and has not been sent on."""
        return [*self._handed, *self._produced]

    def hold(self, held: Held) -> None:
        """A step produced something."""
        self._produced.append(held)

    def release(self, event: Event) -> Held | None:
        """What `event` is the sending on of: the same object, or else the first held one of its type."""
        found = next((held for held in self.held if held.event is event), None)
        if found is None:
            found = next((held for held in self.held if type(held.event) is type(event)), None)
        if found is not None:
            self._handed = [held for held in self._handed if held is not found]
            self._produced = [held for held in self._produced if held is not found]
        return found

    def progressed(self) -> None:
        """Something of the run ended, began to wait, or became ready."""
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    async def step(self) -> list[Event]:
        """Run until a step has produced something, and hand that out. Empty: the run is over."""
        if self._busy:
            msg = "run_step() is running already, in another task. Await one call before the next."
            raise WorkflowRuntimeError(msg)
        self._busy = True
        try:
            return await self._step()
        finally:
            self._busy = False

    async def _step(self) -> list[Event]:
        run = self._run
        if not self.explicit:
            handed, self._handed = self._handed, []
            for held in handed:
                run.pass_on(held, held.event)
        while not run.over:
            if not run.executing:
                if self._produced:
                    produced, self._produced = self._produced, []
                    self._handed += produced
                    return [held.event for held in produced]
                if run.start_next():
                    continue
                if self._handed and not run.delayed and not run.waits:
                    names = ", ".join(type(held.event).__name__ for held in self._handed)
                    msg = (
                        f"nothing can run: {names} was handed out and not sent on. Write: for ev in produced: "
                        "handler.ctx.send_event(ev)"
                    )
                    raise WorkflowRuntimeError(msg)
                if run.fail_if_stalled():
                    continue
            self._progress = asyncio.get_running_loop().create_future()
            try:
                await self._progress
            finally:
                self._progress = None
        return []
