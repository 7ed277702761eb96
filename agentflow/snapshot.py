"""A run put into JSON's types, and taken out of them again.

What is under way is explicit, so it can be stored at any moment: deliveries that are ready, in line,
delayed or being executed are all *pending*; one that was being executed is executed again, with the
ledger of what it did already. `tests/fixtures/run_v1.json` is such a run.
"""

from __future__ import annotations

import uuid
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

from .codec import class_name, event_named
from .delivery import Delivery
from .effects import Ledger
from .errors import ContextSerdeError
from .graph import Edge
from .port import Port
from .segment import Segment
from .store import DictState
from .waits import Kept

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping, Sequence

    from .clock import Timer
    from .codec import Codec
    from .collect import Collector, Taken
    from .delivery import Worker
    from .events import Event, StopEvent
    from .graph import Graph, StepPlan
    from .waits import Waits

VERSION = 1
_FIGURES = ("failures", "started_at", "failed_at", "idle", "key")
"""What is stored of a ledger as it is."""


class Held(Protocol):
    """An event that stepwise execution holds."""

    @property
    def event(self) -> Event:
        """The event."""
        ...

    @property
    def plan(self) -> StepPlan | None:
        """The step that produced it."""
        ...

    @property
    def step(self) -> str | None:
        """The step that it was addressed to, if it was."""
        ...


class Holder(Protocol):
    """What holds events in stepwise execution."""

    @property
    def held(self) -> Sequence[Held]:
        """Everything that was produced and has not been sent on."""
        ...


class Storable(Port, Protocol):
    """A run, as it is stored. Its class says what each of these is."""

    stop_event: StopEvent | None
    error: BaseException | None
    alive: float
    since: float
    deadline: Timer | None
    deliveries: int
    workers: list[Worker]
    ready: deque[Delivery] | None
    backlog: dict[int, deque[Delivery]] | None
    delayed: dict[object, tuple[Timer, Delivery, float]] | None
    restored: list[tuple[Delivery, float | None]] | None
    arrivals: list[tuple[Event, StepPlan | None, str | None]] | None
    waits: Waits | None
    collectors: dict[tuple[str, str], Collector] | None

    @property
    def run_id(self) -> str:
        """Names it, also when it is brought back."""
        ...

    @run_id.setter
    def run_id(self, value: str) -> None: ...

    @property
    def stepper(self) -> Holder | None:
        """What holds events, where the run is executed step by step."""
        ...

    life: str
    segment: Segment | None

    def told(self) -> dict[str, Any]:
        """What is to be stored of its segment."""
        ...

    def waiting(self) -> Waits:
        """The waits of the run."""
        ...

    def name_deliveries(self) -> None:
        """Name all that is under way."""
        ...


def dump(run: Storable, *, without: Worker | None = None, keep: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """The run in JSON's types. `without`: a worker whose step has just returned.

    With `keep`, what it makes of a value that cannot be stored stands in its place.
    """
    codec = run.host.codec
    state = run.store.peek()
    under_way = run.error is None and not run.over and (run.thread is not None or run.restored is not None)
    data: dict[str, Any] = {
        "agentflow": VERSION,
        "workflow": run.graph.name,
        "run_id": run.run_id,
        "state": codec.encode(dict(state) if isinstance(state, DictState) else state, "the state", keep=keep),
        "ended": not under_way,
    }
    if told := run.told():
        data["segment"] = told
    if not under_way:
        return data if run.outcome == "ok" else {**data, "outcome": run.outcome}

    def event(value: Event, where: str) -> Any:
        return codec.encode(value, f"{where}: {type(value).__name__}", keep=keep)

    def pending(delivery: Delivery, due: float | None = None) -> dict[str, Any]:
        step = f"step {delivery.plan.name!r}"
        entry: dict[str, Any] = {"step": delivery.plan.name, "event": event(delivery.event, step)}
        if due is not None:
            entry["due"] = due
        if delivery.ledger is not None and (done := _dump_ledger(delivery.ledger, codec, step, keep)):
            entry["ledger"] = done
        return entry

    stop = run.stop_event
    if stop is not None:  # it has its result and is being wound up: what else is under way does not matter any more
        data |= {name: [] for name in ("pending", "kept", "awaited", "collected")}
        data["produced"] = [{"event": event(stop, "the result"), "from": None, "step": None}]
        return {**data, "alive": run.alive, "deliveries": run.deliveries}
    run.name_deliveries()
    executing = [worker for worker in run.workers if worker is not without and not worker.robbed]
    lines = [delivery for line in (run.backlog or {}).values() for delivery in line]
    data["pending"] = [
        *(pending(worker.delivery()) for worker in executing),
        *(pending(delivery) for delivery in (*(run.ready or ()), *lines)),
        *(pending(delivery, due) for _, delivery, due in (run.delayed or {}).values()),
        *(pending(delivery, due) for delivery, due in run.restored or ()),
    ]
    held_back = run.stepper.held if run.stepper is not None else ()
    arrivals = [(h.event, h.plan, h.step) for h in held_back] + (run.arrivals or [])
    data["produced"] = [
        {"event": event(value, "an event"), "from": plan and plan.name, "step": step} for value, plan, step in arrivals
    ]
    waits = run.waits
    data["kept"] = [event(kept.event, "a kept event") for kept in (waits.kept if waits is not None else ())]
    awaited: set[type[Event]] = set() if waits is None else {*(waiter.kind for waiter in waits), *waits.kinds}
    data["awaited"] = sorted(map(class_name, awaited - run.graph.waited))
    taken: dict[Collector, list[Taken]] = {}
    for worker in executing:
        for collector, items in worker.ledger.taken if worker.ledger is not None else ():
            taken.setdefault(collector, []).append(items)
    data["collected"] = [
        {
            "step": step,
            "buffer": buffer,
            "events": [event(value, f"buffer {buffer!r} of step {step!r}") for value in held],
        }
        for (step, buffer), collector in (run.collectors or {}).items()
        if (held := collector.events(*taken.get(collector, ())))
    ]
    data["alive"] = run.alive + (run.clock.monotonic() - run.since if run.deadline is not None else 0.0)
    data["deliveries"] = run.deliveries
    return data


def _dump_ledger(ledger: Ledger, codec: Codec, step: str, keep: Callable[[Any], Any] | None) -> dict[str, Any]:
    """What of a ledger is not as it is at the start."""
    data = {name: value for name in _FIGURES if (value := getattr(ledger, name)) != getattr(Ledger, name)}
    if ledger.sent:
        data["sent"] = {class_name(kind): count for kind, count in ledger.sent.items()}
    for name in ("added", "asked", "expired"):
        if values := getattr(ledger, name):
            data[name] = list(values)
    if ledger.answers:
        data["answers"] = codec.encode(dict(ledger.answers), f"an answer to {step}", keep=keep)
    if ledger.once:
        data["once"] = codec.encode(dict(ledger.once), f"ctx.once of {step}", keep=keep)
    return data


def load(run: Storable, data: Mapping[str, Any]) -> None:
    """Bring a new run to where a stored one was. Raises `ContextSerdeError` where the data does not fit."""
    graph = run.graph
    version = data.get("agentflow") if hasattr(data, "get") else data
    if version != VERSION:
        msg = (
            f"this is no stored run that this version reads: it says agentflow={version!r}, known is {VERSION}. Store "
            "runs with ctx.to_dict()."
        )
        raise ContextSerdeError(msg)
    if data.get("workflow") != graph.name:
        msg = (
            f"this run belongs to the workflow {data.get('workflow')!r}, not to {graph.name!r}. Restore it with the "
            f'former, or name yours alike: {graph.name}(name="{data.get("workflow")}")'
        )
        raise ContextSerdeError(msg)
    try:
        _load_state(run, data["state"])
        run.segment = Segment.stored_as(data.get("segment", {}), str(data["run_id"]), ended=bool(data["ended"]))
        if not data["ended"]:
            _load_under_way(run, data)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ContextSerdeError):
            raise
        msg = f"this stored run of {graph.name!r} is damaged: {error!r}. It is not what ctx.to_dict() returned."
        raise ContextSerdeError(msg) from error


