#!/usr/bin/env python3
"""Take the pictures in docs/images of a real Phoenix, which must be installed: scripts/backend.py phoenix install.

.venv/bin/python scripts/screenshots.py [FOLDER]

An agent and a RAG agent talk with a reader, over sockets, to a model on this machine that speaks OpenAI's API and only
quotes; another agent waits for an approval. A headless Chromium looks at what Phoenix made of it.
"""

# ruff: noqa: S603 because starting programs that were installed on purpose is what this file is for
# ruff: noqa: T201 because it talks to the person who runs it

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402 because of the path

from agentflow import session  # noqa: E402 because of the path
from agentflow_agents import DocumentIndex, FunctionAgent, RAGAgent  # noqa: E402 because of the path
from agentflow_instrumentation import setup  # noqa: E402 because of the path
from agentflow_llm import OpenAI, Reply, Usage  # noqa: E402 because of the path
from agentflow_llm.memory import ChatMemory  # noqa: E402 because of the path
from agentflow_llm.server import LoopbackServer, offline_answer  # noqa: E402 because of the path
from real import RealPhoenix, Seen, Trace, running_phoenix  # noqa: E402 because of the path
from scenes import pay_later  # noqa: E402 because of the path

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGES = ROOT / "docs" / "images"
PROJECT = "library"
SESSION = "reader-7"
FIRST, SECOND, THIRD = (
    "How does a step wait for a human?",
    "What happens when a run is put away?",
    "When is a step tried again?",
)
SIZE = "1600,1080"
PATIENCE_MS = 20_000


async def talk(model: OpenAI) -> None:
    """An agent searches the documents of this project; then a RAG agent answers two questions of one conversation.

    At last a run is put away while it waits for a person, and goes on.
    """
    with session(SESSION, user="ada"):
        with DocumentIndex(ROOT / "docs", name="docs") as index:
            agent = FunctionAgent([index.search_documents, index.read_document], llm=model, name="librarian")
            await agent.run(FIRST)
        memory = ChatMemory(session=SESSION)
        rag = RAGAgent(str(ROOT / "docs"), llm=model, memory=memory, name="reader")
        await rag.run(SECOND)
        await rag.run(THIRD)
    await pay_later(Path("invoice-7"))


def quote(body: object) -> Reply:
    """What the model says to a request. It has no tokens; four characters stand for one."""
    reply = offline_answer(body)
    asked, answered = len(json.dumps(body)) // 4, len(reply.text) // 4 + 10 * len(reply.tool_calls)
    return reply.model_copy(update={"usage": Usage(input_tokens=asked, output_tokens=answered)})


def record(phoenix: RealPhoenix) -> list[Trace]:
    """What Phoenix shows of it, one trace a question."""
    kept = InMemorySpanExporter()
    with LoopbackServer(["Good morning."]) as server:  # what the first call imports is no time of a model
        asyncio.run(OpenAI("gpt-4o-mini", api_key="none", base_url=server.base_url).acomplete("Hello!"))
    with (
        LoopbackServer(quote) as server,
        setup(["phoenix", kept], endpoint=phoenix.http, service_name=PROJECT, content="full"),
    ):
        asyncio.run(talk(OpenAI("gpt-4o-mini", api_key="none", base_url=server.base_url, provider="openai")))
    traces: dict[str, int] = {}
    for span in kept.get_finished_spans():
        assert span.context
        trace_id = f"{span.context.trace_id:032x}"
        traces[trace_id] = traces.get(trace_id, 0) + 1
    found = [phoenix.trace(trace_id, many) for trace_id, many in traces.items()]
    return sorted(found, key=lambda trace: next(iter(trace.spans.values())).begun)


def page_of(phoenix: RealPhoenix, span: Seen) -> str:
    """The page of a trace, with a span of it opened."""
    told = phoenix.about(span, "id project { id } trace { traceId }")
    return f"projects/{told['project']['id']}/traces/{told['trace']['traceId']}?selectedSpanNodeId={told['id']}"


def session_of(phoenix: RealPhoenix, span: Seen) -> str:
    """The page of the session of a run."""
    told = phoenix.about(span, "project { id } trace { session { id } }")
    return f"projects/{told['project']['id']}/sessions/{told['trace']['session']['id']}"


def photograph(phoenix: RealPhoenix, pages: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write a picture of each page to the folder."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("screenshots.py: needs chromium")
    folder.mkdir(exist_ok=True)

    def take(name: str, page: str) -> None:
        with tempfile.TemporaryDirectory() as profile:
            options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={SIZE}"]
            options += ["--force-prefers-reduced-motion", f"--virtual-time-budget={PATIENCE_MS}"]
            options += [f"--user-data-dir={profile}", f"--screenshot={folder / name}.png"]
            options += [f"http://127.0.0.1:{phoenix.port}/{page}"]
            subprocess.run([browser, *options], check=True, capture_output=True, timeout=180)
        print(folder / f"{name}.png")

    with ThreadPoolExecutor() as pool:  # a browser waits most of the time
        list(pool.map(take, *zip(*pages, strict=True)))


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=IMAGES, help="where the pictures go")
    folder = parser.parse_args().folder
    with running_phoenix() as phoenix:
        first, *later = record(phoenix)
        run = first.named("invoke_agent librarian")
        chat = first.all_named("chat gpt-4o-mini")[0]
        retrieval = next(span for span in later[0].spans.values() if span.name.startswith("retrieval"))
        pages = [
            ("phoenix-trace", page_of(phoenix, run)),
            ("phoenix-chat", page_of(phoenix, chat)),
            ("phoenix-retrieval", page_of(phoenix, retrieval)),
            ("phoenix-session", session_of(phoenix, run)),
            ("phoenix-pause", session_of(phoenix, later[-1].root)),
        ]
        photograph(phoenix, pages, folder)


if __name__ == "__main__":
    main()
