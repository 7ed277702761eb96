"""The rules of the house, read from the sources: who may import whom, and what every file keeps to."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "agentflow": ROOT / "agentflow",
    "agentflow_agents": ROOT / "agents" / "agentflow_agents",
    "agentflow_instrumentation": ROOT / "instrumentation" / "agentflow_instrumentation",
    "agentflow_llm": ROOT / "llm" / "agentflow_llm",
}
MAY_IMPORT = {
    "agentflow": {"pydantic", "pydantic_core", "structlog", "tenacity", "typing_extensions"},
    "agentflow_agents": {"agentflow", "agentflow_llm", "griffe", "httpx2", "mcp", "pydantic", "typing_extensions"},
    "agentflow_instrumentation": {
        "agentflow.log",
        "agentflow.observe",
        "agentflow_agents.records",
        "agentflow_llm.records",
        "google.protobuf",
        "grpc",
        "opentelemetry",
        "prometheus_client",
        "structlog",
        "typing_extensions",
    },
    "agentflow_llm": {
        "agentflow.clock",
        "agentflow.errors",
        "agentflow.observe",
        "agentflow.retry",
        "genai_prices",
        "httpx2",
        "numpy",
        "openai",
        "pydantic",
        "pydantic_core",
        "pypdf",
        "pytest",
        "semantic_text_splitter",
        "tenacity",
        "tiktoken",
        "typing_extensions",
    },
}
OPENAI_ADAPTERS = {
    f"agentflow_llm.{name}" for name in ("endpoint", "openai", "openai_embedder", "recording", "responses")
}
PROGRAM = "agentflow_agents.demo"
"""What is run and never imported may bring all packages together."""
AT_FIRST_USE = {
    "genai_prices",
    "griffe",
    "httpx2",
    "mcp",
    "numpy",
    "openai",
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "pypdf",
    "semantic_text_splitter",
    "structlog",
    "tenacity",
    "tiktoken",
}
LONGEST = 500
MAY_BE_LONGER = {"agentflow.run"}


@dataclass(frozen=True)
class Import:
    """One imported name, absolute, as `agentflow.events.Event` for `from .events import Event`."""

    name: str
    line: int
    relative: bool
    when_loaded: bool

    def within(self, packages: set[str]) -> bool:
        """Whether it is one of these modules, or comes from one of them."""
        return any(f"{self.name}.".startswith(f"{package}.") for package in packages)


@dataclass(frozen=True)
class Module:
    """One source file of a package."""

    name: str
    path: Path

    def __str__(self) -> str:
        return self.name

    @property
    def package(self) -> str:
        """The import package that it is part of."""
        return self.name.partition(".")[0]

    def tree(self) -> ast.Module:
        """The module, parsed."""
        return ast.parse(self.path.read_bytes())

    def imports(self) -> Iterator[Import]:
        """Everything that it imports, wherever in the file."""
        tree = self.tree()
        when_loaded = set(_run_when_loaded(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, node.lineno, relative=False, when_loaded=node in when_loaded)
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node)
                for alias in node.names:
                    name = f"{source}.{alias.name}"
                    yield Import(name, node.lineno, relative=node.level > 0, when_loaded=node in when_loaded)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parts = self.name.split(".")
        depth = len(parts) - node.level + (self.path.name == "__init__.py")
        return ".".join([*parts[:depth], *([node.module] if node.module else [])])


def _run_when_loaded(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: outside functions and `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from _run_when_loaded(other)
            continue
        yield node
        yield from _run_when_loaded(node)


def _modules() -> Iterator[Module]:
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield Module(".".join([package, *(part for part in parts if part != "__init__")]), path)


MODULES = list(_modules())


def _tracked() -> Iterator[Path]:
    """The files that are or would be committed; where git cannot say, all that no tool has made."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        made = re.compile(r"\.bench|\.venv|\.git|__pycache__|\..*_cache|\.hypothesis|build|dist|htmlcov")
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        names = [str(path) for path in paths if not any(made.fullmatch(part) for part in path.parts)]
    yield from (path for name in sorted(filter(None, names)) if (path := ROOT / name).is_file())


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _import_order(package: str) -> list[str]:
    """The first word of each line in the block under a package's heading, under "Import order", in ARCHITECTURE.md."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = re.search(rf"^## Import order$.*?^### {package}$\s*^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block, f"ARCHITECTURE.md has no fenced block for {package} under its import order"
    return [f"{package}.{line.split()[0]}" for line in block[1].splitlines() if line.strip()]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_imports_only_what_its_package_may(module: Module) -> None:
    allowed = MAY_IMPORT[module.package] | {module.package} | sys.stdlib_module_names
    if module.name == PROGRAM:
        allowed |= {"agentflow_instrumentation"}
    wrong = [found for found in module.imports() if not found.relative and not found.within(allowed)]
    if module.name not in OPENAI_ADAPTERS:
        wrong += [found for found in module.imports() if found.within({"openai"})]
    assert not wrong, f"{module} must not import {_listed(wrong)}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_program_is_imported_by_nobody(module: Module) -> None:
    assert not [found for found in module.imports() if found.within({PROGRAM, "agentflow.command"})]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_inside_a_package_are_relative(module: Module) -> None:
    wrong = [found for found in module.imports() if not found.relative and found.within({module.package})]
    assert not wrong, f"write these as relative imports: {_listed(wrong)}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_costly_libraries_are_imported_at_first_use(module: Module) -> None:
    wrong = [found for found in module.imports() if found.when_loaded and found.within(AT_FIRST_USE)]
    assert not wrong, f"import inside the function that needs it: {_listed(wrong)}"


@pytest.mark.parametrize("package", FOLDERS)
def test_import_order_lists_every_module_once(package: str) -> None:
    names = [module.name for module in MODULES if module.package == package and module.name != package]
    assert sorted(_import_order(package)) == sorted(names)


@pytest.mark.parametrize("module", [module for module in MODULES if module.name != module.package], ids=str)
def test_module_imports_only_those_above_it_in_the_order(module: Module) -> None:
    order = _import_order(module.package)
    above = set(order[: order.index(module.name)] if module.name in order else order)
    wrong = [found for found in module.imports() if found.relative and not found.within(above)]
    assert not wrong, f"not above {module} in ARCHITECTURE.md's import order: {_listed(wrong)}"


def _listed(imports: list[Import]) -> str:
    return ", ".join(f"{found.name} (line {found.line})" for found in imports)


@pytest.mark.parametrize("folder", ["agents", "instrumentation", "llm"])
def test_folder_is_no_package_itself(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists(), f"it would shadow another project's `import {folder}`"


@pytest.mark.parametrize("package", FOLDERS)
def test_package_is_marked_as_typed(package: str) -> None:
    assert (FOLDERS[package] / "py.typed").exists()


@pytest.mark.parametrize("module", [module for module in MODULES if module.name not in MAY_BE_LONGER], ids=str)
def test_module_is_short(module: Module) -> None:
    assert len(module.path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("package", FOLDERS)
def test_all_names_what_the_package_binds(package: str) -> None:
    """Names bound only for type checkers count: they must be there at run time too, if only at first use."""
    loaded = importlib.import_module(package)
    assert loaded.__all__ == sorted(loaded.__all__)
    assert set(loaded.__all__) == {name for name in _bound(package) if not name.startswith("_")}
    for name in loaded.__all__:
        getattr(loaded, name)


def _bound(package: str) -> Iterator[str]:
    """What `__init__.py` defines, assigns and takes from its own modules, outside functions and classes."""
    nodes: list[ast.stmt] = list(ast.parse((FOLDERS[package] / "__init__.py").read_bytes()).body)
    for node in nodes:
        if isinstance(node, ast.If):
            nodes += [*node.body, *node.orelse]
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield from (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


SUPPRESSION = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?"
    r"|(?:type|pyright):\s*ignore(?:\[[^]]*\])?"
    r"|(?:ruff|mypy|pyright):\s*[\w-]+(?:[:=]\s*\S+)?)"
)
RELAXED = re.compile(
    r'\[tool\.ruff\.lint.*: .*"(?!ALL)[A-Z]{1,7}\d*"'
    r"|\[+tool\.(?:mypy|pyright).*: (?:allow_|disable_|follow_|ignore_|implicit_|report)\w*\s*="
)


@pytest.mark.parametrize("path", [path for path in _tracked() if path.suffix in {".py", ".pyi"}], ids=_relative)
def test_suppressed_finding_has_its_reason_on_the_line(path: Path) -> None:
    wrong: list[int] = []
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            said = SUPPRESSION.sub("", token.string)
            if token.type == tokenize.COMMENT and said != token.string and not _is_reason(said):
                wrong.append(token.start[0])
    assert not wrong, f"say why on lines {wrong}"


def test_relaxed_rule_has_its_reason_on_the_line() -> None:
    wrong: list[str] = []
    table = ""
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            table = line
        elif RELAXED.match(f"{table}: {line}") and not _is_reason(line.partition("#")[2]):
            wrong.append(line.strip())
    assert not wrong, f"say why in pyproject.toml: {wrong}"


def _is_reason(text: str) -> bool:
    """Two words at least, as in "as above"."""
    return len(re.findall(r"\w+", text)) > 1


MACHINE = re.compile(r"(?<![\w./~-])/(?:home|mnt|root|tmp|Users|var/folders|work)/[\w.-]+|\b[A-Z]:\\Users\\")


@pytest.mark.parametrize("path", list(_tracked()), ids=_relative)
def test_file_names_no_path_of_a_machine(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    assert not MACHINE.findall(text)
