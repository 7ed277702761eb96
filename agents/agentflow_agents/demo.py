"""`agentflow demo`: an agent answers a question over a folder of documents, and shows everything that it did.

This is a program, not a library: it brings together what the packages offer each other, as a service would.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
from functools import partial
from pathlib import Path
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Annotated, Any

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
WIDTH = 110
PLACES = {"phoenix": "http://localhost:6006", "jaeger": "http://localhost:16686"}
"""Where one looks at a trace that was sent there."""


class Question(StartEvent):
    """What is asked."""

    query: str


class ModelChosen(Event):
    """Put on the stream: which model answers, and why."""

    reason: str


def read_documents() -> DocumentIndex:
    """The documents of the current folder, unless another is given."""
    return DocumentIndex(Path())


class Librarian(Workflow[Question, AgentResult]):
    """Give an agent the model that the environment names and the documents to search, and ask it."""

    @step
    async def ask(
        self,
        ctx: Context,
        ev: Question,
        chosen: Annotated[Choice, Resource(default_model)],
        documents: Annotated[DocumentIndex, Resource(read_documents)],
    ) -> AgentResult:
        """Let the agent answer. Its run is a child of this step."""
        ctx.write_event_to_stream(ModelChosen(reason=chosen.reason))
        tools = [documents.search_documents, documents.read_document]
        agent = FunctionAgent(tools=tools, llm=chosen.model, system_prompt=PROMPT, name="librarian")
        return await agent.run(ev.query)


def demo(arguments: list[str]) -> int:
    """Run `agentflow demo` with these arguments; returns the exit code."""
    options = _parser().parse_args(arguments)
    return asyncio.run(_demo(options.question, options.docs, options.export))


async def _demo(question: str, folder: Path, export: str | None) -> int:
    # A program may know them all: the packages themselves leave telemetry to whoever runs them.
    from agentflow_instrumentation import ConsoleExporter, setup  # noqa: PLC0415 because the SDK is heavy

    trace = io.StringIO()
    exporters: list[Any] = [ConsoleExporter(trace)]
    endpoint = None
    if export in PLACES:
        exporters.append(export)
    elif export is not None:
        exporters.append("otlp")
        endpoint = export
    telemetry = setup(exporters, endpoint=endpoint, service_name="agentflow-demo", content="full")
    print(f"Question: {question}")
    workflow = Librarian(resources={read_documents: Resource(partial(DocumentIndex, folder))})
    problem = None
    try:
        answer = await _follow(workflow.run(query=question))
        print("", *(fill(line, WIDTH, break_long_words=False) for line in str(answer).splitlines()), sep="\n")
    except AgentflowError as error:
        problem = str(error)
    undelivered = telemetry.shutdown()
    print(f"\nThe trace:\n\n{trace.getvalue().rstrip() or 'is switched off by the environment.'}")
    if export is not None and not undelivered:
        print(f"\nIt was sent to {PLACES.get(export, export)}")
    problems = [problem, *undelivered] if problem else undelivered
    sys.stdout.flush()
    for line in problems:
        print(f"agentflow demo: {line}", file=sys.stderr)
    return int(bool(problems))


async def _follow(handler: Handler[AgentResult]) -> AgentResult:
    """Tell what happens while it happens."""
    async for event in handler.stream_events():
        match event:
            case ModelChosen(reason=reason):
                print(fill(reason, WIDTH, break_long_words=False))
            case ToolCall(name=name, arguments=given):
                print(f"  {name} {given}")
            case ToolResult(name=name, content=content):
                print(f"    {shorten(content, WIDTH - 4)}")
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
    parser.add_argument("question", nargs="?", default=QUESTION, help=f"default: {QUESTION}")
    parser.add_argument("--docs", type=Path, default=_documents(), metavar="FOLDER", help="default: this project's")
    parser.add_argument(
        "--export", type=_destination, metavar="WHERE", help="send the trace on, too: phoenix, jaeger, or an OTLP URL"
    )
    return parser


def _destination(text: str) -> str:
    if text in PLACES or text.startswith(("http://", "https://")):
        return text
    choices = ", ".join(PLACES)
    raise argparse.ArgumentTypeError(f"{text!r} is none of {choices}, and no URL such as http://localhost:4318")


def _documents() -> Path:
    """The documents of this project where the package runs from a checkout of it, else the current folder."""
    docs = Path(__file__).parents[2] / "docs"
    return docs if docs.is_dir() else Path()
