"""`agentflow demo`: an agent answers a question over a folder of documents, and shows everything that it did.

This is a program, not a library: it brings together what the packages offer each other, as a service would.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from agentflow import AgentflowError, Context, Event, Resource, StartEvent, Workflow, step
from agentflow_llm import Choice, default_model

from .events import AgentResult, ToolCall, ToolResult
from .function_agent import FunctionAgent
from .search import DocumentIndex

if TYPE_CHECKING:
    from agentflow import Handler

QUESTION = "How does a step wait for a human?"
PROMPT = (
    "You answer questions about the documents of a folder. Search them first; read what looks right; then answer in a "
    "few sentences from what you read, and name the sources. Say so when the documents do not have the answer."
)
NO_TRACE = "There is none: the environment switches it off, by AGENTFLOW_TELEMETRY or an OTEL_ variable."
WIDTH = 110
PLACES = {"phoenix": "http://localhost:6006", "jaeger": "http://localhost:16686"}
"""Where one looks at a trace that was sent there."""


class Question(StartEvent):
    """What is asked."""

    query: str


class ModelChosen(Event):
    """Which model answers, and why. Shown on the stream."""

    query: str
    reason: str


async def read_documents(folder: Path) -> DocumentIndex:
    """Index a folder, in a thread."""
    return await asyncio.to_thread(DocumentIndex, folder)


def no_documents() -> DocumentIndex:
    """Replaced by the documents of the folder that the librarian is given."""
    raise NotImplementedError


class Librarian(Workflow[Question, AgentResult]):
    """Give an agent the model that the environment names and the documents of a folder to search, and ask it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(resources={no_documents: Resource(partial(read_documents, folder))})

    @step
    async def choose_model(
        self, ctx: Context, ev: Question, chosen: Annotated[Choice, Resource(default_model)]
    ) -> ModelChosen:
        """Say which model it is, before anything can go wrong with it."""
        told = ModelChosen(query=ev.query, reason=chosen.reason)
        ctx.write_event_to_stream(told)
        return told

    @step
    async def ask(
        self,
        ev: ModelChosen,
        chosen: Annotated[Choice, Resource(default_model)],
        documents: Annotated[DocumentIndex, Resource(no_documents)],
    ) -> AgentResult:
        """Let the agent answer. Its run is a child of this step."""
        tools = [documents.search_documents, documents.read_document]
        agent = FunctionAgent(tools=tools, llm=chosen.model, system_prompt=PROMPT, name="librarian")
        return await agent.run(ev.query)


def demo(arguments: list[str]) -> int:
    """Run `agentflow demo` with these arguments; returns the exit code."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no terminal is too old for an answer
    return asyncio.run(_demo(" ".join(options.question) or QUESTION, options.docs, options.export))


async def _demo(question: str, folder: Path, export: str | None) -> int:
    # A program may know them all: the packages themselves leave telemetry to whoever runs them.
    from agentflow_instrumentation import ConsoleExporter, setup  # noqa: PLC0415 because the SDK is heavy

    drawn = io.BytesIO()
    encoding = sys.stdout.encoding or "utf-8"
    terminal = io.TextIOWrapper(drawn, encoding, errors="backslashreplace", write_through=True)
    exporters: list[Any] = [ConsoleExporter(terminal)]
    endpoint = None
    if export in PLACES:
        exporters.append(export)
    elif export is not None:
        exporters.append("otlp")
        endpoint = export
    try:
        telemetry = setup(exporters, endpoint=endpoint, service_name="agentflow-demo", content="full")
    except (ValueError, OSError) as error:
        return _complain(str(error))
    print(f"Question: {_visible(question)}")
    problems: list[str] = []
    try:
        result = await _follow(Librarian(folder).run(query=question))
        print("", *(fill(line, WIDTH, break_long_words=False) for line in _visible(str(result)).split("\n")), sep="\n")
        if result.stopped_by != "answer":
            print(f"(There is no answer: the agent stopped at its limit, {result.stopped_by}.)")
    except Exception as error:  # noqa: BLE001 because a program ends with a line that says why, whatever it was
        problems.append(str(error) if isinstance(error, AgentflowError) else f"{type(error).__name__}: {error}")
    problems += telemetry.shutdown()
    trace = drawn.getvalue().decode(encoding).rstrip()
    print(f"\nThe trace:\n\n{trace or NO_TRACE}")
    if trace and export is not None and not problems:
        print(f"\nIt was sent to {_place(export)}")
    return _complain(*problems)


def _place(export: str) -> str:
    """Where the trace is looked at."""
    elsewhere = os.environ.get("PHOENIX_COLLECTOR_ENDPOINT") if export == "phoenix" else None
    return elsewhere or PLACES.get(export, export)


def _complain(*problems: str) -> int:
    sys.stdout.flush()
    for line in problems:
        print(f"agentflow demo: {' '.join(_visible(line).split())}", file=sys.stderr)
    return int(bool(problems))


def _visible(text: str) -> str:
    """The text with its control characters spelled out: they would steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


async def _follow(handler: Handler[AgentResult]) -> AgentResult:
    """Tell what happens while it happens."""
    async for event in handler.stream_events():
        match event:
            case ModelChosen(reason=reason):
                print(fill(reason, WIDTH, break_long_words=False))
            case ToolCall(name=name, arguments=given):
                print(f"  {name} {_visible(given)}")
            case ToolResult(name=name, content=content):
                # without fences of code: of one line, they are no fences
                print(f"    {_visible(shorten(content.replace('```', ''), WIDTH - 4))}")
            case _:
                continue
    return await handler


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentflow demo",
        description="An agent answers a question over a folder of documents; its trace is printed below the answer.",
        epilog="The model is the one that OPENAI_API_KEY, OPENAI_BASE_URL and AGENTFLOW_MODEL name, else a local "
        "Ollama, else a built-in one that needs no network and only quotes.",
    )
    parser.add_argument("question", nargs="*", help=f"default: {QUESTION}")
    parser.add_argument("--docs", type=Path, default=_documents(), metavar="FOLDER", help="default: this project's")
    parser.add_argument(
        "--export", type=_destination, metavar="WHERE", help="send the trace on, too: phoenix, jaeger, or an OTLP URL"
    )
    return parser


def _destination(text: str) -> str:
    if text in PLACES:
        return text
    with suppress(ValueError):  # what cannot be taken apart is no address either
        url = urlsplit(text)
        if url.scheme in {"http", "https"} and url.hostname:
            return text
    choices = ", ".join(map(repr, PLACES))
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither one of {choices} nor an address such as http://localhost:4318"
    )


def _documents() -> Path:
    """The documents of this project where the package runs from a checkout of it, else the current folder."""
    docs = Path(__file__).parents[2] / "docs"
    return docs if docs.is_dir() else Path()
