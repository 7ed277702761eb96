"""The tools of an MCP server, for any agent."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from pydantic import ValidationError

from agentflow.errors import shown
from agentflow_llm.errors import MissingExtraError

from .callee import check_seconds
from .errors import AgentConfigurationError, ToolError
from .mcp_connection import Address, Connection, MCPServerError, Program
from .tool import Tool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from typing import Self

    from mcp import Client
    from mcp.types import CallToolResult, ContentBlock
    from mcp.types import Tool as Described
    from typing_extensions import Unpack

    from .mcp_connection import Link

T = TypeVar("T")

_LONGEST_NAME = 64
_NO_LETTER = re.compile(r"[^a-zA-Z0-9_-]")


class MCPOptions(TypedDict, total=False):
    """What is taken of a server's tools, and how. All names are those that the server gives.

    - `include`: the tools to take; by default all.
    - `prefix`: what a model sees before each name: two servers may have a tool of one name.
    - `timeout`: seconds that one call may take; None for no limit. Connecting, anew as well, is no part of it: a server
      has 60 seconds for that.
    - `requires_approval`: True where a person is asked before each call, or the tools of which this is true.
    """

    include: Collection[str] | None
    prefix: str
    timeout: float | None
    requires_approval: bool | Collection[str]


class MCPTools:
    """The tools of an MCP server: `FunctionAgent(tools=[*await files.tools(), search])`.

    `MCPTools.stdio(...)` starts the server, `MCPTools.http(...)` reaches one that runs. The connection is opened when
    it is first needed, and closed at the end of `async with files:` or by `close`. Where it broke, the next call
    opens it anew; the call that was under way fails, and is not repeated: the server may have done it. Each event
    loop has a connection of its own.
    """

    def __init__(
        self,
        link: Callable[[], Link],
        *,
        include: Collection[str] | None = None,
        prefix: str = "",
        timeout: float | None = None,
        requires_approval: bool | Collection[str] = False,
    ) -> None:
        if not callable(link):
            raise AgentConfigurationError(
                f"MCPTools({shown(link)}): write MCPTools.stdio('python', 'server.py'), or MCPTools.http('http://...')."
            )
        for option, names in (("include", include), ("requires_approval", requires_approval)):
            if not isinstance(names, bool) or option == "include":
                _check_names(option, names)
        given: Any = prefix
        if not isinstance(given, str) or _NO_LETTER.search(given):
            raise AgentConfigurationError(
                f"prefix={shown(prefix)}: it must be text of letters a-z, digits, _ and - only, as 'files_'."
            )
        check_seconds("MCPTools", timeout)
        if find_spec("mcp_types") is None:  # what mcp 1, whose API is another, does not bring
            raise MissingExtraError("MCPTools needs mcp 2. Run: pip install 'agentflow-otel[mcp]'")
        self._link = link
        self._include = include
        self._prefix = prefix
        self._timeout = timeout
        self._requires_approval = requires_approval
        self._name = link().name
        self._open: dict[asyncio.AbstractEventLoop, Connection | None] = {}
        """By event loop; None where it was closed."""

    @classmethod
    def stdio(
        cls,
        command: str | Path,
        *args: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        **options: Unpack[MCPOptions],
    ) -> Self:
        """The tools of a program that speaks MCP on its standard input and output; closing ends it.

        Of our environment it sees little, such as PATH and HOME, and `env`: a key has to be given there. For the
        options see `MCPOptions`.

        Raises `AgentConfigurationError` for options that make no sense, and `MissingExtraError` where mcp is missing.
        """
        return cls(partial(Program, command, args, env, cwd), **options)

    @classmethod
    def http(cls, url: str, *, headers: Mapping[str, str] | None = None, **options: Unpack[MCPOptions]) -> Self:
        """The tools of a server that is reached over streamable HTTP: `MCPTools.http("http://127.0.0.1:8000/mcp")`.

        `headers` go with every request, as `{"Authorization": "Bearer ..."}`. For the options see `MCPOptions`.

        Raises as `stdio` does.
        """
        return cls(partial(Address, url, headers), **options)

    def __repr__(self) -> str:
        return f"<MCPTools of {self._name!r}>"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._open.get(loop) is None:
            self._open.pop(loop, None)
        try:
            await self._connected()
        except BaseException:  # Python calls `__aexit__` only behind this
            await self.close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection of the running event loop, from whatever task; calls that are under way fail."""
        loop = asyncio.get_running_loop()
        known = self._open.get(loop)
        self._open[loop] = None
        if known is not None:
            await known.close()

    async def tools(self) -> list[Tool[..., Any]]:
        """The tools that the server has now.

        Raises `MCPServerError` where it cannot be reached, and `AgentConfigurationError` where it has no tool of a
        name that `include` or `requires_approval` gives.
        """
        try:
            found = await self._ask("listing its tools", _list, repeatable=True)
        except (ToolError, ValidationError) as error:
            raise MCPServerError(f"the MCP server {self._name!r} cannot list its tools: {error}") from error
        for option, names in (("include", self._include), ("requires_approval", self._requires_approval)):
            if not isinstance(names, bool):
                self._check(option, names or (), [described.name for described in found])
        return [
            self._tool(described) for described in found if self._include is None or described.name in self._include
        ]

    def _check(self, option: str, names: Collection[str], known: list[str]) -> None:
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                meant = f" Did you mean {near[0]!r}?" if near else ""
                raise AgentConfigurationError(
                    f"{option}: the MCP server {self._name!r} has no tool {name!r}.{meant} "
                    f"It has: {', '.join(map(repr, known)) or 'none'}"
                )

    def _tool(self, described: Described) -> Tool[..., Any]:
        asks = self._requires_approval
        return Tool.of_schema(
            (self._prefix + _NO_LETTER.sub("_", described.name))[:_LONGEST_NAME],
            described.description or described.title or "",
            described.input_schema,
            partial(self._call, described.name),
            ready=self._connected,
            timeout=self._timeout,
            requires_approval=asks if isinstance(asks, bool) else described.name in asks,
        )

    async def _call(self, name: str, arguments: dict[str, Any]) -> str:
        result = await self._ask(f"calling {name!r}", lambda client: client.call_tool(name, arguments))
        text = _text_of(result)
        if result.is_error:
            raise ToolError(text or "The tool failed, and does not say why.")
        return text

    async def _ask(
        self, doing: str, send: Callable[[Client], Awaitable[T]], *, repeatable: bool = False, is_repeated: bool = False
    ) -> T:
        """Raises `ToolError` for the error that the server answered, `MCPServerError` where it did not answer."""
        connection = await self._connected()
        client = await connection.opened
        from mcp import MCPError  # noqa: PLC0415 because it costs a second, and has been imported

        try:
            return await send(client)
        except MCPError as error:
            refused = connection.refused(error)
            if not (refused or connection.cut_off(error)):
                raise ToolError(error.message) from error
            if refused:
                connection.end()
            if is_repeated or not (refused or repeatable):
                raise await connection.lost(doing) from error
        return await self._ask(doing, send, is_repeated=True)

    async def _connected(self) -> Connection:
        """The connection of the running event loop, opened now if there is none, or none that works."""
        loop = asyncio.get_running_loop()
        for other in [other for other in self._open if other.is_closed()]:
            self._open.pop(other, None)  # a call in another thread may have been faster
        while True:
            known = self._open.get(loop)
            if known is None:
                if loop in self._open:
                    raise MCPServerError(f"{self!r} was closed. Run the agent inside of: async with tools: ...")
                known = self._open[loop] = Connection(self._link())
            if not known.is_over:
                await asyncio.shield(known.opened)
                return known
            await asyncio.wait([known.task])
            if self._open.get(loop) is known:
                del self._open[loop]


