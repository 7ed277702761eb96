#!/usr/bin/env python3
"""Install and run a real Phoenix or Jaeger, to look at traces. Both listen on this machine only.

scripts/backend.py phoenix install     once; needs no root, keeps everything in ~/.cache/agentflow
scripts/backend.py phoenix run         serves until Ctrl-C; --help lists ports and the folder for the data
scripts/backend.py phoenix path        where the program is

The same with jaeger, which is built from source and needs Go. AGENTFLOW_PHOENIX and AGENTFLOW_JAEGER may name a
program that is there already. `instrumented`, which is not run but used by tests, is a Python with the instrumentors
of others in it. The standard library is all that this file needs.
"""

# ruff: noqa: D102 because the base class says what its methods are for
# ruff: noqa: S603 because starting programs that were installed on purpose is what this file is for
# ruff: noqa: T201 because it talks to the person who runs it

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

HOST = "127.0.0.1"
Start = tuple[list[str | Path], dict[str, str]]
READY_WITHIN = 180.0  # seconds; Phoenix took 8 to 30 on two cores


class BackendError(Exception):
    """What the user has to know, in a line or two."""


class Installed(ABC):
    """Something that is kept outside the repository."""

    name: ClassVar[str]
    variable: ClassVar[str]

    def path(self) -> Path | None:
        """The program, or None where it is not installed."""
        if named := os.environ.get(self.variable):
            found = shutil.which(named)
            if found is None:
                raise BackendError(f"{self.variable}={named!r} is no program.")
            return Path(found)
        return self.program() if self.is_complete() else None

    @abstractmethod
    def program(self) -> Path:
        """Where `install` puts it."""

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether an installation came to its end."""

    @abstractmethod
    def install(self) -> None:
        """Put it there. What a broken installation left behind is in nobody's way."""


class Environment(Installed):
    """A program in a virtual environment of its own."""

    def folder(self) -> Path:
        """Of the environment."""
        raise NotImplementedError

    def wanted(self) -> list[str]:
        """The packages in it."""
        raise NotImplementedError

    def is_complete(self) -> bool:
        return (self.folder() / "complete").exists()

    def install(self) -> None:
        folder = self.folder()
        shutil.rmtree(folder, ignore_errors=True)
        if uv := shutil.which("uv"):
            succeed(uv, "venv", "--quiet", "--python", sys.executable, folder)
        else:
            try:
                venv.create(folder, with_pip=True)
            except subprocess.CalledProcessError as error:
                raise BackendError("This Python cannot make environments: on Debian, install python3-venv.") from error
        self.add(*self.wanted())
        self.finish()
        (folder / "complete").touch()

    def add(self, *packages: str) -> None:
        """Install packages into it."""
        python = self.folder() / "bin" / "python"
        if uv := shutil.which("uv"):
            succeed(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *packages)
        else:
            succeed(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)

    def finish(self) -> None:
        """What is left to be done."""


class Backend(Installed):
    """A program that takes in traces and shows them."""

    ports: ClassVar[Mapping[str, int]]
    """Each port's option and the number that clients look for."""

    @abstractmethod
    def start(self, program: Path, ports: Mapping[str, int], folder: Path, *, keep: bool) -> Start:
        """The command, and what it reads from the environment. It writes to this folder, which is kept or not."""

    @abstractmethod
    def told(self, ports: Mapping[str, int]) -> dict[str, str]:
        """What the user wants to know once it is ready."""


