"""The state of a run: free keys, or a typed pydantic model, with dotted paths and atomic edits."""

from __future__ import annotations

import asyncio
import copy
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from .errors import StateKeyError, WorkflowRuntimeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MISSING: Any = object()


class DictState(dict[str, Any]):
    """A state without a model: a dict whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]


class StateStore:
    """What `ctx.store` is. Paths are dotted, through dicts, lists and models: `"user.address.0.city"`."""

    __slots__ = ("_draft", "_editor", "_encoded", "_lock", "_model", "_state")

    def __init__(self, model: type[BaseModel] | None = None) -> None:
        self._model = model
        self._state: Any = model() if model is not None else DictState()
        self._encoded: Callable[[], Any] | None = None
        self._lock: asyncio.Lock | None = None
        self._editor: asyncio.Task[Any] | None = None
        self._draft: Any = None

    def load(self, make: Callable[[], Any]) -> None:
        """Take the state from `make`, which is called at the first use: nobody pays for what is not read."""
        self._encoded = make

    @property
    def _current(self) -> Any:
        """The state as the calling task sees it: its own draft while it edits."""
        if self._encoded is not None:
            make, self._encoded = self._encoded, None
            self._state = make()
        if self._editor is not None and self._editor is _task():
            return self._draft
        return self._state

    def peek(self) -> Any:
        """The state itself, to be read only."""
        return self._current

    def read(self, key: str, default: Any = MISSING) -> Any:
        """One key, taken as it is. Raises `StateKeyError` where there is none and no default."""
        state = self._current
        found = state.get(key, MISSING) if isinstance(state, dict) else getattr(state, key, MISSING)
        if found is not MISSING:
            return found
        if default is not MISSING:
            return default
        raise StateKeyError(_missing(key, state))

    async def write(self, key: str, value: Any) -> None:
        """Set one key, taken as it is. Waits while somebody else edits the state."""
        if self._editor is not None:
            await self._settled()
        self.put(key, value)

    def put(self, key: str, value: Any) -> None:
        """Set one key at once."""
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
        holder = self._current
        for part in parents:
            child = _child(holder, part)
            if child is MISSING:
                child = {}
                _assign(holder, part, child)
            holder = child
        _assign(holder, last, value)

    async def get_state(self) -> Any:
        """A copy of the whole state: the model, or a `DictState`."""
        return _copied(self._current)

    async def set_state(self, state: Any) -> None:
        """Replace the whole state. Raises `WorkflowRuntimeError` where it is of another type."""
        await self._settled()
        if self._model is not None and not isinstance(state, self._model):
            msg = f"the state of this workflow is a {self._model.__name__}, not {state!r}."
            raise WorkflowRuntimeError(msg)
        self._encoded = None
        self._state = state if self._model is not None else DictState(state)

    async def clear(self) -> None:
        """Back to the state at the start."""
        await self.set_state(self._model() if self._model is not None else DictState())

    @asynccontextmanager
    async def edit_state(self) -> AsyncIterator[Any]:
        """Change the state as a whole: all of the block's changes, or, if it raises, none.

        Edits take turns; other writers wait. The block works on a copy; values that cannot be copied
        are shared with the original.
        """
        task = _task()
        if self._editor is not None and self._editor is task:
            msg = "edit_state() inside edit_state(): this task is editing already. Use the state of the outer block."
            raise WorkflowRuntimeError(msg)
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            draft = _copied(self._current)
            self._editor, self._draft = task, draft
            try:
                yield draft
            finally:
                self._editor = self._draft = None
            self._state = draft

    async def _settled(self) -> None:
        """Wait until nobody else edits."""
        while self._lock is not None and self._editor is not None and self._editor is not _task():
            async with self._lock:
                pass


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # not in an event loop
        return None


def _child(holder: Any, part: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(part, MISSING)
    if isinstance(holder, list | tuple):
        index = int(part) if part.lstrip("-").isdigit() else len(holder)
        return holder[index] if -len(holder) <= index < len(holder) else MISSING
    return getattr(holder, part, MISSING)


def _assign(holder: Any, part: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[part] = value
    elif isinstance(holder, list):
        if not part.lstrip("-").isdigit() or not -len(holder) <= int(part) < len(holder):
            msg = f"the list in the state has {len(holder)} items and none at {part!r}."
            raise StateKeyError(msg)
        holder[int(part)] = value
    elif isinstance(holder, BaseModel):
        config = type(holder).model_config
        if part not in type(holder).model_fields and config.get("extra") != "allow":
            msg = f"the state {type(holder).__name__} has no field {part!r}. It has: {sorted(type(holder).model_fields)}."
            raise StateKeyError(msg)
        setattr(holder, part, value)
    else:
        setattr(holder, part, value)


def _missing(key: str, state: Any) -> str:
    names = sorted(map(str, state)) if isinstance(state, dict) else sorted(type(state).model_fields)
    return f"the state has no {key!r}. It has: {names}. Give a default to read what may not be there: get({key!r}, default=None)"


def _copied(state: Any) -> Any:
    """A deep copy, value by value, sharing those that cannot be copied (clients, locks, connections)."""
    if isinstance(state, dict):
        return DictState({key: _copied_value(value) for key, value in state.items()})
    twin = state.model_copy()
    for name, value in list(twin.__dict__.items()):
        twin.__dict__[name] = _copied_value(value)
    return twin


def _copied_value(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 because any class may refuse to be copied, in its own way
        return value
