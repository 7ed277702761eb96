"""What the caller holds of a run: await it, follow it, step it, cancel it."""

from __future__ import annotations

import asyncio
import sys
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from .context import Context, context_of
from .errors import WorkflowRuntimeError
from .events import StopEvent
from .run import ENDED
from .stream import Cursor, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from .events import Event, InputRequiredEvent
    from .run import Run

ResultT = TypeVar("ResultT", default=Any)


class Handler(Generic[ResultT]):
    """A run that goes on by itself. `await handler` gives its result, or raises what ended it.

    A caller who is cancelled while awaiting leaves the run going, unless the run is the child of a
    step. A failure that nobody ever asked for is logged once.
    """

    __slots__ = ("_ctx", "_cursor", "_heard", "_run")

    def __init__(self, run: Run, ctx: Context[Any] | None = None) -> None:
        self._run = run
        self._cursor: Cursor | None = None
        self._heard = False
        self._ctx = ctx

    def __repr__(self) -> str:
        return f"<Handler of {self._run!r}>"

    def __del__(self) -> None:
        if not self._heard and not sys.is_finalizing():  # then nothing can be imported to say it with
            if self._run.status == ENDED:
                self._run.warn_unheard()
            else:
                self._run.orphaned = True

    @property
    def ctx(self) -> Context[Any]:
        """The run's context: its state, and events sent from outside."""
        if self._ctx is None:
            self._ctx = context_of(self._run)
        return self._ctx

    @property
    def run_id(self) -> str:
        """Names the run, in traces and in stored data."""
        return self._run.run_id

    def __await__(self) -> Generator[Any, None, ResultT]:
        run = self._run
        if run.status != ENDED:
            try:
                yield from run.ended()
            except asyncio.CancelledError:
                if run.parent is not None:
                    run.cancel()
                raise
        return self.result()

    def is_done(self) -> bool:
        """Has it ended, with all that belongs to it?"""
        return self._run.status == ENDED

    def result(self) -> ResultT:
        """The result; raises what ended the run, or `WorkflowRuntimeError` while it goes on."""
        error = self.exception()
        if error is not None:
            raise error
        stop = self._run.stop_event
        result: ResultT = stop.result if type(stop) is StopEvent else stop  # type: ignore[assignment]  # a subclass is itself the result
        return result

    def exception(self) -> BaseException | None:
        """What ended the run, None if it succeeded; raises `WorkflowRuntimeError` while it goes on."""
        if self._run.status != ENDED:
            msg = f"{self._run!r} has not ended. Write: result = await handler"
            raise WorkflowRuntimeError(msg)
        self._heard = True
        return self._run.error

    def cancel_run(self) -> _Ended:
        """Cancel the run. Await the answer to wait until all of it has ended; nothing is raised then."""
        run = self._run
        self._heard = True
        if run.thread is not None and run.thread != get_ident():
            run.hop(run.cancel)
        else:
            run.cancel()
        return _Ended(run)

    async def until_asked(self) -> list[InputRequiredEvent]:
        """Wait until the run has ended, or stands still until somebody answers; returns what it asked since.

        For a step that answers the questions of a child in place of a person, or passes them on as its own: while
        this is used, they are not shown on the parent's stream. It is called in the run's own event loop, by one
        caller at a time, and first before the run has begun:

        ```
        handler = child.run()
        while questions := await handler.until_asked():
            for question in questions:
                handler.ctx.send_event(answer(question))
        result = await handler
        ```

        An empty list, while `is_done()` is False: it stands still, and asked nothing new.
        """
        run = self._run
        if run.questions is None:
            run.questions = []
        if run.status != ENDED:
            run.still = asyncio.get_running_loop().create_future()
            run.fail_if_stalled()  # it says so where it stands still already
            try:
                await run.still
            except asyncio.CancelledError:
                if run.parent is not None:
                    run.cancel()
                raise
            finally:
                run.still = None
        questions, run.questions = run.questions, []
        return questions

    def put_away(self) -> dict[str, Any]:
        """Store the run as `ctx.to_dict()` does and end it here, to go on elsewhere or later.

        Its operations end as suspended; `await handler.cancel_run()` waits until all of it has ended. It goes on with
        `workflow.run(ctx=Context.from_dict(workflow, data))`. Raises `ContextSerdeError`, and leaves the run as it was,
        where something of it cannot be stored.
        """
        run = self._run
        data = run.hop(run.put_away) if run.thread is not None and run.thread != get_ident() else run.put_away()
        self._heard = True
        return data

    def stream_events(self) -> Subscription:
        """Iterate over the run's stream; it ends with the run's StopEvent.

        A second iteration goes on where the last one stopped. For followers that are independent of
        each other, use `subscribe`.
        """
        if self._cursor is None:
            self._cursor = Cursor()
        return Subscription(self._run.followed(), self._cursor)

    def subscribe(self, after: int = 0) -> Subscription:
        """Follow the stream independently of others, from behind the event numbered `after` (0: from its start)."""
        return Subscription(self._run.followed(), Cursor(after))

    async def run_step(self) -> list[Event]:
        """Execute the next step that produces anything, and hand out what it returned and sent.

        The events are held until they are sent on, changed or not: `handler.ctx.send_event(ev)`. After
        `run(stepwise=True)` what is not sent on stays held; otherwise the next call sends it on. An
        empty list: the run is over.
        """
        if self._run.stepper is None:
            if self.is_done():
                return []
            self._run.step_by_step(explicit=False)
        assert self._run.stepper is not None
        return await self._run.stepper.step()

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        """Step by step: each round hands out what a step produced, and the next round sends it on."""
        if self._run.stepper is None and not self.is_done():
            self._run.step_by_step(explicit=False)
        while produced := await self.run_step():
            yield produced


class _Ended:
    """Awaits the end of a run without asking how it ended."""

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    def __await__(self) -> Generator[Any, None, None]:
        if self._run.status != ENDED:
            yield from self._run.ended()
