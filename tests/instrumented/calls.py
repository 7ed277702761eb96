"""Calls models of every kind while instrumentors of others are on. Prints the spans of each call as JSON.

`python calls.py MODULE:CLASS...`: the instrumentors that are turned on; or `python calls.py logfire`.
"""

from __future__ import annotations

import json
import logging
import sys
from importlib import import_module
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow import StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, Reply, TextPart, Usage
from agentflow_llm.chat import BaseChatModel
from agentflow_llm.openai import OpenAI
from agentflow_llm.openai_embedder import OpenAIEmbedder
from agentflow_llm.records import ChatCall
from agentflow_llm.responses import OpenAIResponses
from agentflow_llm.server import LoopbackServer

HELLO = [ChatMessage(role="user", content="Hello")]
ANSWER = Reply(
    message=ChatMessage(role="assistant", content=[TextPart(text="Hi")]),
    model="gpt-4o-mini",
    finish_reason="stop",
    usage=Usage(input_tokens=7, output_tokens=2),
)
exporter = InMemorySpanExporter()


class OwnModel(BaseChatModel):
    """A model of the user's own, which calls the vendor's client as everybody does."""

    def __init__(self, client: Any) -> None:
        super().__init__("gpt-4o-mini", "openai")
        self._client = client

    async def answer(self, call: ChatCall) -> Reply:
        """Answer once."""
        said = await ask(self._client)
        usage = Usage(input_tokens=said.usage.prompt_tokens, output_tokens=said.usage.completion_tokens)
        message = ChatMessage(role="assistant", content=[TextPart(text=said.choices[0].message.content)])
        return Reply(message=message, model=said.model, usage=usage)


class Calls(Workflow):
    """Makes a call of each kind."""

    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        """In a step, as users do."""
        openai = import_module("openai")
        told: dict[str, Any] = {}
        with LoopbackServer(lambda _: ANSWER) as server:
            where: dict[str, Any] = {"api_key": "none", "base_url": server.base_url}
            client = openai.AsyncOpenAI(**where)
            chat, responses = OpenAI("gpt-4o-mini", **where), OpenAIResponses("gpt-4o-mini", **where)
            embedder = OpenAIEmbedder("text-embedding-3-small", **where)
            exporter.clear()
            await chat.chat(HELLO)
            told["chat"] = taken()
            async for _ in chat.stream(HELLO):
                pass
            told["chat, streamed"] = taken()
            await responses.chat(HELLO)
            told["responses"] = taken()
            async for _ in responses.stream(HELLO):
                pass
            told["responses, streamed"] = taken()
            await embedder.embed(["a", "b"])
            told["embeddings"] = taken()
            await OwnModel(client).chat(HELLO)
            told["a model of the user's own"] = taken()
            await ask(client)
            told["the client itself"] = taken()
            for one in (chat, responses, embedder):
                await one.aclose()
            await client.close()
        return StopEvent(result=told)


async def ask(client: Any) -> Any:
    """As the vendor's documentation has it."""
    return await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])


def taken() -> list[dict[str, Any]]:
    """The spans since this was last called."""
    spans = exporter.get_finished_spans()
    exporter.clear()
    named = {span.context.span_id: span.name for span in spans if span.context}
    return [
        {
            "name": span.name,
            "scope": span.instrumentation_scope.name if span.instrumentation_scope else "",
            "parent": named.get(span.parent.span_id, "above") if span.parent else None,
            "input": [v for k, v in (span.attributes or {}).items() if k in INPUT],
        }
        for span in spans
        if not span.name.startswith("event ")
    ]


INPUT = {"gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"}


def main() -> None:
    """Turn them on, call, tell."""
    logging.basicConfig(level=logging.WARNING)
    processor = SimpleSpanProcessor(exporter)
    if sys.argv[1:] == ["logfire"]:
        logfire = import_module("logfire")
        logfire.configure(send_to_logfire=False, console=False, additional_span_processors=[processor])
        logfire.instrument_openai()
        print(json.dumps(Calls().run_sync()))  # noqa: T201 because the test reads it
        return
    provider = TracerProvider()
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    for name in sys.argv[1:]:
        module, _, kind = name.partition(":")
        getattr(import_module(module), kind)().instrument()
    print(json.dumps(Calls().run_sync()))  # noqa: T201 because the test reads it


main()