def _load_state(run: Storable, state: Any) -> None:
    codec = run.host.codec
    model = run.graph.state

    def make() -> Any:
        decoded = codec.decode(state, "the state")
        try:
            if model is None:
                return DictState(decoded)
            return decoded if isinstance(decoded, model) else model.model_validate(decoded)
        except (TypeError, ValueError) as error:
            msg = f"the stored state does not fit {run.graph.name!r}: {error}"
            raise ContextSerdeError(msg) from error

    run.store.load(make)


def _load_under_way(run: Storable, data: Mapping[str, Any]) -> None:
    graph = run.graph
    codec = run.host.codec
    run.run_id = str(data["run_id"])
    run.alive = float(data["alive"])
    run.deliveries = int(data["deliveries"])
    run.life = f"{uuid.uuid4().hex[:8]}."
    if data["awaited"] or data["kept"]:
        waits = run.waiting()
        waits.kinds |= {kind for name in data["awaited"] if (kind := event_named(name)) is not None}
        waits.kept = [Kept(codec.decode(value, "a kept event"), None) for value in data["kept"]]
    variables = copy_context()
    run.restored = []
    for entry in data["pending"]:
        plan = _plan(graph, entry["step"])
        event: Event = codec.decode(entry["event"], f"what step {plan.name!r} is given")
        ledger = _load_ledger(entry["ledger"], codec) if "ledger" in entry else None
        edge = Edge(None, type(event), plan.name)
        due = float(entry["due"]) if "due" in entry else None
        run.restored.append((Delivery(plan, event, edge, variables, None, ledger), due))
    for entry in data["produced"]:
        event = codec.decode(entry["event"], "an event that was produced")
        step = entry["step"] and _plan(graph, entry["step"]).name
        run.arrivals = [*(run.arrivals or ()), (event, graph.by_name.get(entry["from"]), step)]
    for entry in data["collected"]:
        collector = run.collector(_plan(graph, entry["step"]).name, entry["buffer"])
        for value in entry["events"]:
            held: Event = codec.decode(value, f"buffer {entry['buffer']!r} of step {entry['step']!r}")
            collector.add(type(held), (held, None))


def _plan(graph: Graph, step: str) -> StepPlan:
    plan = graph.by_name.get(step)
    if plan is None:
        msg = (
            f"the stored run has work for step {step!r}, which {graph.name!r} does not have any more. It has: "
            f"{list(graph.by_name)}. Bring the step back until such runs are over."
        )
        raise ContextSerdeError(msg)
    return plan


def _load_ledger(data: Mapping[str, Any], codec: Codec) -> Ledger:
    ledger = Ledger()
    for name in _FIGURES:
        if name in data:
            setattr(ledger, name, data[name])
    ledger.sent = {kind: n for name, n in data.get("sent", {}).items() if (kind := event_named(name)) is not None}
    ledger.added = tuple(data.get("added", ()))
    ledger.asked = tuple(data.get("asked", ()))
    ledger.expired = tuple(data.get("expired", ()))
    ledger.answers = dict(codec.decode(data.get("answers", {}), "an answer"))
    ledger.once = dict(codec.decode(data.get("once", {}), "ctx.once"))
    return ledger
