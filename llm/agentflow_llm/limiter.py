"""How many requests go out: in a minute, with how many tokens, and at once, for all who share an account."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from agentflow.clock import current_clock

from .backoff import LONGEST_WAIT
from .errors import LLMError, LLMUnavailableError, RateLimitError

if TYPE_CHECKING:
    from agentflow.clock import Clock

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What an account allows; None is no limit. Raises `LLMError` where nothing could ever go out."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
                raise LLMError(f"{name}={number!r} is no whole number. Write {name}=10, or leave it out.")
            if number is not None and number < 1:
                raise LLMError(f"{name}={number!r} lets nothing through. Write 1 or more, or leave it out.")


class Account:
    """Whose limits these are. There is one for each key in the process, with one `Limiter` for each clock.

    It stays when nobody uses it, so that what went out in the last minute is remembered.
    """

    def __init__(self, key: str, limits: Limits) -> None:
        self.key = key
        self.limits = limits
        self._users: WeakSet[object] = WeakSet()
        self._limiters: WeakKeyDictionary[Clock, Limiter] = WeakKeyDictionary()

    @staticmethod
    def of(key: str, limits: Limits, user: object) -> Account:
        """The account with this key. Raises `LLMError` while somebody else uses it with other numbers."""
        with _lock:
            account = _accounts.setdefault(key, Account(key, limits))
            if account.limits != limits and len(account._users):  # noqa: SLF001 because it is its own class
                raise LLMError(
                    f"The limits of {key!r} are {account.limits} elsewhere in this process, and cannot be {limits} as "
                    "well. Give the same numbers, or another key=."
                )
            account.limits = limits
            account._users.add(user)  # noqa: SLF001 because it is its own class
            return account

    def limiter(self) -> Limiter:
        """The limiter for the clock in force."""
        clock = current_clock()
        found = self._limiters.get(clock)
        if found is None:
            with _lock:
                found = self._limiters.setdefault(clock, Limiter(self))
        return found


_accounts: dict[str, Account] = {}
_lock = RLock()


class NoRoomError(RateLimitError):
    """The limits let a call through only after its caller's patience has ended."""


class Stay:
    """A request that was let through. Whoever has it calls `leave` exactly once."""

    __slots__ = ("at", "because", "forgotten", "limiter", "tokens", "waited")

    def __init__(self, limiter: Limiter, at: float, tokens: int, waited: float, because: str) -> None:
        self.limiter = limiter
        self.at = at
        self.tokens = tokens
        self.waited = waited
        self.because = because
        self.forgotten = False

    def failed(self, error: LLMError) -> None:
        """There is no answer. Where the error asks for a wait, that holds for all who share the account."""
        if isinstance(error, LLMUnavailableError) and error.retry_after and not isinstance(error, NoRoomError):
            self.limiter.pause(error.retry_after)

    def spent(self, tokens: int | None) -> None:
        """So many tokens they were in truth, where that is known."""
        if tokens is not None:
            self.limiter.correct(self, tokens)

    def leave(self) -> None:
        """The answer is there, or nobody waits for it any more."""
        self.limiter.leave()


class _Waiter:
    __slots__ = ("loop", "tokens", "woken")

    def __init__(self, tokens: int, loop: asyncio.AbstractEventLoop) -> None:
        self.tokens = tokens
        self.loop = loop
        self.woken: asyncio.Future[None] | None = None


