"""MCP servers for tests.

Over stdio: without arguments, one with many tools; with `pages`, one whose list of tools has pages, and whose tools
refuse; with `none`, one without tools. Over HTTP: the first, with `http FD`, FD being a socket that listens; with
`sessions FD`, as servers spoke before 2026.
"""

import asyncio
import os
import socket
import sys
from typing import Any

from mcp import MCPError
from mcp.server import MCPServer, Server, ServerRequestContext
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.stdio import stdio_server
from mcp.types import (
    CONNECTION_CLOSED,
    BlobResourceContents,
    CallToolRequestParams,
    CallToolResult,
    EmbeddedResource,
    ListToolsResult,
    PaginatedRequestParams,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

server = MCPServer("tests", log_level="WARNING")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def pid() -> int:
    """The process of the server."""
    return os.getpid()


@server.tool(name="notes.read")
def read() -> str:
    """A name that models may not use."""
    return "a note"


@server.tool()
def variable(name: str) -> str:
    """A variable of the environment."""
    return os.environ.get(name, "none")


@server.tool()
def fail(reason: str) -> str:
    """Fail."""
    raise ToolError(reason)


@server.tool()
async def meet(port: int) -> str:
    """Come to a port, and return what is said there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return (await reader.readline()).decode().strip()
    finally:
        writer.close()


@server.tool()
def die() -> str:
    """End the process, in the midst of a call."""
    sys.stderr.write("the disk is full\n")
    sys.stderr.flush()
    os._exit(3)


@server.tool()
def shapes() -> list[dict[str, int]]:
    """Structured content."""
    return [{"sides": 3}, {"sides": 4}]


@server.tool()
def nothing() -> list[str]:
    """An empty list."""
    return []


@server.tool()
def picture() -> Image:
    """A picture."""
    return Image(data=b"x" * 1234, format="png")


@server.tool()
def everything() -> CallToolResult:
    """All that a result may hold."""
    return CallToolResult(
        content=[
            TextContent(type="text", text="Two files:"),
            ResourceLink(type="resource_link", name="plan", uri="file:///plan.md", description="the plan"),
            EmbeddedResource(
                type="resource",
                resource=TextResourceContents(uri="file:///note.md", mime_type="text/markdown", text="# Note"),
            ),
            EmbeddedResource(type="resource", resource=BlobResourceContents(uri="file:///data", blob="eHh4")),
        ],
        structured_content={"files": 2},
    )


@server.tool()
async def grow(ctx: Context[Any, Any]) -> str:
    """Have one more tool."""

    def extra() -> str:
        return "new"

    server.add_tool(extra)
    await ctx.session.send_tool_list_changed()
    return "grown"


def with_sessions(app: ASGIApp) -> ASGIApp:
    """Answer as a server that knows nothing of how clients since 2026 begin."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        message = await receive()
        if b"server/discover" in message["body"]:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        given = [message]

        async def again() -> Message:
            return given.pop() if given else await receive()

        await app(scope, again, send)

    return answer


async def page(ctx: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
    number = int(params.cursor) if params and params.cursor else 0
    tools = [Tool(name=f"tool{number}", title=f"Tool {number}", input_schema={"type": "object"})]
    return ListToolsResult(tools=tools, next_cursor=str(number + 1) if number < 3 else None)


async def refuse(ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
    raise MCPError(CONNECTION_CLOSED, f"{params.name} is on strike")


async def serve(other: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        await other.run(incoming, outgoing, other.create_initialization_options())


def main() -> None:
    if len(sys.argv) == 1:
        server.run("stdio")
        return
    if sys.argv[1] in {"pages", "none"}:
        pages = Server("pages", on_list_tools=page, on_call_tool=refuse)
        asyncio.run(serve(pages if sys.argv[1] == "pages" else Server("none")))
        return
    import uvicorn  # noqa: PLC0415 because it costs time, and stdio needs none

    _, kind, listening = sys.argv
    app: ASGIApp = server.streamable_http_app()
    if kind == "sessions":
        app = with_sessions(app)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([socket.socket(fileno=int(listening))])


if __name__ == "__main__":
    main()
