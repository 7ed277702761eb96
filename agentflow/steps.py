"""Steps: the `@step` decorator. Nothing runs here.

An annotation is looked up when the step is declared, in the module and in the functions and classes
around it; what is not there yet (a class further down) is looked up again when the workflow is compiled.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .errors import UnannotatedError, UnresolvedNameError, WorkflowValidationError, shown, type_name
from .retry import check_policy
from .signature import is_event, read_signature

if TYPE_CHECKING:
    import types
    from collections.abc import Callable

    import tenacity

    from .events import Event
    from .retry import RetryPolicy
    from .signature import StepSpec

DECLARATION = "__agentflow_step__"
ATTACH = "__agentflow_attach__"
DEFAULT_WORKERS = 4

F = TypeVar("F", bound="Callable[..., Any]")


class Declaration:
    """What `@step` says of a function."""

    __slots__ = ("_scopes", "_spec", "fn", "free", "num_workers", "retry_policy", "timeout", "waits")

    def __init__(  # noqa: PLR0913 because these are the options that a step has
        self,
        fn: Callable[..., Any],
        *,
        free: bool,
        num_workers: int,
        retry_policy: RetryPolicy | tenacity.BaseRetrying | None,
        timeout: float | None,
        waits: tuple[type[Event], ...],
    ) -> None:
        self.fn = fn
        self.free = free
        """Is it a function outside a class, or a static method?"""
        self.num_workers = num_workers
        self.retry_policy = retry_policy
        self.timeout = timeout
        self.waits = waits
        self._scopes = _scopes_around(fn)
        self._spec: StepSpec | None = None
        try:
            self.spec()
        except UnresolvedNameError:
            return  # compiling looks again, when every class has been defined
        except UnannotatedError:
            if fn.__qualname__.rpartition(".")[0].rpartition(".")[2] in {"", "<locals>"}:
                raise
            return  # in a class, which will know whether it overrides a step that says how

    def spec(self) -> StepSpec:
        """What the signature declares. Raises `WorkflowValidationError` with the corrected line."""
        if self._spec is None:
            names: dict[str, Any] = {}
            for scope in reversed(self._scopes):
                names.update(scope.f_locals)
            self._spec = read_signature(self.fn, names, free=self.free)
            self._scopes = []
        return self._spec

    def place(self) -> str:
        """Where the function stands."""
        code: types.CodeType | None = getattr(inspect.unwrap(self.fn), "__code__", None)
        return "an unknown place" if code is None else f'File "{code.co_filename}", line {code.co_firstlineno}'


@overload
def step(fn: F, /) -> F: ...
@overload
def step(
    *,
    workflow: Any = None,
    num_workers: int = DEFAULT_WORKERS,
    retry_policy: RetryPolicy | tenacity.BaseRetrying | None = None,
    timeout: float | None = None,
    waits: list[type[Event]] | tuple[type[Event], ...] = (),
) -> Callable[[F], F]: ...
def step(  # noqa: PLR0913 because these are the options that a step has
    fn: F | None = None,
    /,
    *,
    workflow: Any = None,
    num_workers: int = DEFAULT_WORKERS,
    retry_policy: RetryPolicy | tenacity.BaseRetrying | None = None,
    timeout: float | None = None,
    waits: list[type[Event]] | tuple[type[Event], ...] = (),
) -> F | Callable[[F], F]:
    """Make a method, or a function, a step of a workflow.

    The event parameter's annotation says what triggers it, the return annotation what it produces:
    one event, a `list` of them, or None.

    - `workflow`: for a function outside a class, the workflow class or object that it becomes part of.
    - `num_workers`: how many executions of the step may go on at once within a run. A plain function
      runs in a thread of a pool of that size.
    - `retry_policy`: a `Retry`, a tenacity object, or anything with a `next` method.
    - `timeout`: seconds for one execution; waiting for a human does not count.
    - `waits`: event types that the step awaits with `ctx.wait_for_event`, kept when they come early.

    Raises `WorkflowValidationError`, with the corrected line, where the declaration cannot work.
    """

    def declare(function: F) -> F:
        _check_function(function)
        inner = function_behind(function)
        where = f"step {inner.__name__!r}"
        _check_options(where, num_workers, timeout, waits)
        if retry_policy is not None:
            check_policy(retry_policy, where)
        attach: Callable[[Declaration], None] | None = getattr(workflow, ATTACH, None)
        if workflow is not None and attach is None:
            msg = (
                f"{where}: workflow={shown(workflow)} is no workflow. Write @step(workflow=MyWorkflow), or, for one "
                "object only, @step(workflow=flow) with flow = Workflow()."
            )
            raise WorkflowValidationError(msg)
        declaration = Declaration(
            inner,
            free=workflow is not None or inner is not function,
            num_workers=num_workers,
            retry_policy=retry_policy,
            timeout=timeout,
            waits=tuple(waits),
        )
        if attach is None:
            setattr(inner, DECLARATION, declaration)
        else:
            attach(declaration)
        return function

    return declare if fn is None else declare(fn)


def declaration_of(function: object) -> Declaration | None:
    """What `@step` left on a function; None if it is no step.

    Any attribute of a class may be asked, so nothing of it is called.
    """
    found = inspect.getattr_static(function, DECLARATION, None)
    return found if isinstance(found, Declaration) else None


def is_duration(value: object) -> bool:
    """Is it a positive number of seconds?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def is_count(value: object) -> bool:
    """Is it a whole number of 1 or more?"""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def function_behind(function: Any) -> Any:
    """The function of a static method or class method; all else is what it is."""
    return function.__func__ if type(function) in {staticmethod, classmethod} else function


def _check_function(function: object) -> None:
    if hasattr(function, ATTACH):
        name = function.__name__ if isinstance(function, type) else "flow"
        msg = f"@step({name}): a workflow is given by name. Write @step(workflow={name})."
        raise WorkflowValidationError(msg)
    if isinstance(function, classmethod):
        msg = "@step on a class method: a step takes self, or nothing. Write @staticmethod in place of @classmethod."
        raise WorkflowValidationError(msg)
    if not inspect.isroutine(function):
        msg = (
            f"@step on {shown(function)}: it decorates functions and methods. Write @step directly above `def` or "
            "`async def`; options are given by name, such as @step(num_workers=4)."
        )
        raise WorkflowValidationError(msg)


def _check_options(where: str, num_workers: object, timeout: object, waits: Any) -> None:
    if not is_count(num_workers):
        msg = f"{where}: num_workers={shown(num_workers)} is no whole number of 1 or more. Write @step(num_workers=4)."
        raise WorkflowValidationError(msg)
    if timeout is not None and not is_duration(timeout):
        msg = f"{where}: timeout={shown(timeout)} is no positive number of seconds. Write @step(timeout=30), or None."
        raise WorkflowValidationError(msg)
    if type(waits) not in {list, tuple} or not all(map(is_event, waits)):
        kind = type_name(waits) if is_event(waits) else "MyEvent"
        msg = f"{where}: waits={shown(waits)} is no list of event types. Write @step(waits=[{kind}])."
        raise WorkflowValidationError(msg)


def _scopes_around(fn: Callable[..., Any]) -> list[types.FrameType]:
    """The class bodies and functions around one that is being declared, innermost first: where local names are."""
    fn = inspect.unwrap(fn)
    module = getattr(fn, "__globals__", None)
    found: list[types.FrameType] = []
    frame: types.FrameType | None = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if frame.f_globals is module:
            if code.co_name == "<module>":
                break
            if fn.__qualname__.startswith(f"{code.co_qualname}."):
                found.append(frame)
        frame = frame.f_back
    return found
