"""What a run may spend, and what it has spent. What its children spend is spent by it as well."""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel, Field, PrivateAttr

from agentflow.clock import current_clock
from agentflow.errors import shown
from agentflow.log import logger
from agentflow_llm import ChatMessage, Reply, Usage
from agentflow_llm.tokens import TokenEstimator

from .errors import AgentConfigurationError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Sequence

    from .events import Limit

T = TypeVar("T")

OWN_TURNS = 20
"""How often an agent calls its model in a run at most, where its budget does not say."""
_LAST_ANSWER = 5.0
"""So many seconds a last answer may take at least."""
_COUNTS = {"turns", "tokens", "tool_calls"}
_COUNTING = Lock()
"""Agents that a tool runs in a thread spend from the budget of the run that called it."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run of an agent may spend; None is no limit. What the agents spend that it calls counts as well.

    - `turns`: calls of the model. None: 20 of the agent's own.
    - `tokens`: of input and output together; estimated where the server does not count them.
    - `cost`: US dollars. A model whose price is unknown ends the run: nobody could keep to the limit.
    - `seconds`: since the run began, without the time in which it waits for approvals. A model or a tool that is at
      work when they are over is stopped.
    - `tool_calls`: calls beyond it are skipped.
    - `last_answer`: at the limit, ask the model once more, without tools, to answer from what it has. With `seconds`,
      it is stopped when as many again are over, but not before it had 5.
    - `raises`: at the limit, raise `BudgetExceededError`, which has the partial result, instead of returning that.

    A limit is looked at before and after each call of the model: the call that crosses it is not undone. Raises
    `AgentConfigurationError` where a limit makes no sense.
    """

    turns: int | None = None
    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None
    tool_calls: int | None = None
    last_answer: bool = False
    raises: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name in {"last_answer", "raises"} or value is None:
                continue
            whole = field.name in _COUNTS
            least = 0 if field.name == "tool_calls" else 1 if whole else None
            kind = int if whole else (int, float)
            sound = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
            if not sound or (value < least if least is not None else value <= 0):
                what = f"a whole number of {least} or more" if whole else "a number above 0"
                raise AgentConfigurationError(
                    f"Budget({field.name}={shown(value)}): it must be {what}, or None for no limit."
                )


@dataclass
class Counted:
    """Seconds, as they are stored."""

    seconds: float = 0.0


class Stopwatch(Counted):
    """Counts seconds while it runs. Whoever stores it stores those up to then; what is restored does not run."""

    _stood: tuple[float, float | None] = 0.0, None
    """Seconds, and when they were that; None while it does not run."""

    @property
    def seconds(self) -> float:
        """Those that it has run."""
        seconds, at = self._stood
        return seconds if at is None else seconds + max(0.0, current_clock().monotonic() - at)

    @seconds.setter
    def seconds(self, seconds: float) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] because what is stored is read off the clock
        self._stood = seconds, None

    def start(self) -> None:
        """Let it run, if it does not."""
        if self._stood[1] is None:
            self._stood = self._stood[0], current_clock().monotonic()

    def stop(self) -> None:
        """Let it stand."""
        self._stood = self.seconds, None


class Spending(BaseModel):
    """What a run has spent so far, its children included. It is part of the run's state."""

    turns: int = 0
    tokens: int = 0
    tool_calls: int = 0
    taken: set[str] = Field(default_factory=set[str])
    """The ids of the run's own calls that were counted: one that is made again, as the run goes on, is counted once."""
    usage: Usage = Field(default_factory=Usage)
    unpriced: str = ""
    """A model whose price is unknown."""
    watch: Stopwatch = Field(default_factory=Stopwatch)
    waits: int = 0
    """How many approvals are waited for: the clock stands meanwhile."""
    _estimator: TokenEstimator | None = PrivateAttr(default=None)

    def estimator(self) -> TokenEstimator:
        """The run's own: it measures no message twice."""
        if self._estimator is None:
            self._estimator = TokenEstimator()
        return self._estimator

    def elapsed(self) -> float:
        """Seconds that have passed; the clock starts when it is first looked at."""
        with _COUNTING:
            if not self.waits:
                self.watch.start()
            return self.watch.seconds

    def stop_clock(self) -> None:
        """An approval is waited for."""
        self.watch.stop()
        self.waits += 1

    def start_clock(self) -> None:
        """It has come."""
        self.waits = max(0, self.waits - 1)
        self.elapsed()


