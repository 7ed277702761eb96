"""scripts/backend.py keeps to its word: what it installs is whole, what it starts ends with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from real import SCRIPT, free_ports

SERVER = """\
    #!{python}
    import json, signal, socket, sys
    config = json.load(open(sys.argv[1].removeprefix("--config=")))
    protocols = config["receivers"]["otlp"]["protocols"]
    places = [config["extensions"]["jaeger_query"]["http"], protocols["http"], protocols["grpc"]]
    servers = [socket.create_server((host, int(port))) for host, port in (p["endpoint"].split(":") for p in places)]
    print("serving", *sys.argv, flush=True)
    {then}
"""


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("AGENTFLOW_PHOENIX", raising=False)
    monkeypatch.delenv("AGENTFLOW_JAEGER", raising=False)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that takes Jaeger's configuration and listens where that says."""
    return program(tmp_path, monkeypatch, "signal.pause()")


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> Path:
    path = folder / "jaeger"
    path.write_text(textwrap.dedent(SERVER).format(python=sys.executable, then=then), encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("AGENTFLOW_JAEGER", str(path))
    return path


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
    )


def ports() -> list[str]:
    ui, http, grpc = free_ports(3)
    return [f"--port={ui}", f"--http-port={http}", f"--grpc-port={grpc}"]


@pytest.mark.parametrize("name", ["phoenix", "jaeger"])
def test_what_is_not_installed_has_no_path_and_does_not_run(name: str) -> None:
    assert (call(name, "path").returncode, call(name, "path").stdout) == (1, "")
    told = call(name, "run")
    assert told.returncode == 1
    assert told.stderr.endswith(f"backend.py {name} install\n")


def test_the_environment_may_name_a_program(server: Path) -> None:
    assert call("jaeger", "path").stdout == f"{server}\n"
    assert call("jaeger", "install").stdout == f"{server}\n"


def test_a_program_that_is_not_there_is_told() -> None:
    told = call("phoenix", "path", AGENTFLOW_PHOENIX="no-such-phoenix")
    assert (told.returncode, told.stderr) == (1, "AGENTFLOW_PHOENIX='no-such-phoenix' is no program.\n")


def test_an_installation_that_broke_off_is_none(tmp_path: Path) -> None:
    half = tmp_path / "cache" / "agentflow" / "phoenix-20.26.1" / "bin"
    half.mkdir(parents=True)
    (half / "phoenix").touch()
    assert call("phoenix", "path").returncode == 1


def test_without_go_it_says_what_to_install(tmp_path: Path) -> None:
    told = call("jaeger", "install", PATH=str(tmp_path))
    assert told.returncode == 1
    assert told.stderr.startswith("Jaeger is built from source: install Go 1.24.6 or newer")


def test_go_that_is_too_old_is_told(tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.19.8\n", encoding="utf-8")
    go.chmod(0o755)
    told = call("jaeger", "install", PATH=str(tmp_path))
    assert told.returncode == 1
    assert "is go1.19.8; Jaeger v1.76.0 needs Go 1.24.6 or newer" in told.stderr


def test_a_port_that_is_in_use_is_told_with_its_option(server: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = call("jaeger", "run", *ports()[:2], f"--grpc-port={port}")
    assert told.returncode == 1
    assert told.stderr.startswith(f"Port {port} is in use. Choose another: --grpc-port ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_and_its_data_end_with_the_script(
    server: Path, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ui, http, grpc = free_ports(3)
    command = [
        sys.executable,
        str(SCRIPT),
        "jaeger",
        "run",
        f"--port={ui}",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = [process.stdout.readline() for _ in range(5)]
        assert any(str(ui) in line for line in said)
        assert f"http://127.0.0.1:{http}/v1/traces" in said[2]
        assert f"http://127.0.0.1:{grpc}" in said[3]
        assert list(tmp_path.glob("agentflow-*/server.log"))
        process.send_signal(number)
    assert process.returncode == 0
    assert not list(tmp_path.glob("agentflow-*"))
    for port in (ui, http, grpc):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_folder_for_the_data_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "raise SystemExit('out of luck')")
    told = call("jaeger", "run", *ports(), f"--data={tmp_path / 'data'}")
    assert told.returncode == 1
    assert told.stderr.startswith("Jaeger has ended by itself:\nserving ")
    assert told.stderr.endswith("out of luck\n")
    assert "badger" in (tmp_path / "data" / "jaeger.json").read_text(encoding="utf-8")
