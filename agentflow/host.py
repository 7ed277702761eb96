"""What all runs of one workflow object share: its graph, its options, its resources."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .codec import Codec
from .resource import Pool, Recipe, Resource, compile_recipe, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from .gate import Gate
    from .graph import Edge, Graph
    from .observe import Observer


class Host:
    """Made once per workflow object, and anew when its steps, slots or resources change."""

    def __init__(  # noqa: PLR0913 because these are the options of a workflow
        self,
        owner: object,
        graph: Graph,
        *,
        timeout: float | None,
        gate: Gate | None,
        observers: tuple[Observer, ...],
        workflows: Mapping[str, object],
        overrides: Mapping[Callable[..., Any], Any],
        cancel_grace: float,
    ) -> None:
        self.owner = owner
        self.graph = graph
        self.timeout = timeout
        self.gate = gate
        self.observers = observers
        self.workflows = workflows
        self.cancel_grace = cancel_grace
        self.recent: dict[Edge, int] | None = None
        """How often each edge was taken in the run that was started last."""
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = WeakKeyDictionary()
        self._codec: Codec | None = None
        self._overrides: dict[Hashable, Any] = {}
        known: dict[Any, Recipe] = {}
        for factory, given in overrides.items():
            where = f"Workflow(resources=...) of {graph.name!r}"
            self._overrides[key_of(factory)] = (
                compile_recipe(given, where, known) if isinstance(given, Resource) else given
            )

    @property
    def codec(self) -> Codec:
        """Writes and reads the values of the workflow's runs."""
        if self._codec is None:
            state = [] if self.graph.state is None else [self.graph.state]
            self._codec = Codec([*self.graph.events(), *state])
        return self._codec

    @property
    def pool(self) -> Pool:
        """The resources that live as long as the workflow, in this event loop."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = Pool()
        return pool

    async def resource(self, recipe: Recipe, run_pool: Pool, step_pool: Pool) -> Any:
        """The object of a resource, from the pool of its lifetime, or what overrides it."""
        if recipe.key in self._overrides:
            given = self._overrides[recipe.key]
            if not isinstance(given, Recipe):
                return given
            recipe = given
        pool = self.pool if recipe.scope == "workflow" else run_pool if recipe.scope == "run" else step_pool
        if recipe.key in pool.values:
            return pool.values[recipe.key]
        return await pool.get(recipe, lambda need: self.resource(need, run_pool, step_pool))