def _check_names(option: str, names: Any) -> None:
    told, each = shown(names), names
    if isinstance(names, str):
        raise AgentConfigurationError(f"{option}={told}: it must be a set of names. Write {option}={{{names!r}}}.")
    if names is not None and not (isinstance(names, Collection) and all(isinstance(name, str) for name in each)):
        raise AgentConfigurationError(f"{option}={told}: it must be a set of names, as {{'read_file'}}.")


async def _list(client: Client) -> list[Described]:
    found: list[Described] = []
    known: set[str] = set()
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None or cursor in known:  # a server that comes back to a page would never end
            return found
        known.add(cursor)


def _text_of(result: CallToolResult) -> str:
    """All of a result, in words."""
    parts = [_said(part) for part in result.content]
    structured = result.structured_content
    if structured is not None and not _stands_in(parts, structured):
        parts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join(parts)


def _said(part: ContentBlock) -> str:
    match part.type:
        case "text":
            return part.text
        case "image" | "audio":
            return f"[{part.mime_type}, {_size(part.data)}]"
        case "resource_link":
            described = f": {part.description}" if part.description else ""
            return f"[link to {part.name}, {part.uri}{described}]"
        case "resource":
            inner: Any = part.resource
            kind = f", {inner.mime_type}" if inner.mime_type else ""
            if hasattr(inner, "text"):
                return f"[{inner.uri}{kind}]\n{inner.text}"
            return f"[{inner.uri}{kind}, {_size(inner.blob)}]"


def _size(base64: str) -> str:
    return f"{len(base64.rstrip('=')) * 3 // 4} bytes"


def _stands_in(texts: list[str], structured: Any) -> bool:
    """Do the texts say it already? Servers are asked to send both; a bare value is wrapped in an object."""
    value = _unwrapped(structured)
    read = [_read(text) for text in texts]
    return bool(texts) and (value in (texts, read) or (len(texts) == 1 and value in (texts[0], read[0])))


def _unwrapped(structured: Any) -> Any:
    match structured:
        case {"result": value, **others} if not others:
            return value
        case _:
            return structured


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
