"""The one command hands what follows a subcommand's name to whoever brought it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentflow.command import main
from agentflow_llm.server import LoopbackServer

SCRIPT = Path(sys.executable).with_name("agentflow")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_subcommands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "demo" in capsys.readouterr().out


def test_an_unknown_subcommand_is_a_usage_error_that_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dmeo"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "there is no command 'dmeo'" in told.err
    assert "'demo'" in told.err


def test_a_subcommand_gets_the_arguments_after_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--help"])
    assert ended.value.code == 0
    assert "usage: agentflow demo" in capsys.readouterr().out


def test_the_installed_program_is_this_command() -> None:
    done = subprocess.run([SCRIPT, "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no command 'nothing'" in done.stderr


def test_who_reads_the_output_may_stop_reading() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([SCRIPT, "demo", "Why?"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_an_interrupted_command_says_nothing_more() -> None:
    asked, over = threading.Event(), threading.Event()

    def keep_waiting(_body: object) -> dict[str, object]:
        asked.set()
        over.wait()
        return {}

    with LoopbackServer(keep_waiting) as server:
        environment = {**os.environ, "OPENAI_BASE_URL": server.base_url, "AGENTFLOW_MODEL": "slow"}
        command = subprocess.Popen([SCRIPT, "demo", "Why?"], env=environment, stderr=subprocess.PIPE, text=True)
        assert asked.wait(60)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=60)
        over.set()
    assert command.returncode == 130
    assert said == ""
