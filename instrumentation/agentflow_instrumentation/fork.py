"""What a process that is forked off does differently from its parent."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def after_fork(method: Callable[[], None]) -> None:
    """Call a method in every process that is forked off this one, as long as its object lives."""
    if hasattr(os, "register_at_fork"):
        known = weakref.WeakMethod(method)

        def call() -> None:
            if (again := known()) is not None:
                again()

        os.register_at_fork(after_in_child=call)