class Account(NamedTuple):
    """A budget, and what was spent of it."""

    budget: Budget
    spending: Spending

    def exceeded(self, *, tool_calls: bool) -> Limit | None:
        """The limit that was reached, if one was; that of `tool_calls` counts only where another one is wanted."""
        budget, spent = self
        if budget.turns is not None and spent.turns >= budget.turns:
            return "turns"
        if budget.tokens is not None and spent.tokens >= budget.tokens:
            return "tokens"
        if budget.cost is not None and (spent.unpriced or (spent.usage.cost or 0.0) >= budget.cost):
            return "cost"
        if budget.seconds is not None and spent.elapsed() >= budget.seconds:
            return "seconds"
        if tool_calls and budget.tool_calls is not None and spent.tool_calls >= budget.tool_calls:
            return "tool_calls"
        return None


_accounts: ContextVar[tuple[Account, ...]] = ContextVar("agentflow_agents.accounts", default=())
"""Those of the runs around this one."""


class Accounts:
    """What a run spends from: its own budget, and those of the runs whose child it is."""

    __slots__ = ("all", "own")

    def __init__(self, budget: Budget, spending: Spending) -> None:
        self.own = Account(budget, spending)
        self.all = (*_accounts.get(), self.own)

    @contextmanager
    def shared(self) -> Generator[None]:
        """What runs inside spends from them as well."""
        token = _accounts.set(self.all)
        try:
            yield
        finally:
            with suppress(ValueError):  # it may be thrown away with its event loop, in another context
                _accounts.reset(token)

    def exceeded(self, *, tool_calls: bool = False) -> Limit | None:
        """The limit that was reached, the run's own first."""
        for account in reversed(self.all):
            limit = account.exceeded(tool_calls=tool_calls)
            if limit is not None:
                return limit
        return None

    async def in_time(self, work: Coroutine[Any, Any, T], *, last: bool = False) -> T | None:
        """Await it; None where the seconds are over before it ends: then it is cancelled.

        `last`: it is the last answer, which is asked for when they may be over, and has as many again.
        """
        seconds = self.seconds_left(2) if last else self.seconds_left()
        if last and seconds is not None:
            seconds = max(seconds, _LAST_ANSWER)
        if seconds is None:
            return await work
        limit = current_clock().timeout(seconds)
        try:
            async with limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    def seconds_left(self, times: int = 1) -> float | None:
        """How long what begins now may take, with so many times the seconds of each budget; None for no limit."""
        left = [
            times * account.budget.seconds - account.spending.elapsed()
            for account in self.all
            if account.budget.seconds is not None
        ]
        return max(0.0, min(left)) if left else None

    def take_tool_call(self, call_id: str) -> bool:
        """Count a tool call of the run. False: there is none left."""
        with _COUNTING:
            if call_id in self.own.spending.taken:
                return True
            for budget, spent in self.all:
                if budget.tool_calls is not None and spent.tool_calls >= budget.tool_calls:
                    return False
            for account in self.all:
                account.spending.tool_calls += 1
            self.own.spending.taken.add(call_id)
            return True

    def heard(self, reply: Reply, sent: Sequence[ChatMessage]) -> None:
        """Count an answer of a model to the messages that were sent."""
        usage = reply.usage
        tokens = usage.total_tokens
        if tokens is None and any(account.budget.tokens is not None for account in self.all):
            tokens = self.own.spending.estimator().count([*sent, reply.message])
        price_unknown = usage.cost is None and (usage.http_requests > 0 or bool(usage.total_tokens))
        for budget, spent in self.all:
            with _COUNTING:
                spent.turns += 1
                spent.tokens += tokens or 0
                spent.usage += usage
            if price_unknown and budget.cost is not None and not spent.unpriced:
                spent.unpriced = reply.model or "the model"
                logger().warning(
                    f"the price of {spent.unpriced!r} is unknown, so Budget(cost={budget.cost:g}) ends the run. "
                    "Install 'agentflow-otel[prices]', or bound tokens= instead.",
                    model=spent.unpriced,
                )

    def stop_clock(self) -> None:
        """An approval is waited for. A run whose child waits stops its own."""
        self.own.spending.stop_clock()

    def start_clock(self) -> None:
        """It has come."""
        self.own.spending.start_clock()