class Phoenix(Environment, Backend):
    """Phoenix, in a virtual environment of its own."""

    name = "Phoenix"
    variable = "AGENTFLOW_PHOENIX"
    ports: ClassVar = {"port": 6006, "grpc-port": 4317}
    version = "20.26.1"
    # PHOENIX_HOST is for HTTP only, and no setting keeps the gRPC server from listening on all interfaces.
    on_loopback = f"""
import sys
import grpc.aio
make = grpc.aio.server
def server(*args, **options):
    made = make(*args, **options)
    add = made.add_insecure_port
    made.add_insecure_port = lambda address: add(address.replace("[::]", "{HOST}"))
    return made
grpc.aio.server = server
from phoenix.server.main import main
sys.argv = ["phoenix", "serve"]
main()
"""

    def folder(self) -> Path:
        return cache() / f"phoenix-{self.version}"

    def program(self) -> Path:
        return self.folder() / "bin" / "phoenix"

    def wanted(self) -> list[str]:
        return [f"arize-phoenix=={self.version}"]

    def start(self, program: Path, ports: Mapping[str, int], folder: Path, *, keep: bool) -> Start:  # noqa: ARG002 because it writes the same either way
        python = program.resolve().with_name("python")
        if not python.exists():
            raise BackendError(f"{program} has no Python beside it; {self.variable} names Phoenix in its environment.")
        return [python, "-c", self.on_loopback], {
            "PHOENIX_WORKING_DIR": str(folder),
            "PHOENIX_HOST": HOST,
            "PHOENIX_PORT": str(ports["port"]),
            "PHOENIX_GRPC_PORT": str(ports["grpc-port"]),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
            "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        }

    def told(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {
            "open": f"http://{HOST}:{ports['port']}",
            "OTLP http": f"http://{HOST}:{ports['port']}/v1/traces",
            "OTLP grpc": f"http://{HOST}:{ports['grpc-port']}",
        }


class Jaeger(Backend):
    """Jaeger v2, built by Go."""

    name = "Jaeger"
    variable = "AGENTFLOW_JAEGER"
    ports: ClassVar = {"port": 16686, "http-port": 4318, "grpc-port": 4317}
    # The tag is of v1 and of v2.13 alike. Later releases have no tag that Go can ask for: their major version is not
    # in the module's path. `go install` refuses this one for the `replace` in its go.mod, which only the build inside
    # the module's own folder keeps to.
    version = "v1.76.0"
    oldest_go = (1, 24, 6)

    def program(self) -> Path:
        return cache() / f"jaeger-{self.version}"

    def is_complete(self) -> bool:
        return self.program().exists()

    def install(self) -> None:
        go = self.go()
        module = f"github.com/jaegertracing/jaeger@{self.version}"
        sources = json.loads(succeed(go, "mod", "download", "-json", module))["Dir"]
        built = self.program().with_suffix(".partial")
        # The user's own flags and workspace are for the user's own modules.
        alone = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        succeed(go, "build", "-trimpath", "-ldflags=-s -w", "-o", built, "./cmd/jaeger", folder=sources, more=alone)
        built.replace(self.program())

    def go(self) -> str:
        """The compiler. Raises: BackendError: there is none, or it is too old."""
        oldest = ".".join(map(str, self.oldest_go))
        go = shutil.which("go")
        if go is None:
            raise BackendError(
                f"Jaeger is built from source: install Go {oldest} or newer (https://go.dev/dl), "
                f"or name a program that you have: {self.variable}=/path/to/jaeger"
            )
        version = succeed(go, "env", "GOVERSION").strip()
        if tuple(map(int, re.findall(r"\d+", version)[:3])) < self.oldest_go:
            raise BackendError(f"{go} is {version}; Jaeger {self.version} needs Go {oldest} or newer.")
        return go

    def start(self, program: Path, ports: Mapping[str, int], folder: Path, *, keep: bool) -> Start:
        config = folder / "jaeger.json"
        config.write_text(json.dumps(self.config(ports, folder if keep else None)), encoding="utf-8")
        return [program, f"--config={config}"], {}

    def config(self, ports: Mapping[str, int], folder: Path | None) -> dict[str, Any]:
        """The all-in-one configuration without the ports that nobody here asked for."""
        # Badger is what survives a restart, but it forgets what the attributes of a link were.
        store: dict[str, Any] = {"memory": {"max_traces": 100_000}}
        if folder:
            store = {"badger": {"directories": {"keys": str(folder), "values": str(folder)}, "ephemeral": False}}
        return {
            "extensions": {
                "jaeger_storage": {"backends": {"here": store}},
                "jaeger_query": {
                    "storage": {"traces": "here"},
                    # Its traces of itself would go to whoever has port 4317, and be waited for at the end.
                    "enable_tracing": False,
                    "http": {"endpoint": f"{HOST}:{ports['port']}"},
                    "grpc": {"endpoint": f"{HOST}:0"},
                },
            },
            "receivers": {
                "otlp": {
                    "protocols": {
                        "http": {"endpoint": f"{HOST}:{ports['http-port']}"},
                        "grpc": {"endpoint": f"{HOST}:{ports['grpc-port']}"},
                    }
                }
            },
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "here"}},
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
        }

    def told(self, ports: Mapping[str, int]) -> dict[str, str]:
        url = f"http://{HOST}:{ports['port']}"
        page = url if os.environ.get(self.variable) else f"{url}/api/v3/traces/TRACE-ID (built by Go, it has no page)"
        return {
            "open": page,
            "OTLP http": f"http://{HOST}:{ports['http-port']}/v1/traces",
            "OTLP grpc": f"http://{HOST}:{ports['grpc-port']}",
        }


