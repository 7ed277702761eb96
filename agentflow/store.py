"""The state of a run: free keys, or a typed pydantic model, with dotted paths and atomic edits."""

from __future__ import annotations

import asyncio
import copy
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, cast

from pydantic import BaseModel
from typing_extensions import TypeVar

from .errors import StateKeyError, WorkflowRuntimeError, a

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

MISSING: Any = object()


class DictState(dict[str, Any]):
    """A state without a model: a dict whose keys are attributes too."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None


StateT = TypeVar("StateT", default=Any)


class StateStore(Generic[StateT]):
    """What `ctx.store` is. Paths are dotted, through dicts, lists and models: `"user.address.0.city"`."""

    __slots__ = ("_draft", "_editor", "_make", "_model", "_state", "_turns")

    def __init__(self, model: type[BaseModel] | None = None) -> None:
        self._model = model
        self._state: Any = model() if model is not None else DictState()
        self._make: Callable[[], Any] | None = None
        self._turns: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        """The lock for edits, and the event loop that it is for: the next run with this state may be in another."""
        self._editor: asyncio.Task[Any] | None = None
        self._draft: Any = None

    def load(self, make: Callable[[], Any]) -> None:
        """Take the state from `make`, which is called at the first use: nobody pays for what is not read."""
        self._make = make

    def twin(self) -> StateStore[StateT]:
        """A store of its own with a copy of the state."""
        store: StateStore[StateT] = StateStore(self._model)
        store.load(partial(copied, self.peek()))
        return store

    def peek(self) -> Any:
        """The state itself, without what is being edited, to be read only."""
        if self._make is not None:
            self._state = self._make()
            self._make = None
        return self._state

    @property
    def _current(self) -> Any:
        """The state as the calling task sees it: its own draft while it edits."""
        return self._draft if self._editing() else self.peek()

    def _editing(self) -> bool:
        return self._editor is not None and self._editor is _task()

    def read(self, key: str, default: Any = MISSING) -> Any:
        """One key, taken as it is. Raises `StateKeyError` where there is none and no default."""
        state = self._current
        found = _child(state, key)
        if found is not MISSING:
            return found
        if default is not MISSING:
            return default
        raise StateKeyError(_missing(key, state))

    async def write(self, key: str, value: Any) -> None:
        """Set one key, taken as it is. Waits while somebody else edits the state."""
        if self._editor is not None:
            await self._settled()
        _assign(self._current, key, value)

    async def get(self, path: str, default: Any = MISSING) -> Any:
        """What is at `path`. Raises `StateKeyError` where there is nothing and no default."""
        found: Any = self._current
        for part in path.split("."):
            found = _child(found, part)
            if found is MISSING:
                if default is not MISSING:
                    return default
                raise StateKeyError(_missing(path, self._current))
        return found

    async def set(self, path: str, value: Any) -> None:
        """Put `value` at `path`; dicts on the way are made where there is nothing."""
        await self._settled()
        *parents, last = path.split(".")
        holder: Any = self._current
        for part in parents:
            child: Any = _child(holder, part)
            if child is MISSING:
                child = {}
                _assign(holder, part, child)
            holder = child
        _assign(holder, last, value)

    async def get_state(self) -> StateT:
        """A copy of the whole state: the model, or a `DictState`."""
        return cast("StateT", copied(self._current))

    async def set_state(self, state: StateT | Mapping[str, Any]) -> None:
        """Replace the whole state. Raises `WorkflowRuntimeError` where it is of another type."""
        if self._editing():
            msg = (
                "set_state() inside edit_state() would lose what the block changes. Change the state that it gives you."
            )
            raise WorkflowRuntimeError(msg)
        await self._settled()
        if not isinstance(state, dict if self._model is None else self._model):
            wanted = "dict" if self._model is None else self._model.__name__
            msg = f"the state of this workflow is {a(wanted)}, not {state!r}. Write set_state({wanted}(...))."
            raise WorkflowRuntimeError(msg)
        self._make = None
        self._state = state if self._model is not None else DictState(cast("Mapping[str, Any]", state))

    async def clear(self) -> None:
        """Back to the state at the start."""
        fresh: Any = self._model() if self._model is not None else DictState()
        await self.set_state(fresh)

    @asynccontextmanager
    async def edit_state(self) -> AsyncGenerator[StateT, None]:
        """Change the state as a whole: all of the block's changes, or, if it raises, none.

        Edits take turns; other writers wait. The block works on a copy; values that cannot be copied
        are shared with the original.
        """
        if self._editing():
            msg = "edit_state() inside edit_state(): this task is editing already. Use the state of the outer block."
            raise WorkflowRuntimeError(msg)
        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns[0] is not loop:
            self._turns = loop, asyncio.Lock()
        async with self._turns[1]:
            draft = copied(self.peek())
            self._editor, self._draft = _task(), draft
            try:
                yield draft
            finally:
                self._editor = self._draft = None
            self._state = draft

    async def _settled(self) -> None:
        """Wait until nobody else edits."""
        while self._turns is not None and self._editor is not None and not self._editing():
            async with self._turns[1]:
                pass


def deeply(value: Any) -> Any:
    """A deep copy, or the value itself where it cannot be copied (clients, locks, connections)."""
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 because any class may refuse to be copied, in its own way
        return value


def copied(holder: Any, each: Callable[[Any], Any] = deeply) -> Any:
    """A copy of a state or an event, `each` copying its values."""
    if isinstance(holder, DictState):
        return DictState({key: each(value) for key, value in holder.items()})
    twin = holder.model_copy()
    for values in (twin.__dict__, twin.__pydantic_extra__):
        for name in values or ():
            values[name] = each(values[name])
    return twin


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # not in an event loop
        return None


def _child(holder: Any, part: str) -> Any:
    if isinstance(holder, dict):
        return cast("dict[str, Any]", holder).get(part, MISSING)
    if isinstance(holder, list | tuple):
        items = cast("Sequence[Any]", holder)
        index = _index(items, part)
        return MISSING if index is None else items[index]
    if isinstance(holder, BaseModel) and not _has(holder, part):
        return MISSING
    return getattr(holder, part, MISSING)


def _has(model: BaseModel, name: str) -> bool:
    """Is it data of the model, and not one of its methods?"""
    kind = type(model)
    if name in kind.model_fields or name in (model.__pydantic_extra__ or ()):
        return True
    return isinstance(getattr(kind, name, None), property | cached_property)


def _index(items: Sequence[Any], part: str) -> int | None:
    try:
        index = int(part)
    except ValueError:
        return None
    return index if -len(items) <= index < len(items) else None


def _is_list(holder: Any) -> TypeGuard[list[Any]]:
    return isinstance(holder, list)


def _assign(holder: Any, part: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[part] = value
    elif _is_list(holder):
        index = _index(holder, part)
        if index is None:
            msg = f"the list in the state has {len(holder)} items and none at {part!r}."
            raise StateKeyError(msg)
        holder[index] = value
    elif isinstance(holder, BaseModel) and not _takes(holder, part):
        msg = f"the state {type(holder).__name__} has no field {part!r}. It has: {sorted(type(holder).model_fields)}."
        raise StateKeyError(msg)
    else:
        try:
            setattr(holder, part, value)
        except AttributeError as error:
            msg = f"{part!r} cannot be set in the state: what should hold it is {holder!r}. Set that to a dict first."
            raise StateKeyError(msg) from error


def _takes(model: BaseModel, name: str) -> bool:
    kind = type(model)
    settable = isinstance(getattr(kind, name, None), property)
    return name in kind.model_fields or settable or kind.model_config.get("extra") == "allow"


def _missing(key: str, state: DictState | BaseModel) -> str:
    held = state if isinstance(state, dict) else {**type(state).model_fields, **(state.__pydantic_extra__ or {})}
    names = sorted(map(str, held))
    return (
        f"the state has no {key!r}. It has: {names}. Give a default to read what may not be there: "
        f"get({key!r}, default=None)"
    )
