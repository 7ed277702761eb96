"""Tools of a real MCP server: over stdio, over HTTP, and over HTTP with sessions, as servers spoke before 2026."""

import asyncio
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentflow.clock import use_clock
from agentflow.observe import Kind
from agentflow.testing import FakeClock, record
from agentflow_agents import AgentConfigurationError, FunctionAgent, Toolbox, ToolError
from agentflow_agents.mcp import MCPTools
from agentflow_agents.mcp_connection import MCPServerError
from agentflow_llm.errors import MissingExtraError

SCRIPT = Path(__file__).with_name("mcp_server.py")
LOST = "The tool failed: MCPServerError: the connection to the MCP server"


def stdio(**options: Any) -> MCPTools:
    return MCPTools.stdio(sys.executable, SCRIPT, **options)


@dataclass
class HTTPServer:
    """A server in a process of its own; it can be started again at the same address."""

    kind: str
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        with socket.socket() as listening:
            # whoever connects before the process is ready waits
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", self.port))
            listening.listen()
            self.port = listening.getsockname()[1]
            descriptor = listening.fileno()
            command = [sys.executable, str(SCRIPT), self.kind, str(descriptor)]
            self.process = subprocess.Popen(command, pass_fds=[descriptor])

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, HTTPServer]]:
    servers = {kind: HTTPServer(kind) for kind in ("http", "sessions")}
    for server in servers.values():
        server.start()
    yield servers
    for server in servers.values():
        server.kill()


@pytest.fixture(params=["http", "sessions"])
def server(request: pytest.FixtureRequest, servers: dict[str, HTTPServer]) -> HTTPServer:
    return servers[request.param]


@pytest.fixture
def plain(servers: dict[str, HTTPServer]) -> HTTPServer:
    return servers["http"]


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