class Instrumented(Environment):
    """What agentflow needs, and beside it what may tell of the same calls, or own the provider."""

    name = "Instrumented"
    variable = "AGENTFLOW_INSTRUMENTED"
    # pinned, because all of them pin OpenTelemetry, each to other versions, and pip would look for an hour
    others = (
        "opentelemetry-distro==0.66b1",
        "opentelemetry-sdk==1.45.1",
        "opentelemetry-exporter-otlp==1.45.1",
        "opentelemetry-instrumentation-httpx==0.66b1",
        "opentelemetry-instrumentation-starlette==0.66b1",
        "opentelemetry-instrumentation-genai-openai==1.3b0",
        "opentelemetry-instrumentation-openai==0.62.4",
        "openinference-instrumentation-openai==0.1.66",
        "arize-phoenix-otel==0.17.2",
        "logfire==5.2.0",
        "httpx==0.28.1",
        "starlette>=1.0",
    )
    aside: ClassVar[Mapping[str, tuple[str, ...]]] = {
        # the last one that speaks through httpx, whose instrumentor there is
        "openai-2": ("openai==2.54.0", "distro==1.9.0", "sniffio==1.3.1", "tqdm==4.70.1"),
        "openai-v2": ("opentelemetry-instrumentation-openai-v2==2.4b0", "opentelemetry-util-genai==0.4b0"),
    }
    """Folders with packages that can be put before those of the environment, which have others of the same names."""

    def folder(self) -> Path:
        said = json.dumps([self.wanted(), self.aside])
        return cache() / f"instrumented-{zlib.crc32(said.encode()):08x}"

    def program(self) -> Path:
        return self.folder() / "bin" / "python"

    def wanted(self) -> list[str]:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *self.others]

    def finish(self) -> None:
        for name, packages in self.aside.items():
            self.add("--no-deps", "--target", str(self.folder() / name), *packages)


BACKENDS: dict[str, Installed] = {"phoenix": Phoenix(), "jaeger": Jaeger(), "instrumented": Instrumented()}


def cache() -> Path:
    """Where programs are kept, outside every repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentflow"


def succeed(*command: str | Path, folder: str | None = None, more: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed. Raises: BackendError: it failed."""
    environment = {**os.environ, **(more or {})}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    if done.returncode:
        raise BackendError(f"This failed: {' '.join(map(str, command))}\n{tail(done.stdout + done.stderr)}")
    return done.stdout


def tail(text: str) -> str:
    """The last lines of an output."""
    return "\n".join(text.strip().splitlines()[-15:])


def install(backend: Installed) -> None:
    """Install what is not there yet. Of several at once, the first does it."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{backend.name.lower()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (path := backend.path()) is None:
            print(f"Installing {backend.name}, which takes a few minutes ...", flush=True)
            begun = time.monotonic()
            backend.install()
            path = backend.program()
            print(f"Installed in {time.monotonic() - begun:.0f} s.", flush=True)
    print(path)


def run(backend: Backend, ports: Mapping[str, int], data: Path | None) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises: BackendError: it is not installed, or ended by itself."""
    program = backend.path()
    if program is None:
        raise BackendError(f"{backend.name} is not installed: {sys.argv[0]} {backend.name.lower()} install")
    for option, port in ports.items():
        if answers(port):
            raise BackendError(f"Port {port} is in use. Choose another: --{option} {port + 10000}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentflow-")))
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "server.log"
        command, environment = backend.start(program, ports, folder.resolve(), keep=data is not None)
        process = stack.enter_context(started(command, environment, log))
        print(f"Starting {backend.name} ...", flush=True)
        wait_until_ready(process, ports)
        if process.poll() is None:
            kept = "" if data else "; the traces are gone then, unless --data names a folder"
            for what, url in backend.told(ports).items():
                print(f"{what:<10} {url}")
            print(f"Ctrl-C ends it{kept}.", flush=True)
        process.wait()
        raise BackendError(f"{backend.name} has ended by itself:\n{tail(log.read_text(errors='replace'))}")


@contextlib.contextmanager
def started(command: list[str | Path], more: Mapping[str, str], log: Path) -> Generator[subprocess.Popen[bytes]]:
    """A program that runs as long as the block, and leaves with it."""
    # In a session of its own it hears of Ctrl-C once, from us, and not a second time from the terminal.
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **more},
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_ready(process: subprocess.Popen[bytes], ports: Mapping[str, int]) -> None:
    """Return when every port answers, or the program has ended. Raises: BackendError: neither comes about."""
    give_up = time.monotonic() + READY_WITHIN
    while process.poll() is None and not all(map(answers, ports.values())):
        if time.monotonic() > give_up:
            raise BackendError(f"It does not answer after {READY_WITHIN:.0f} s.")
        time.sleep(0.1)


def answers(port: int) -> bool:
    """Whether somebody listens on this port."""
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) == 0


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = parser.add_subparsers(dest="backend", required=True)
    for name, backend in BACKENDS.items():
        actions = names.add_parser(name).add_subparsers(dest="action", required=True)
        actions.add_parser("install", help="install it, unless it is there")
        actions.add_parser("path", help="print where the program is; exit status 1 where it is not installed")
        if not isinstance(backend, Backend):
            continue
        runs = actions.add_parser("run", help="serve until Ctrl-C")
        for option, default in backend.ports.items():
            runs.add_argument(f"--{option}", type=int, default=default, help=f"default: {default}")
        runs.add_argument("--data", type=Path, metavar="FOLDER", help="keep the traces there")
    given = parser.parse_args()
    backend = BACKENDS[given.backend]
    try:
        if given.action == "install":
            install(backend)
        elif given.action == "run" and isinstance(backend, Backend):
            run(backend, {option: getattr(given, option.replace("-", "_")) for option in backend.ports}, given.data)
        elif path := backend.path():
            print(path)
        else:
            return 1
    except BackendError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
