"""What the parts of a run need of the run: contexts, waits, calls and attempts see it only through this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor

    from .clock import Clock
    from .collect import Collected, Collector
    from .events import Event
    from .graph import Graph
    from .host import Host
    from .observe import Outcome
    from .resource import Pool
    from .store import StateStore

T = TypeVar("T")


class Port(Protocol):
    """A run, as its parts see it."""

    store: StateStore
    graph: Graph
    host: Host
    clock: Clock
    loop: asyncio.AbstractEventLoop
    thread: int | None
    outcome: Outcome
    pool: Pool | None
    threads: ThreadPoolExecutor | None

    @property
    def run_id(self) -> str:
        """Names it."""
        ...

    @property
    def over(self) -> bool:
        """Has it ended?"""
        ...

    @property
    def is_followed(self) -> bool:
        """Does anybody follow its stream?"""
        ...

    def hop(self, fn: Callable[..., T], *args: Any) -> T:
        """Call something in the run's event loop, from another thread."""
        ...

    def hop_await(self, awaitable: Awaitable[T]) -> T:
        """Await something in the run's event loop, from another thread."""
        ...

    def send(self, event: Event, step: str | None, sender: Any) -> None:
        """Send an event."""
        ...

    def stream(self, event: Event, sender: Any) -> None:
        """Write an event to the stream."""
        ...

    def collector(self, step: str, buffer_id: str) -> Collector:
        """A buffer of a step."""
        ...

    def collected(self, sender: Any, taken: list[Collected] | None) -> None:
        """A step has collected, all or not yet."""
        ...

    def begin_wait(  # noqa: PLR0913, PLR0917 because these are the documented parameters
        self,
        sender: Any,
        kind: type[Event],
        waiter_event: Event | None,
        key: str | None,
        requirements: Mapping[str, Any],
        timeout: float | None,
    ) -> Any:
        """The awaited event, or the wait for it."""
        ...

    def wake(self) -> None:
        """Something of it is about to go on."""
        ...

    def end_wait(self, waiter: Any) -> None:
        """A wait is over."""
        ...

    def next_delivery_key(self) -> str:
        """A name for a delivery."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """The run in JSON's types."""
        ...

    def report(self, errors: list[BaseException], where: str) -> None:
        """Say that the teardown of resources failed."""
        ...
