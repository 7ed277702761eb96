"""What all runs of one workflow object share: its graph, its options, its resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .codec import Codec
from .graph import Fate, Route
from .resource import Recipe, Resource, compile_recipe, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from .gate import Gate
    from .graph import Edge, Graph
    from .observe import Observer
    from .resource import Pool, Pools


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
        pools: Pools,
        cancel_grace: float,
        pause_grace: float,
    ) -> None:
        self.owner = owner
        self.graph = graph
        self.timeout = timeout
        self.gate = gate
        self.observers = observers
        self.workflows = workflows
        self.cancel_grace = cancel_grace
        self.pause_grace = pause_grace
        self.recent: dict[Edge, int] | None = None
        """How often each edge was taken in the run that was started last."""
        self.took: dict[str, int] | None = None
        """By step, the nanoseconds that it took in that run, where somebody looked on."""
        self._pools = pools
        self._codec: Codec | None = None
        self._addressed: dict[tuple[str | None, type, str], Route] = {}
        self._overrides: dict[Hashable, Any] = {}
        self._known: dict[Any, Recipe] = {}
        for factory, given in overrides.items():
            where = f"Workflow(resources=...) of {graph.name!r}"
            self._overrides[key_of(factory)] = (
                compile_recipe(given, where, self._known) if isinstance(given, Resource) else given
            )

    def route_to(self, route: Route, step: str) -> Route:
        """The way of an event that is addressed to one step; remembered."""
        key = (route.edge.source, route.event, step)
        if key not in self._addressed:
            plan = self.graph.by_name[step]
            self._addressed[key] = Route(route.edge.source, route.event, Fate.STEPS, (plan,))
        return self._addressed[key]

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
        return self._pools.here()

    def recipe(self, resource: Resource) -> Recipe:
        """How to make a resource that a step asks for by itself; remembered."""
        return compile_recipe(resource, f"ctx.resource({resource!r}) in {self.graph.name!r}", self._known)

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
