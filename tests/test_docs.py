"""Every code block of the documents runs and prints what the document shows. CONTRIBUTING.md has the rules."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import re
import shlex
import sys
from dataclasses import dataclass, field
from inspect import CO_COROUTINE
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(path for name in ("README", "ARCHITECTURE", "CONTRIBUTING") if (path := ROOT / f"{name}.md").exists()),
    *sorted(ROOT.glob("docs/**/*.md")),
    *(ROOT / folder / "README.md" for folder in ("agents", "instrumentation", "llm")),
]
FENCE = re.compile(r"(?P<indent>\s*)(?P<ticks>`{3,})(?P<info>.*)")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is its first line of code; `output` what the document says that it prints."""

    path: Path
    line: int
    info: str
    code: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks_of(path: Path) -> Iterator[Block]:
    """The blocks of a document, each with the ```text block that follows it with nothing but blank lines between."""
    held: Block | None = None
    fence: re.Match[str] | None = None
    code: list[str] = []
    start = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if fence is None:
            if fence := FENCE.fullmatch(line):
                start, code = number + 1, []
            elif held and line.strip():
                yield held
                held = None
        elif line.strip().strip("`") == "" and line.strip().startswith(fence["ticks"]):
            text = "".join(f"{line.removeprefix(fence['indent'])}\n" for line in code)
            info, fence = fence["info"].strip(), None
            if held and info == "text":
                yield Block(held.path, held.line, held.info, held.code, text)
                held = None
                continue
            if held:
                yield held
            held = Block(path, start, info, text)
        else:
            code.append(line)
    assert fence is None, f"{path.name}: the block at line {start} is never closed"
    if held:
        yield held


@dataclass
class Session:
    """Runs the blocks of one document in order, in one namespace and one event loop."""

    blocks: list[Block]
    folder: Path
    runner: asyncio.Runner
    module: ModuleType = field(default_factory=lambda: ModuleType("__main__"))
    done: int = 0
    failed: Block | None = None

    def run_to(self, block: Block) -> str:
        """Run what comes before this block and has not run yet, then the block. Returns what the block printed."""
        if self.failed:
            pytest.fail(f"{self.failed}, which comes before this block, fails")
        printed = ""
        for current in self.blocks[self.done : self.blocks.index(block) + 1]:
            self.done += 1
            self.failed = current
            printed = self._run(current)
            self.failed = None
        return printed

    def _run(self, block: Block) -> str:
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.chdir(self.folder)
            patch.setitem(sys.modules, "__main__", self.module)
            code = compile_block(block)
            result = eval(code, vars(self.module))  # noqa: S307 because running our documents is what this is for
            if code.co_flags & CO_COROUTINE:
                self.runner.run(result)
        return printed.getvalue()


def compile_block(block: Block) -> CodeType:
    """Compile with `await` allowed at the top, and so that tracebacks show the document's own lines."""
    source = "\n" * (block.line - 1) + block.code
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile(source, block.path, "exec", flags, dont_inherit=True)
    return code


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]
RUNNABLE = [block for block in BLOCKS if block.info == "python"]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Session]]:
    """One session for each document."""
    with contextlib.ExitStack() as stack:
        yield {
            path: Session(
                blocks=[block for block in RUNNABLE if block.path == path],
                folder=tmp_path_factory.mktemp(path.stem),
                runner=stack.enter_context(asyncio.Runner()),
            )
            for path in DOCUMENTS
        }


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_block_runs_and_prints_what_is_shown(block: Block, sessions: dict[Path, Session]) -> None:
    printed = sessions[block.path].run_to(block)
    if block.output is not None:
        assert printed == block.output


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.info == "python no-run"], ids=str)
def test_block_that_is_not_run_is_valid(block: Block) -> None:
    compile_block(block)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_is_of_a_known_sort(block: Block) -> None:
    meant = {"py": "python", "ba": "sh", "sh": "sh", "co": "sh", "zs": "sh"}.get(block.info[:2])
    assert meant is None or block.info in {meant, "python no-run"}, f"write ```{meant}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.info == "sh"], ids=str)
def test_make_commands_exist(block: Block) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in block.code.splitlines():
        command, *words = shlex.split(line.removeprefix("$ "), comments=True) or [""]
        if command == "make":
            assert targets.issuperset(word for word in words if "=" not in word and not word.startswith("-"))