@dataclass
class Call:
    """A call of the server's tool `meet`, seen from where it came to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def answer(self, text: str) -> None:
        self.writer.write(f"{text}\n".encode())

    async def is_given_up(self) -> bool:
        return await self.reader.read() == b""


@dataclass
class Place:
    """Where the calls of `meet` come to."""

    port: int
    calls: asyncio.Queue[Call] = field(default_factory=asyncio.Queue)


@asynccontextmanager
async def meeting() -> AsyncGenerator[Place]:
    writers: list[asyncio.StreamWriter] = []

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await place.calls.put(Call(reader, writer))

    listening = await asyncio.start_server(come, "127.0.0.1", 0)
    place = Place(listening.sockets[0].getsockname()[1])
    async with listening:
        yield place
        for writer in writers:
            writer.close()


async def box_of(tools: MCPTools) -> Toolbox:
    return Toolbox(await tools.tools())


async def told(box: Toolbox, name: str, arguments: str = "{}") -> tuple[str, str]:
    result = await box.execute("c1", name, arguments)
    return result.outcome, result.content


def tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def test_tools_of_a_program_are_told_and_called_and_its_process_ends() -> None:
    async with stdio(env={"CITY": "Graz"}) as tools:
        found = {tool.name: tool for tool in await tools.tools()}
        assert found["add"].description == "Add two numbers."
        assert found["add"].parameters["required"] == ["a", "b"]
        assert found["add"].parameters["properties"]["a"]["type"] == "integer"
        box = Toolbox(found.values())
        assert await told(box, "add", '{"a": 1, "b": 2}') == ("ok", "3")
        assert await told(box, "variable", '{"name": "CITY"}') == ("ok", "Graz")
        process = int((await told(box, "pid"))[1])
        assert is_alive(process)
    assert not is_alive(process)
    assert not tasks()


async def test_connection_is_opened_at_first_use_and_closed_from_another_task(server: HTTPServer) -> None:
    tools = MCPTools.http(server.url)
    box = await asyncio.create_task(box_of(tools))
    assert await asyncio.create_task(told(box, "add", '{"a": 1, "b": 2}')) == ("ok", "3")
    await asyncio.create_task(tools.close())
    assert not tasks()
    outcome, text = await told(box, "add", '{"a": 1, "b": 2}')
    assert outcome == "error"
    assert text.endswith("was closed. Run the agent inside of: async with tools: ...")
    async with tools:
        assert await told(box, "add", '{"a": 1, "b": 2}') == ("ok", "3")


async def test_calls_are_made_side_by_side(server: HTTPServer) -> None:
    async with MCPTools.http(server.url) as tools, meeting() as place:
        box = await box_of(tools)
        going = [asyncio.create_task(told(box, "meet", f'{{"port": {place.port}}}')) for _ in range(5)]
        there = [await place.calls.get() for _ in range(5)]
        for number, call in reversed(list(enumerate(there))):
            call.answer(str(number))
        assert sorted(await asyncio.gather(*going)) == [("ok", str(number)) for number in range(5)]


async def test_first_calls_open_one_connection() -> None:
    tools = stdio()
    boxes = await asyncio.gather(*(box_of(tools) for _ in range(3)))
    processes = {await told(box, "pid") for box in boxes}
    assert len(processes) == 1
    await tools.close()


async def test_cancelled_caller_leaves_the_connection_to_the_others(server: HTTPServer) -> None:
    async with MCPTools.http(server.url) as tools, meeting() as place:
        box = await box_of(tools)
        stays = asyncio.create_task(told(box, "meet", f'{{"port": {place.port}}}'))
        first = await place.calls.get()
        goes = asyncio.create_task(box.execute("c2", "meet", f'{{"port": {place.port}}}'))
        second = await place.calls.get()
        goes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await goes
        assert await second.is_given_up()
        first.answer("still here")
        assert await stays == ("ok", "still here")


async def test_call_that_takes_too_long_is_given_up_alone(server: HTTPServer) -> None:
    with use_clock(FakeClock()) as clock:
        async with MCPTools.http(server.url, timeout=5) as tools, meeting() as place:
            box = await box_of(tools)
            slow = asyncio.create_task(told(box, "meet", f'{{"port": {place.port}}}'))
            call = await place.calls.get()
            await clock.advance(5)
            assert await slow == ("timeout", "The tool failed: TimeoutError: it did not end within 5 s")
            assert await call.is_given_up()
            assert await told(box, "add", '{"a": 1, "b": 2}') == ("ok", "3")


async def test_connecting_anew_is_no_part_of_the_time_of_a_call() -> None:
    waits = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv.pop(1)))).recv(1); "
    runs = "import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    with use_clock(FakeClock()) as clock:
        async with meeting() as place:
            tools = MCPTools.stdio(sys.executable, "-c", waits + runs, str(place.port), SCRIPT, timeout=5)
            first = asyncio.create_task(tools.tools())
            (await place.calls.get()).answer("begin")
            found = {tool.name: tool for tool in await first}
            with pytest.raises(MCPServerError):
                await found["die"].invoke("")
            again = asyncio.create_task(told(Toolbox(found.values()), "add", '{"a": 1, "b": 2}'))
            starting = await place.calls.get()
            await clock.advance(30)
            assert not again.done()
            starting.answer("begin")
            assert await again == ("ok", "3")
            await tools.close()


async def test_program_that_dies_is_started_anew_by_the_next_call() -> None:
    async with stdio() as tools, meeting() as place:
        found = {tool.name: tool for tool in await tools.tools()}
        with pytest.raises(MCPServerError, match=r"while calling 'die'\. .*\nIts stderr ends with:\nthe disk is full$"):
            await found["die"]({})
        box = Toolbox(found.values())
        process = int((await told(box, "pid"))[1])
        waiting = asyncio.create_task(told(box, "meet", f'{{"port": {place.port}}}'))
        await place.calls.get()
        os.kill(process, signal.SIGKILL)
        outcome, text = await waiting
        assert outcome == "error"
        assert text.startswith(LOST)
        assert text.endswith(
            "was lost while calling 'meet'. It may have been done or not. The next call connects anew."
        )
        again = await asyncio.gather(told(box, "pid"), told(box, "pid"))
        assert again[0] == again[1]
        assert again[0] != ("ok", str(process))
    assert not is_alive(process)
    assert not tasks()


async def test_server_that_was_started_anew_is_called_as_if_nothing_had_been(server: HTTPServer) -> None:
    async with MCPTools.http(server.url) as tools:
        box = await box_of(tools)
        _, before = await told(box, "pid")
        server.kill()
        server.start()
        outcome, after = await told(box, "pid")
        assert outcome == "ok"
        assert before != after


async def test_server_that_is_gone_in_the_middle_and_comes_back(server: HTTPServer) -> None:
    async with MCPTools.http(server.url) as tools, meeting() as place:
        box = await box_of(tools)
        waiting = asyncio.create_task(told(box, "meet", f'{{"port": {place.port}}}'))
        await place.calls.get()
        server.kill()
        assert (await waiting)[1].startswith(LOST)
        outcomes = [await told(box, "add", '{"a": 1, "b": 2}') for _ in range(2)]
        server.start()
        assert [outcome for outcome, _ in outcomes] == ["error", "error"]
        assert server.url in outcomes[0][1]
        assert f"the MCP server {server.url!r} cannot be reached: " in outcomes[1][1]
        assert await told(box, "add", '{"a": 1, "b": 2}') == ("ok", "3")
    assert not tasks()


async def test_closing_ends_the_calls_that_are_under_way(server: HTTPServer) -> None:
    async with MCPTools.http(server.url) as tools, meeting() as place:
        waiting = asyncio.create_task(told(await box_of(tools), "meet", f'{{"port": {place.port}}}'))
        call = await place.calls.get()
        await tools.close()
        assert await call.is_given_up()
        outcome, text = await waiting
        assert outcome == "error"
        assert text.endswith("were closed while calling 'meet'")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("shapes", ["{", '  "sides": 3', "}", "{", '  "sides": 4', "}"]),
        ("nothing", ['{"result": []}']),
        ("picture", ["[image/png, 1234 bytes]"]),
        (
            "everything",
            [
                "Two files:",
                "[link to plan, file:///plan.md: the plan]",
                "[file:///note.md, text/markdown]",
                "# Note",
                "[file:///data, 3 bytes]",
                '{"files": 2}',
            ],
        ),
        ("notes_read", ["a note"]),
    ],
)
async def test_all_of_a_result_is_said_in_words(plain: HTTPServer, name: str, lines: list[str]) -> None:
    async with MCPTools.http(plain.url) as tools:
        assert await told(await box_of(tools), name) == ("ok", "\n".join(lines))


async def test_error_of_the_server_is_told_in_its_words(server: HTTPServer) -> None:
    async with MCPTools.http(server.url) as tools:
        box = await box_of(tools)
        failed = await told(box, "fail", '{"reason": "Cities only. Try Paris."}')
        assert failed == ("error", "Error executing tool fail: Cities only. Try Paris.")
        outcome, text = await told(box, "add", '{"a": "one", "b": 2}')
        assert outcome == "error"
        assert "Input should be a valid integer" in text


async def test_tools_that_the_server_has_later_are_listed_later() -> None:
    async with stdio() as tools:
        before = await tools.tools()
        assert await told(Toolbox(before), "grow") == ("ok", "grown")
        after = await tools.tools()
        assert {tool.name for tool in after} - {tool.name for tool in before} == {"extra"}
        assert await told(Toolbox(after), "extra") == ("ok", "new")


async def test_list_of_tools_that_has_pages_is_read_to_its_end() -> None:
    async with MCPTools.stdio(sys.executable, SCRIPT, "pages") as tools:
        found = await tools.tools()
        assert [(tool.name, tool.description) for tool in found] == [(f"tool{n}", f"Tool {n}") for n in range(4)]
        # its code is that of a lost connection
        assert await told(Toolbox(found), "tool2") == ("error", "tool2 is on strike")


async def test_server_without_tools_is_an_error_in_its_words() -> None:
    async with MCPTools.stdio(sys.executable, SCRIPT, "none") as tools:
        with pytest.raises(MCPServerError, match="cannot list its tools: Method not found"):
            await tools.tools()


async def test_options_choose_name_and_guard(plain: HTTPServer) -> None:
    async with MCPTools.http(
        plain.url, include={"add", "pid"}, prefix="remote_", timeout=3, requires_approval={"pid"}
    ) as tools:
        found = {tool.name: tool for tool in await tools.tools()}
        assert sorted(found) == ["remote_add", "remote_pid"]
        assert {name: tool.requires_approval for name, tool in found.items()} == {
            "remote_add": False,
            "remote_pid": True,
        }
        assert found["remote_add"].timeout == 3
        assert await told(Toolbox(found.values()), "remote_add", '{"a": 1, "b": 2}') == ("ok", "3")


@pytest.mark.parametrize("option", ["include", "requires_approval"])
async def test_name_that_the_server_has_not_is_an_error_with_those_that_it_has(plain: HTTPServer, option: str) -> None:
    names: dict[str, Any] = {option: {"ad"}}
    async with MCPTools.http(plain.url, **names) as tools:
        with pytest.raises(
            AgentConfigurationError, match=rf"{option}: .* has no tool 'ad'. Did you mean 'add'\? It has: "
        ):
            await tools.tools()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MCPTools.http("http://[::1"), r"MCPTools.http\('http://\[::1'\): it needs a URL"),
        (lambda: MCPTools.http("127.0.0.1:8000"), r"it needs a URL, as MCPTools.http\('http://127.0.0.1:8000/mcp'\)"),
        (lambda: MCPTools("server.py"), r"write MCPTools.stdio\('python', 'server.py'\), or MCPTools.http"),  # type: ignore[arg-type]  # because it is wrong
        (lambda: MCPTools.http(8000), r"MCPTools.http\(8000\): it needs a URL"),  # type: ignore[arg-type]  # because it is wrong
        (lambda: MCPTools.http("http://a/mcp", headers="key"), r"http\(headers=\.\.\.\): it must be a dict of texts"),  # type: ignore[arg-type]  # because it is wrong
        (lambda: MCPTools.stdio(" "), r'it needs a program: MCPTools.stdio\("python", "server.py"\)'),
        (lambda: MCPTools.stdio("python my_server.py -v"), r"Write MCPTools.stdio\('python', 'my_server.py', '-v'\)"),
        (lambda: MCPTools.stdio(["python", "s.py"]), r"Write MCPTools.stdio\('python', 's.py'\)"),  # type: ignore[arg-type]  # because it is wrong
        (lambda: MCPTools.stdio("python", 3), r"the program and its arguments must be text or paths, not 3"),  # type: ignore[arg-type]  # because it is wrong
        (lambda: stdio(env={"PORT": 80}), r"MCPTools.stdio\(env=\.\.\.\): it must be a dict of texts"),
        (lambda: stdio(include="add"), r"include='add': it must be a set of names. Write include=\{'add'\}"),
        (lambda: stdio(requires_approval=1), r"requires_approval=1: it must be a set of names"),
        (
            lambda: stdio(prefix="my server."),
            "prefix='my server.': it must be text of letters a-z, digits, _ and - only",
        ),
        (lambda: stdio(prefix=None), "prefix=None: it must be text of letters"),
        (lambda: stdio(timeout=0), r"MCPTools\(timeout=0\): it must be a positive number of seconds, or None"),
        (lambda: stdio(timeout="5"), r"MCPTools\(timeout='5'\): it must be a positive number of seconds, or None"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(make: Callable[[], MCPTools], message: str) -> None:
    with pytest.raises(AgentConfigurationError, match=message):
        make()


def test_program_whose_path_has_a_space_is_no_line_of_words(tmp_path: Path) -> None:
    program = tmp_path / "my server"
    program.touch()
    assert repr(MCPTools.stdio(str(program))) == f"<MCPTools of {shlex.quote(str(program))!r}>"
    assert "my server" in repr(MCPTools.stdio("my server", cwd=tmp_path))


@pytest.mark.parametrize("wrap", [lambda given: given, lambda given: [given]], ids=["itself", "in a list"])
@pytest.mark.parametrize("given", [stdio, lambda: stdio().tools()], ids=["server", "not awaited"])
def test_server_in_place_of_its_tools_is_refused_with_the_line_to_write(
    wrap: Callable[[Any], Any], given: Callable[[], Any]
) -> None:
    for make in (Toolbox, FunctionAgent):
        with pytest.raises(AgentConfigurationError, match=r"Write tools=await store\.tools\(\), or tools=\["):
            make(wrap(given()))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["no-such-program"],
            r"'no-such-program' cannot be reached: .*No such file.*\nRun it in a terminal: .*\n.*nothing",
        ),
        (
            [sys.executable, "-c", "import sys; sys.exit('no database')"],
            r"cannot be reached: Connection closed.\nRun it in a terminal: .*\nIts stderr ends with:\nno database$",
        ),
    ],
)
async def test_program_that_cannot_be_reached_is_named_with_what_it_said(command: list[str], said: str) -> None:
    tools = MCPTools.stdio(*command)
    with pytest.raises(MCPServerError, match=said):
        await tools.tools()
    assert not tasks()


def mute(place: Place) -> MCPTools:
    """The tools of a program that comes to a place, and says nothing."""
    code = f"import socket, sys; here = socket.create_connection(('127.0.0.1', {place.port})); sys.stdin.read()"
    return MCPTools.stdio(sys.executable, "-c", code)


async def test_program_that_never_answers_is_given_up() -> None:
    with use_clock(FakeClock()) as clock:
        async with meeting() as place:
            opening = asyncio.create_task(mute(place).tools())
            program = await place.calls.get()
            await clock.advance(60)
            with pytest.raises(MCPServerError, match="cannot be reached: it did not answer within 60 s"):
                await opening
            assert await program.is_given_up()
    assert not tasks()


async def test_closing_ends_the_opening() -> None:
    async with meeting() as place:
        tools = mute(place)
        opening = asyncio.create_task(tools.tools())
        program = await place.calls.get()
        await tools.close()
        assert await program.is_given_up()
        with pytest.raises(MCPServerError, match="was closed while it was being opened"):
            await opening
    assert not tasks()


async def test_cancelling_whoever_opens_it_for_a_block_ends_the_program() -> None:
    async def enter() -> None:
        async with mute(place):
            pytest.fail("it never answers")

    async with meeting() as place:
        entering = asyncio.create_task(enter())
        program = await place.calls.get()
        entering.cancel()
        assert await program.is_given_up()
        await asyncio.wait([entering])
        assert entering.cancelled()
    assert not tasks()


async def test_caller_that_is_cancelled_while_it_opens_leaves_the_opening_to_the_others(plain: HTTPServer) -> None:
    tools = MCPTools.http(plain.url)
    goes, stays = (asyncio.create_task(box_of(tools)) for _ in range(2))
    await asyncio.sleep(0)
    goes.cancel()
    assert await told(await stays, "add", '{"a": 1, "b": 2}') == ("ok", "3")
    assert goes.cancelled()
    await tools.close()


async def test_server_that_refuses_is_named_without_its_secrets(plain: HTTPServer) -> None:
    wrong = plain.url.replace("http://", "http://me:secret@").replace("/mcp", "/wrong?key=secret")
    tools = MCPTools.http(wrong)
    with pytest.raises(MCPServerError, match=r"/wrong' cannot be reached: .*\n.*often /mcp.*\n.*status 404") as caught:
        await tools.tools()
    assert "secret" not in f"{caught.value} {tools!r}"


def test_each_event_loop_has_its_connection_and_its_end_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    tools = stdio(include={"pid"})

    async def process() -> int:
        return int((await told(await box_of(tools), "pid"))[1])

    processes = [asyncio.run(process()) for _ in range(2)]
    assert len(set(processes)) == 2
    assert not any(is_alive(process) for process in processes)
    assert capfd.readouterr() == ("", "")


async def test_call_is_one_operation_with_the_error_that_it_ended_with(plain: HTTPServer) -> None:
    async with MCPTools.http(plain.url) as tools:
        box = await box_of(tools)
        with record() as seen:
            await told(box, "fail", '{"reason": "no"}')
    [call] = seen.operations
    assert (call.kind, call.name) == (Kind.TOOL, "fail")
    assert isinstance(seen.errors[call.ref.id], ToolError)


def test_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp_types", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentflow-otel\[mcp\]'"):
        stdio()
