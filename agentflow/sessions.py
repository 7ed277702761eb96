"""The conversation to which runs belong, as the code that starts them says it."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from .errors import WorkflowConfigurationError, shown

if TYPE_CHECKING:
    from collections.abc import Generator


class Session(NamedTuple):
    """What the runs that are started inside of a `session` block belong to."""

    id: str
    user: str | None


current_session: ContextVar[Session | None] = ContextVar("agentflow_session", default=None)


@contextmanager
def session(id: str, user: str | None = None) -> Generator[None]:  # noqa: A002 because it is what a session has
    """Name the conversation to which the runs belong that are started inside of the block.

    - `id`: told of each of these runs, and of the runs inside of them, and stored with them.
    - `user`: on whose behalf they are; by default as a block around this one says.

    ```
    with session("chat-42", user="ada"):
        await workflow.run()
    ```

    Raises `WorkflowConfigurationError` where one of them is no text, or empty.
    """
    for given, value in (("", id), ("..., user=", user)):
        if not (isinstance(value, str) and value) and not (given and value is None):
            msg = f"session({given}{shown(value)}): it is a text, and not empty. "
            raise WorkflowConfigurationError(f'{msg}Write: with session("chat-42", user="ada"): ...')
    around = current_session.get()
    token = current_session.set(Session(id, around.user if user is None and around is not None else user))
    try:
        yield
    finally:
        with suppress(ValueError):  # a generator may be closed in another context than it was begun in
            current_session.reset(token)
