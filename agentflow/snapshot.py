"""A run put into JSON's types, and taken out of them again.

What is under way is explicit, so it can be stored at any moment: deliveries that are ready, in line,
delayed or being executed are all *pending*; one that was being executed is executed again, with the
ledger of what it did already.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from .codec import class_name, event_named
from .collect import Collector
from .delivery import Delivery
from .effects import Ledger
from .errors import ContextSerdeError
from .graph import Edge
from .store import DictState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .codec import Codec
    from .delivery import Worker
    from .events import Event

VERSION = 1


def dump(run: Any, *, without: Worker | None = None, keep: bool = False) -> dict[str, Any]:
    """The run in JSON's types. `without`: a worker whose step has just returned.

    With `keep`, values that cannot be stored stay the objects that they are.
    """
    codec: Codec = run.host.codec

    def event(value: Event, where: str) -> Any:
        return codec.encode(value, f"{where}: {type(value).__name__}", keep=keep)

    state = run.store.peek()
    data: dict[str, Any] = {
        "agentflow": VERSION,
        "workflow": run.graph.name,
        "run_id": run.run_id,
        "state": codec.encode(dict(state) if isinstance(state, DictState) else state, "the state", keep=keep),
        "ended": run.over,
    }
    if run.over:
        return data

    def pending(delivery: Delivery, due: float | None = None) -> dict[str, Any]:
        step = f"step {delivery.plan.name!r}"
        entry: dict[str, Any] = {"step": delivery.plan.name, "event": event(delivery.event, step)}
        if due is not None:
            entry["due"] = due
        if delivery.ledger is not None:
            entry["ledger"] = _dump_ledger(delivery.ledger, codec, step, keep=keep)
        return entry

    waiting = [pending(w.delivery()) for w in run.workers if w is not without and w.plan is not None]
    lines = [d for line in (run.backlog or {}).values() for d in line]
    data["pending"] = [
        *waiting,
        *(pending(d) for d in (*(run.ready or ()), *lines)),
        *(pending(delivery, due) for _, delivery, due in (run.delayed or {}).values()),
        *(pending(delivery, due) for delivery, due in run.restored or ()),
    ]
    if run.stepper is not None:
        data["held"] = [
            {"from": h.plan and h.plan.name, "step": h.step, "event": event(h.event, "a held event")}
            for h in run.stepper.held
        ]
    data["kept"] = [event(value, "a kept event") for value in (run.waits.kept if run.waits is not None else ())]
    data["awaited"] = [class_name(waiter.kind) for waiter in run.waits or ()]
    data["collected"] = _dump_collectors(run, event, without)
    data["alive"] = run.alive + (run.clock.monotonic() - run.since if run.deadline is not None else 0.0)
    data["deliveries"] = run.deliveries
    return data


def _dump_collectors(run: Any, event: Any, without: Worker | None) -> list[dict[str, Any]]:
    """The buffers as they are once the attempts under way have put back what they took out."""
    taken: dict[int, list[Any]] = {}
    for worker in run.workers:
        if worker is not without and worker.ledger is not None:
            for collector, items in worker.ledger.taken:
                taken.setdefault(id(collector), []).extend(items)
    return [
        {
            "step": step,
            "buffer": buffer,
            "events": [
                event(value, f"buffer {buffer!r} of step {step!r}")
                for value, _ in (*taken.get(id(collector), ()), *(i for held in collector.held.values() for i in held))
            ],
        }
        for (step, buffer), collector in (run.collectors or {}).items()
    ]


def _dump_ledger(ledger: Ledger, codec: Codec, where: str, *, keep: bool) -> dict[str, Any]:
    return {
        "failures": ledger.failures,
        "started_at": ledger.started_at,
        "failed_at": ledger.failed_at,
        "idle": ledger.idle,
        "sent": dict(ledger.sent),
        "added": list(ledger.added),
        "answers": codec.encode(dict(ledger.answers), f"an answer to {where}", keep=keep),
        "asked": list(ledger.asked),
        "once": codec.encode(dict(ledger.once), f"ctx.once of {where}", keep=keep),
        "key": ledger.key,
    }


def load(run: Any, data: Mapping[str, Any]) -> None:
    """Bring a new run to where a stored one was. Raises `ContextSerdeError` where the data does not fit."""
    graph, codec = run.graph, run.host.codec
    if data.get("agentflow") != VERSION:
        msg = (
            f"this is no stored run that this version reads: it says agentflow={data.get('agentflow')!r}, known is "
            f"{VERSION}. Store runs with ctx.to_dict()."
        )
        raise ContextSerdeError(msg)
    if data.get("workflow") != graph.name:
        msg = (
            f"this run belongs to the workflow {data.get('workflow')!r}, not to {graph.name!r}. Restore it with the "
            f'former, or name yours alike: {graph.name}(name="{data.get("workflow")}")'
        )
        raise ContextSerdeError(msg)
    state = data.get("state")
    model = graph.state

    def make() -> Any:
        decoded = codec.decode(state, "the state")
        if model is None:
            return DictState(decoded)
        return decoded if isinstance(decoded, model) else model.model_validate(decoded)

    run.store.load(make)
    if data.get("ended", True):
        return
    run.run_id = data["run_id"]
    run.alive = data["alive"]
    run.deliveries = data["deliveries"]
    if data["awaited"] or data["kept"]:
        waits = run.waiting()
        waits.kinds |= {kind for name in data["awaited"] if (kind := event_named(name)) is not None}
        waits.kept += [codec.decode(value, "a kept event") for value in data["kept"]]
    variables = copy_context()
    run.restored = []
    for entry in data.get("pending", ()):
        event = codec.decode(entry["event"], "a pending event")
        delivery = _delivery(graph, entry["step"], event, variables)
        if "ledger" in entry:
            delivery = delivery._replace(ledger=_load_ledger(entry["ledger"], codec))
        run.restored.append((delivery, entry.get("due")))
    for entry in data.get("held", ()):
        event = codec.decode(entry["event"], "a held event")
        run.arrivals = [*(run.arrivals or ()), (event, graph.by_name.get(entry["from"]), entry["step"])]
    for entry in data["collected"]:
        collector = Collector()
        for value in entry["events"]:
            event = codec.decode(value, f"buffer {entry['buffer']!r} of step {entry['step']!r}")
            collector.add(type(event), (event, None))
        if run.collectors is None:
            run.collectors = {}
        run.collectors[entry["step"], entry["buffer"]] = collector


def _delivery(graph: Any, step: str, event: Event, variables: Any) -> Delivery:
    plan = graph.by_name.get(step)
    if plan is None:
        msg = (
            f"the stored run waits to execute step {step!r}, which {graph.name!r} does not have any more. It has: "
            f"{list(graph.by_name)}. Bring the step back until such runs are over."
        )
        raise ContextSerdeError(msg)
    return Delivery(plan, event, Edge(None, type(event), step), variables, None, None)


def _load_ledger(data: Mapping[str, Any], codec: Codec) -> Ledger:
    ledger = Ledger()
    ledger.failures = data["failures"]
    ledger.started_at, ledger.failed_at, ledger.idle = data["started_at"], data["failed_at"], data["idle"]
    ledger.sent = dict(data["sent"])
    ledger.added = tuple(data["added"])
    ledger.answers = codec.decode(data["answers"], "an answer")
    ledger.asked = tuple(data["asked"])
    ledger.once = codec.decode(data["once"], "ctx.once")
    ledger.key = data["key"]
    return ledger
