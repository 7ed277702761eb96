"""The fences around the tests hold."""

from __future__ import annotations

import asyncio
import socket

import pytest
from opentelemetry.sdk.trace import TracerProvider

from contract import contract


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.com"])
def test_another_machine_cannot_be_reached(host: str) -> None:
    with pytest.raises(RuntimeError, match="Tests use no network"):
        socket.create_connection((host, 9), timeout=1)


async def test_another_machine_cannot_be_reached_from_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match="Tests use no network"):
        await asyncio.open_connection("192.0.2.1", 9)


async def test_a_server_of_the_test_can_be_reached() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()


def test_a_span_that_is_not_as_it_should_be_is_caught() -> None:
    with TracerProvider(shutdown_on_exit=False).get_tracer("agentflow").start_as_current_span("step x"):
        pass
    assert any("span 'step x': it lacks" in problem for problem in contract.broken())


def test_a_span_that_ends_twice_is_caught() -> None:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("mine").start_span("x")
    span.end()
    span.end()
    assert contract.broken() == ["Calling end() on an ended span."]