class Limiter:
    """Lets requests through in the order in which they came, from all threads and event loops.

    In no minute are there more than the account allows. Who waits is woken in its own loop: when its time has come,
    or when the one before it has gone.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._lock = RLock()  # a generator that is collected here leaves here
        self._queue: deque[_Waiter] = deque()
        self._recent: deque[Stay] = deque()
        """Those that were let through in the last minute."""
        self._tokens = 0
        """Of those."""
        self._running = 0
        self._paused_until = -math.inf
        self._because = ""

    async def enter(self, tokens: int, deadline: float | None) -> Stay:
        """Wait for one's turn. `tokens`: how many it will need, roughly.

        Raises `NoRoomError` as soon as it is known that the deadline would come first.
        """
        tokens = min(tokens, self._account.limits.tokens_per_minute or tokens)  # else it would wait for ever
        clock = current_clock()
        begun = clock.monotonic()
        with self._lock:
            if not self._queue and self._blocked(begun, tokens) is None:
                return self._let_through(begun, tokens, 0.0)
            if deadline is not None:
                self._check(self._soonest(begun, tokens, deadline), begun, deadline)
            me = _Waiter(tokens, asyncio.get_running_loop())
            self._queue.append(me)
        try:
            while True:
                with self._lock:
                    now, due = clock.monotonic(), math.inf
                    if self._queue[0] is me:
                        blocked = self._blocked(now, tokens)
                        if blocked is None:
                            return self._let_through(now, tokens, now - begun)
                        due, self._because = blocked
                        if due < math.inf and deadline is not None:
                            self._check(due, now, deadline)
                    me.woken = woken = me.loop.create_future()
                await _until(woken, clock, due - now)
        finally:
            with self._lock:
                if me in self._queue:  # it is not, where its loop was found closed
                    self._queue.remove(me)
                self._wake_first()

    def leave(self) -> None:
        """One has gone."""
        with self._lock:
            self._running -= 1
            self._wake_first()

    def correct(self, stay: Stay, tokens: int) -> None:
        """It were so many tokens in truth."""
        with self._lock:
            if not stay.forgotten:
                self._tokens += tokens - stay.tokens
                stay.tokens = tokens
                self._wake_first()

    def pause(self, seconds: float) -> None:
        """Let nobody through for so long, up to `LONGEST_WAIT`."""
        until = current_clock().monotonic() + min(seconds, LONGEST_WAIT)
        with self._lock:
            self._paused_until = max(until, self._paused_until)

    def _let_through(self, now: float, tokens: int, waited: float) -> Stay:
        stay = Stay(self, now, tokens, waited, self._because)
        limits = self._account.limits
        if limits.requests_per_minute is not None or limits.tokens_per_minute is not None:
            self._recent.append(stay)
            self._tokens += tokens
        else:
            stay.forgotten = True
        self._running += 1
        return stay

    def _blocked(self, now: float, tokens: int) -> tuple[float, str] | None:
        """Until when the first may not go, infinity where that depends on others, and why; None where it may."""
        limits, recent = self._account.limits, self._recent
        while recent and recent[0].at + _MINUTE <= now:
            old = recent.popleft()
            old.forgotten = True
            self._tokens -= old.tokens
        if limits.concurrency is not None and self._running >= limits.concurrency:
            return math.inf, "concurrency"
        found: list[tuple[float, str]] = []
        if self._paused_until > now:
            found.append((self._paused_until, "retry_after"))
        if limits.requests_per_minute is not None and len(recent) >= limits.requests_per_minute:
            found.append((recent[-limits.requests_per_minute].at + _MINUTE, "requests"))
        if limits.tokens_per_minute is not None:
            lacking = self._tokens + tokens - limits.tokens_per_minute
            for old in recent:
                if lacking <= 0:
                    break
                lacking -= old.tokens
                if lacking <= 0:
                    found.append((old.at + _MINUTE, "tokens"))
        return max(found, default=None)

    def _soonest(self, now: float, tokens: int, deadline: float) -> float:
        """When, at the earliest, one that comes now goes, after all that wait; no further than to the deadline."""
        limits = self._account.limits
        sent = deque((stay.at, stay.tokens) for stay in self._recent)
        used, due = self._tokens, max(now, self._paused_until)
        for need in (*(waiter.tokens for waiter in self._queue), tokens):
            while sent and (
                sent[0][0] + _MINUTE <= due
                or (limits.requests_per_minute is not None and len(sent) >= limits.requests_per_minute)
                or (limits.tokens_per_minute is not None and used + need > limits.tokens_per_minute)
            ):
                at, freed = sent.popleft()
                used -= freed
                due = max(due, at + _MINUTE)
            if due >= deadline:
                break
            sent.append((due, need))
            used += need
        return due

    def _check(self, due: float, now: float, deadline: float) -> None:
        if due >= deadline:
            raise NoRoomError(
                f"The limits of {self._account.key!r} let this call through in {due - now:.3g} s at the earliest, and "
                f"it may take {deadline - now:.3g} s. Give it longer with timeout=, or ask less often.",
                retry_after=due - now,
            )

    def _wake_first(self) -> None:
        while self._queue:
            first = self._queue[0]
            try:
                if first.woken is not None:  # otherwise it is about to look by itself
                    first.loop.call_soon_threadsafe(_wake, first.woken)
            except RuntimeError:  # its event loop is closed: it will never go
                self._queue.popleft()
            else:
                return


async def _until(woken: asyncio.Future[None], clock: Clock, seconds: float) -> None:
    """Wait until woken, or for so long."""
    if seconds == math.inf:
        await woken
        return
    timer = clock.call_later(seconds, partial(_wake, woken))
    try:
        await woken
    finally:
        timer.cancel()


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
