"""The one command hands what follows a subcommand's name to whoever brought it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentflow.command import main

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
