"""The connection to an MCP server, in the task that owns it: a program that is started, or a server behind a URL.

The scopes of the mcp library have to be left by the task that entered them; so one task opens a connection, waits,
and closes it. Calls are made in the tasks of their callers: cancelling one leaves the connection to the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import copy_context
from http.client import BAD_REQUEST, NOT_FOUND
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit

from agentflow import AgentflowError
from agentflow.clock import current_clock
from agentflow.errors import shown
from agentflow.observe import current_scope
from agentflow_llm.loose import as_list

from .errors import AgentConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from mcp import Client, MCPError

_PATIENCE = 60.0
"""Seconds until a server has to have answered its first message: some are downloaded when they are first started."""
_TAIL = 2000
"""Bytes of what a program wrote to stderr that are kept for an error."""
_SESSION = "mcp-session-id"
_VERSION = "mcp-protocol-version"


class MCPServerError(AgentflowError):
    """An MCP server cannot be reached, is gone, or does not keep to the protocol.

    The first line says what happened; what follows is for whoever runs the server.
    """


class Link(Protocol):
    """A way to a server, for one connection."""

    name: str
    """How errors call the server."""
    advice: str
    """What to do where it cannot be reached."""

    def streams(self) -> AbstractAsyncContextManager[tuple[Any, Any]]:
        """What comes from the server, and what goes to it."""
        ...

    async def clue(self) -> str:
        """What is known of why it failed; lines behind the first of an error."""
        ...

    @property
    def session_is_gone(self) -> bool:
        """Does the server refuse what it is sent, unheard, since it knows the session no more?"""
        ...


class Connection:
    """An open connection, in the task that owns it."""

    def __init__(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        self._link = link
        self._ended = asyncio.Event()
        self._cause: BaseException | None = None
        self._was_closed = False
        self.opened: asyncio.Future[Client] = loop.create_future()
        context = copy_context()
        context.run(current_scope.set, None)  # it outlives the run that needs it first, and must not hold on to it
        self.task = loop.create_task(self._live(), context=context)

    @property
    def is_over(self) -> bool:
        """Will it never carry a call again?"""
        return self._ended.is_set() or self.task.done()

    def refused(self, error: MCPError) -> bool:
        """Did the server not even look at a call, since it knows the session no more?"""
        return self._link.session_is_gone and "session" in error.message.lower()

    def cut_off(self, error: MCPError) -> bool:
        """Did no answer come, because the connection ended? Servers use the code for errors of their own as well."""
        from mcp.types import CONNECTION_CLOSED  # noqa: PLC0415 because it costs a second, and has been imported

        ended = self.is_over or error.message.startswith(("Connection closed", "SSE stream"))
        return ended and error.code == CONNECTION_CLOSED

    def end(self) -> None:
        """Let its task close it."""
        self._ended.set()

    async def close(self) -> None:
        """Close it, and wait until the server's process is gone."""
        self._was_closed = True
        self.end()
        if not self.opened.done():
            self.task.cancel()
        await asyncio.wait([self.task])

    async def lost(self, doing: str) -> MCPServerError:
        """The error of a call that got no answer."""
        if self.is_over:
            await asyncio.wait([self.task])  # then it is known why
        if self._was_closed:
            return MCPServerError(f"the tools of the MCP server {self._link.name!r} were closed while {doing}")
        why = f": {_reason(self._cause)}" if self._cause else ""
        return MCPServerError(
            f"the connection to the MCP server {self._link.name!r} was lost while {doing}{why}. It may have been done "
            f"or not. The next call connects anew.{await self._link.clue()}"
        )

    async def _live(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                async with current_clock().timeout(_PATIENCE):
                    mcp = await asyncio.to_thread(import_module, "mcp")
                    _quiet()
                    # nothing is kept: a list of tools is asked for only where it may have changed
                    client: Client = await stack.enter_async_context(mcp.Client(self._streams(), cache=None))
                self.opened.set_result(client)
                await self._ended.wait()
        except Exception as error:  # noqa: BLE001 because whatever it was, those who wait for an answer are told
            self._cause = _first(error)
            if not self.opened.done():
                self.opened.set_exception(await self._unreachable(self._cause))
        finally:
            self.end()
            if not self.opened.done():
                self.opened.set_exception(MCPServerError(f"{self._link.name!r} was closed while it was being opened"))
            if not self.opened.cancelled():
                self.opened.exception()  # whoever waited may be gone; then it is no unhandled error

    @asynccontextmanager
    async def _streams(self) -> AsyncGenerator[tuple[Any, Any]]:
        async with self._link.streams() as (incoming, outgoing):
            yield _Incoming(incoming, self.end), outgoing

    async def _unreachable(self, error: BaseException) -> MCPServerError:
        return MCPServerError(
            f"the MCP server {self._link.name!r} cannot be reached: {_reason(error)}.\n"
            f"{self._link.advice}{await self._link.clue()}"
        )


class _Incoming:
    """What comes from a server. Tells when no more will come: the library tells only those who wait for an answer."""

    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> bool | None:
        self._on_end()
        return cast("bool | None", await self._stream.__aexit__(*error))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._stream.__anext__()


class Program:
    """A server that is started, and that speaks on its standard input and output."""

    advice = "Run it in a terminal: it has to start, print nothing to stdout, and wait for what it is sent."

    def __init__(
        self,
        command: str | Path,
        args: Sequence[str | Path],
        env: Mapping[str, str] | None,
        cwd: str | Path | None,
    ) -> None:
        words = _words(command, args, cwd)
        _check_texts("MCPTools.stdio", "env", env)
        self.name = shlex.join(words)
        self._parameters: dict[str, Any] = {
            "command": words[0],
            "args": words[1:],
            "env": None if env is None else dict(env),
            "cwd": cwd,
        }
        self._reader: Thread | None = None
        self._tail = b""
        self.session_is_gone = False

    @asynccontextmanager
    async def streams(self) -> AsyncGenerator[tuple[Any, Any]]:
        """Start it, and end it."""
        from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: PLC0415 because mcp costs a second

        parameters = StdioServerParameters(**self._parameters)
        async with AsyncExitStack() as stack:
            reading, writing = os.pipe()
            self._reader = Thread(target=self._read, args=(reading,), daemon=True)
            self._reader.start()
            # once the process has its copy, ours is closed: then its end is the end of what is read
            with os.fdopen(writing, "w") as stderr:
                streams = await stack.enter_async_context(stdio_client(parameters, errlog=stderr))
            yield streams

    async def clue(self) -> str:
        """What it wrote to stderr."""
        if self._reader is not None:
            await asyncio.to_thread(self._reader.join, 0.2)
        said = self._tail.decode(errors="replace").strip()
        return f"\nIts stderr ends with:\n{said}" if said else "\nIt wrote nothing to stderr."

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as stderr:
            while said := stderr.read(4096):
                self._tail = (self._tail + said)[-_TAIL:]


class Address:
    """A server that is reached over HTTP."""

    def __init__(self, url: str, headers: Mapping[str, str] | None) -> None:
        given: Any = url
        try:
            parts = urlsplit(url if isinstance(given, str) else "")
        except ValueError:  # of brackets
            parts = urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise AgentConfigurationError(
                f"MCPTools.http({shown(url)}): it needs a URL, as MCPTools.http('http://127.0.0.1:8000/mcp')."
            )
        _check_texts("MCPTools.http", "headers", headers)
        # a key may stand before the host or behind the path
        self.name = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
        self.advice = "Is the server running, is this its URL with the path (often /mcp), and are the headers right?"
        self._url = url
        self._headers = dict(headers or {})
        self._status: int | None = None
        self._session: dict[str, str] = {}
        """What a server of before 2026 knows it by; it is to be told when it ends."""
        self.session_is_gone = False

    @asynccontextmanager
    async def streams(self) -> AsyncGenerator[tuple[Any, Any]]:
        """Open its connections, and close them."""
        import httpx2  # noqa: PLC0415 as below, because it comes with mcp
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415 because mcp costs a second

        # a tool may take as long as it likes: its own time-out is the limit
        limits = httpx2.Timeout(30, read=None)
        hooks = {"response": [self._note]}
        async with httpx2.AsyncClient(headers=self._headers, timeout=limits, event_hooks=hooks) as client:
            # the library would end the session itself, and warn where it is gone already
            async with streamable_http_client(self._url, http_client=client, terminate_on_close=False) as streams:
                yield streams
            if self._session and not self.session_is_gone:
                with suppress(httpx2.HTTPError):
                    await client.delete(self._url, headers=self._session, timeout=2)

    async def clue(self) -> str:
        """The status of its last answer, where it is one of an error."""
        return f"\nIt answered with status {self._status}." if self._status and self._status >= BAD_REQUEST else ""

    async def _note(self, response: Any) -> None:
        self._status = response.status_code
        sent = response.request.headers
        if _SESSION in sent:
            self._session = {name: sent[name] for name in (_SESSION, _VERSION) if name in sent}
            # this is how the protocol says it
            self.session_is_gone |= response.status_code == NOT_FOUND


def _words(command: Any, args: Sequence[Any], cwd: str | Path | None) -> list[str]:
    """A program and its arguments. Raises `AgentConfigurationError` where they are not given one by one."""
    told, is_list = shown(command), isinstance(command, list | tuple)
    given = as_list([*command]) if is_list else [command, *args]
    words = [str(word) for word in given if isinstance(word, str | Path)]
    if isinstance(command, str) and not args and not (shutil.which(command) or Path(cwd or "", command).exists()):
        try:
            words = shlex.split(command)
        except ValueError:  # of quotation marks
            words = [command]
    if not words or not words[0].strip():
        raise AgentConfigurationError(
            f'MCPTools.stdio({told}): it needs a program: MCPTools.stdio("python", "server.py").'
        )
    if is_list or len(words) > len(given):
        line = ", ".join(map(repr, words))
        raise AgentConfigurationError(
            f"MCPTools.stdio({told}): the program and its arguments must be given one by one. Write "
            f"MCPTools.stdio({line})."
        )
    wrong = [word for word in given if not isinstance(word, str | Path)]
    if wrong:
        raise AgentConfigurationError(
            f"MCPTools.stdio(...): the program and its arguments must be text or paths, not {shown(wrong[0])}."
        )
    return words


def _check_texts(what: str, option: str, given: object) -> None:
    """Refuse what is no dict of texts. Raises `AgentConfigurationError`, which does not show it: it may hold keys."""
    if given is None:
        return
    pairs = [*cast("Mapping[object, object]", given).items()] if isinstance(given, Mapping) else [(given, None)]
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        raise AgentConfigurationError(f'{what}({option}=...): it must be a dict of texts, as {{"NAME": "value"}}.')


def _first(error: BaseException) -> BaseException:
    """What went wrong first, in a group of tasks that went down with it."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"it did not answer within {_PATIENCE:g} s"
    return f"{error}".strip().rstrip(".") or type(error).__name__


def _quiet() -> None:
    """Whoever has set up no logging is not to see the library's: what matters is raised."""
    for name in ("mcp", "client"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
