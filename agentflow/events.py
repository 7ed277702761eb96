"""Events: what flows between steps. Pydantic models that also take free fields and act like a dict.

Declared fields are validated; free fields are kept as they are. The engine keeps its own facts (who
sent an event, when, why) beside the event, never in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.json_schema import JsonSchemaValue, JsonSchemaWarningKind


class _JsonSchema(GenerateJsonSchema):
    """A field of a type that JSON does not know is described by the type's name, not refused."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"non-serializable-default"}  # noqa: RUF012 because pydantic has it so

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:  # noqa: ARG002 because it is pydantic's
        kind = schema.get("cls")
        name = f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(schema["type"])
        return {"description": f"a Python object: {name}", "x-python-type": name}


class Event(BaseModel):
    """The base of all events. Subclass it with typed fields, or give it free ones.

    A field may have any Python type. `ev.x`, `ev["x"]`, `ev.get("x")`, `"x" in ev` and `ev.keys()`
    see declared and free fields alike.
    """

    # protected_namespaces: `model_name` is a fine name for a field
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True, protected_namespaces=())

    if TYPE_CHECKING:  # free fields; a subclass takes the fields that it declares

        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __getitem__(self, key: str) -> Any:
        if key in self:
            return getattr(self, key)
        raise KeyError(key)

    def __setitem__(self, key: str, value: object) -> None:
        setattr(self, key, value)

    def __contains__(self, key: object) -> bool:
        return key in type(self).model_fields or key in (self.__pydantic_extra__ or ())

    def get(self, key: str, default: Any = None) -> Any:
        """The field `key`, or `default` where there is none."""
        return getattr(self, key) if key in self else default

    def set(self, key: str, value: object) -> None:
        """Set the field `key`, as `ev.key = value` does."""
        setattr(self, key, value)

    def keys(self) -> Iterable[str]:
        """The names of all fields, declared ones first."""
        return [*type(self).model_fields, *(self.__pydantic_extra__ or ())]

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As pydantic's, but a field of any Python type is described by that type's name, not refused."""
        if len(args) < 3:  # noqa: PLR2004 because the generator is the third parameter
            kwargs.setdefault("schema_generator", _JsonSchema)
        return super().model_json_schema(*args, **kwargs)


class StartEvent(Event):
    """What starts a run. The fields given to `Workflow.run` become its fields."""

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...


class StopEvent(Event):
    """What ends a run. `result` is what awaiting the run returns; a subclass is itself the result."""

    result: Any = None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Without the `result` of a subclass that leaves it empty: it is itself the result."""
        for name, value in super().__repr_args__():
            if name != "result" or value is not None or type(self) is StopEvent:
                yield name, value

    if TYPE_CHECKING:

        def __init__(self, *, result: Any = None, **fields: Any) -> None: ...


class InputRequiredEvent(Event):
    """A question to a human. It goes to the stream, and to a step only where one accepts its very type."""

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...


class HumanResponseEvent(Event):
    """An answer from outside. It is kept for a later wait when no step accepts it."""

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...


# what follows is built when it is first made: most processes that import this never do
class WorkflowFailedEvent(StopEvent, defer_build=True):
    """The last event of the stream of a run that failed."""

    step: str | None = Field(default=None, description="the step that failed, if one did")
    exception_type: str = Field(default="", description="the exception's class, with its module")
    message: str = Field(default="", description="the exception's text")
    attempts: int = Field(default=1, description="how many times the step was tried")


class WorkflowTimedOutEvent(StopEvent, defer_build=True):
    """The last event of the stream of a run that exceeded its time limit."""

    timeout: float = Field(default=0.0, description="the limit, in seconds")
    active_steps: list[str] = Field(default_factory=list, description="the steps that were running")


class WorkflowCancelledEvent(StopEvent, defer_build=True):
    """The last event of the stream of a run that was cancelled."""


class StreamGap(Event, defer_build=True):
    """Given to a follower that fell behind: the stream's events `first` to `last` are gone for it."""

    first: int
    last: int
