"""What all tests share: no network but this machine, no deadlines, and real components on request."""

from __future__ import annotations

import gc
import ipaddress
import os
import shutil
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import hypothesis
import pytest

import contract
from agentflow import observe
from real import Instrumented, RealJaeger, RealPhoenix, is_installed, running_jaeger, running_phoenix

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

# A deadline would time the machine, not the code.
hypothesis.settings.register_profile("agentflow", deadline=None)
hypothesis.settings.load_profile("agentflow")

contract.watch()


class NetworkBlockedError(RuntimeError):
    """A test reached for another machine. No OSError, lest a client's retries hide it."""


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Let Python sockets connect to this machine only. Programs that a test starts are not covered."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        look_up = socket.getaddrinfo

        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            _refuse_unless_local(host)
            return look_up(host, *args, **kwargs)

        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@pytest.fixture(scope="module", autouse=True)
def what_is_there_stays() -> None:
    """Spare the garbage collector, and those who ask it what is alive, whatever was there before this module.

    That is a million objects, which were collected, imported or reported, and tests of memory count again and again.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def observers_leave_with_their_test() -> Iterator[None]:
    """Whoever looks on at every run of the process looks on for one test only."""
    yield
    for observer in observe._added:  # noqa: SLF001 because nobody else has to know who looks on
        observe.remove_observer(observer)
    if fields := sys.modules.get("agentflow_instrumentation.fields"):
        vars(fields)["wanted"] = False  # log lines that ask for the step let every later run mark its steps


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """A span that is not as it should be fails the test in which it ended."""
    result = yield
    _keep_contract()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    """So does one that ended when the test was over."""
    result = yield
    _keep_contract()
    return result


def _keep_contract() -> None:
    if broken := contract.contract.broken():
        pytest.fail("\n".join(["spans are not as docs/spans.md says:", *dict.fromkeys(broken)]), pytrace=False)


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, *args: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            host, *_ = args[-1]
            _refuse_unless_local(host)
        return method(self, *args)

    return guarded


def _refuse_unless_local(host: str | bytes | None) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost"}:
        return
    try:
        if ipaddress.ip_address(str(name)).is_loopback:
            return
    except ValueError:
        pass
    raise NetworkBlockedError(
        f"This test tried to reach {name!r}. Tests use no network: start what you need on 127.0.0.1, or use a fake."
    )


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    for name in names:
        if path := shutil.which(name):
            return path
    return _missing(f"needs one of these programs, and none is installed: {', '.join(names)}")


@pytest.fixture(scope="session")
def phoenix() -> Iterator[RealPhoenix]:
    """A Phoenix that all tests share."""
    if not is_installed("phoenix"):
        _missing("needs Phoenix: scripts/backend.py phoenix install")
    with running_phoenix() as server:
        yield server


@pytest.fixture(scope="session")
def instrumented(tmp_path_factory: pytest.TempPathFactory) -> Instrumented:
    """A Python with the instrumentors of others in it."""
    if not is_installed("instrumented"):
        _missing("needs the instrumentors of others: scripts/backend.py instrumented install")
    return Instrumented.make(tmp_path_factory.mktemp("instrumented"))


@pytest.fixture(scope="session")
def jaeger() -> Iterator[RealJaeger]:
    """A Jaeger that all tests share."""
    if not is_installed("jaeger"):
        if not shutil.which("go"):
            pytest.skip("needs Jaeger, which Go builds, and there is no Go")
        _missing("needs Jaeger: scripts/backend.py jaeger install")
    with running_jaeger() as server:
        yield server


@pytest.fixture(scope="session")
def prometheus() -> str:
    """The path of Prometheus."""
    return shutil.which("prometheus") or _missing("needs Prometheus: on Debian, install the package prometheus")


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of Prometheus' tool that checks rules."""
    return shutil.which("promtool") or _missing("needs promtool: on Debian, install the package prometheus")


def _missing(what: str) -> NoReturn:
    """Skip the test for want of a real component, or fail it where CI requires it."""
    if os.environ.get("AGENTFLOW_REQUIRE_REAL") == "1":
        pytest.fail(what)
    pytest.skip(what)
