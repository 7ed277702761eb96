"""The graph as a picture: all that can happen in a workflow, or what happened in its last run.

The suffix of the file name chooses the form: `.html` is one page that works offline, `.mmd` is Mermaid text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WorkflowRuntimeError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from .picture import Picture
    from .workflow import Workflow


def draw_all_possible_flows(
    workflow: Workflow[Any, Any] | type[Workflow[Any, Any]],
    filename: str | os.PathLike[str] = "workflow_all_flows.html",
) -> Path:
    """Draw every way through a workflow, class or object, and return the path of the file.

    - `filename`: ends in `.html` for a page to look at, or in `.mmd` for Mermaid text.

    Raises `WorkflowValidationError` where the workflow cannot work, `WorkflowRuntimeError` for other suffixes.
    """
    from .picture import possible  # noqa: PLC0415 because only who draws needs it

    return _draw(filename, lambda: possible(workflow))


def draw_most_recent_execution(
    workflow: Workflow[Any, Any],
    filename: str | os.PathLike[str] = "workflow_recent_execution.html",
) -> Path:
    """Draw what ran in the run of a workflow object that was started last, and return the path of the file.

    Steps and events have numbers that say how often; what did not run is not there. The run may still go on.

    - `filename`: as for `draw_all_possible_flows`.

    Raises `WorkflowRuntimeError` where nothing has run yet, and for other suffixes.
    """
    from .picture import recent  # noqa: PLC0415 because only who draws needs it

    return _draw(filename, lambda: recent(workflow))


def _draw(filename: str | os.PathLike[str], make: Callable[[], Picture]) -> Path:
    path = Path(filename)
    suffix = path.suffix.lower()
    if suffix not in {".html", ".mmd"}:
        msg = (
            f"filename={str(filename)!r} does not say what to draw. It ends in .html for a page, or in .mmd for "
            f"Mermaid text. Write: filename={str(path.with_suffix('.html') if path.name else 'flow.html')!r}"
        )
        raise WorkflowRuntimeError(msg)
    picture = make()
    if suffix == ".mmd":
        from .mermaid import render  # noqa: PLC0415 because only who draws Mermaid text needs it
    else:
        from .page import render  # noqa: PLC0415 because only who draws a page needs it
    path.write_text(render(picture), encoding="utf-8", errors="backslashreplace", newline="\n")
    return path
