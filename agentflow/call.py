"""Calling a step that is more than an async method of an event: resources, slots, time-outs, threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from .context import context_of
from .errors import WorkflowTimeoutError
from .resource import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context as Variables
    from contextvars import ContextVar

    from .delivery import Worker
    from .port import Port

_MISSING = object()


async def invoke(run: Port, me: Worker) -> Any:
    """Call the step of a worker's delivery with everything that its signature asks for."""
    plan = me.plan
    spec = plan.spec
    arguments: dict[str, Any] = {spec.event: me.event}
    if spec.context is not None:
        me.ctx = arguments[spec.context] = context_of(run, me)
    for name, slot in spec.slots.items():
        arguments[name] = run.host.workflows.get(name, slot.default)
    try:
        if plan.resources:
            me.pool = Pool()
            if run.pool is None:
                run.pool = Pool()
            for name, recipe in plan.resources.items():
                arguments[name] = await run.host.resource(recipe, run.pool, me.pool)
        call = _call(run, me, arguments)
        return await (call if plan.timeout is None else limited(run, me, plan.timeout, call))
    finally:
        if me.pool is not None:
            await leave(run, me)


async def leave(run: Port, me: Worker) -> None:
    """Tear down the resources of this execution of a step."""
    while me.pool is not None:  # a thread that was left behind may ask for more meanwhile
        pool, me.pool = me.pool, None
        if pool.needs_closing:
            run.report(await pool.close(), f"step {me.plan.name!r}")


async def limited(run: Port, me: Worker, seconds: float, call: Awaitable[Any]) -> Any:
    """Await a step's call for as long as its time-out allows."""
    limit = me.limit = run.clock.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if not limit.expired():
            raise
        msg = f"step {me.plan.name!r} of {run.graph.name!r} exceeded its time-out of {seconds:g} s"
        raise WorkflowTimeoutError(msg) from error
    finally:
        me.limit = None


def _call(run: Port, me: Worker, arguments: dict[str, Any]) -> Awaitable[Any]:
    plan = me.plan
    first = [run.host.owner] if plan.spec.bound else []
    if plan.spec.positional_only:
        first += [arguments.pop(name) for name in plan.spec.positional_only if name in arguments]
    if plan.is_async:
        return plan.fn(*first, **arguments)  # type: ignore[no-any-return]  # because async functions give awaitables
    return _in_thread(run, me, first, arguments)


async def _in_thread(run: Port, me: Worker, first: list[Any], arguments: dict[str, Any]) -> Any:
    if run.threads is None:
        run.threads = ThreadPoolExecutor(max(1, run.graph.threads), thread_name_prefix=f"agentflow-{run.graph.name}")
    inside = copy_context()
    call = partial(_plainly, partial(me.plan.fn, *first, **arguments))
    future = run.loop.run_in_executor(run.threads, partial(inside.run, call))
    try:
        out = await asyncio.shield(future)
    except asyncio.CancelledError:
        # a thread cannot be interrupted: cancelling waits for it, a time-out leaves it behind
        if me.limit is None or not me.limit.expired():
            await asyncio.wait([future])
        if future.done() and not future.cancelled():
            future.exception()
        raise
    if not same(inside, copy_context()):
        me.threaded = inside
    return await out if asyncio.iscoroutine(out) else out


def _plainly(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StopIteration as error:  # no future can carry it; a coroutine makes the same of it
        msg = "a plain step raised StopIteration"
        raise RuntimeError(msg) from error


def changes(before: Variables, after: Variables) -> list[tuple[ContextVar[Any], Any]]:
    """The variables that have other objects in `after` than in `before`, and these."""
    return [(variable, value) for variable, value in after.items() if before.get(variable, _MISSING) is not value]


def same(one: Variables, other: Variables) -> bool:
    """Say whether two contexts hold the very same objects; `==` would compare the objects by value."""
    if len(one) != len(other):
        return False
    return all(other.get(variable, _MISSING) is value for variable, value in one.items())
