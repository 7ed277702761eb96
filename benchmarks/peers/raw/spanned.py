"""The loop and the call around the bare `openai` client, with the spans, made by hand, that agentflow makes."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, format_span_id

from peers import Said, Talking, Text
from peers.raw.agents import ADD, beginning
from server import MODEL
from stub import Endpoint

NAME = "Adder"


class Spans:
    """Those of one run."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self.tracer = tracer
        self.run_id = str(uuid4())
        self.sender = ""
        self.sent_at = 0

    def facts(self) -> dict[str, str]:
        return {
            "openinference.span.kind": "CHAIN",
            "agentflow.run.id": self.run_id,
            "agentflow.workflow.name": NAME,
        }

    @contextmanager
    def run(self) -> Iterator[None]:
        facts = {
            "openinference.span.kind": "AGENT",
            "agentflow.run.id": self.run_id,
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": NAME,
            "gen_ai.workflow.name": NAME,
            "agentflow.segment": 1,
            "session.id": self.run_id,
        }
        with self.tracer.start_as_current_span(f"invoke_agent {NAME}", attributes=facts) as span:
            yield
            span.set_attributes({"agentflow.outcome": "ok", "agentflow.agent.stopped_by": "answer"})

    def send(self, kind: str) -> Span:
        self.sent_at = time.time_ns()
        return self.tracer.start_span(f"event {kind}", attributes={**self.facts(), "agentflow.event.type": kind})

    @contextmanager
    def step(self, name: str, kind: str, event: Span) -> Iterator[Span]:
        event.set_attribute("agentflow.outcome", "ok")
        event.end()
        context = event.get_span_context()
        facts = {
            **self.facts(),
            "agentflow.step.name": name,
            "agentflow.step.attempt": 1,
            "agentflow.event.type": kind,
            "agentflow.queue.wait": (time.time_ns() - self.sent_at) / 1e9,
            "agentflow.triggered_by": (f"{self.sender}{kind} {format_span_id(context.span_id)}",),
        }
        with self.tracer.start_as_current_span(f"step {name}", attributes=facts, links=(Link(context),)) as span:
            yield span
            span.set_attribute("agentflow.outcome", "ok")
        self.sender = f"{name}:"

    @contextmanager
    def chat(self, messages: list[ChatCompletionMessageParam]) -> Iterator[Span]:
        facts = {
            **asked(messages),
            "agentflow.run.id": self.run_id,
            "agentflow.chat.tools": 1,
            "session.id": self.run_id,
        }
        with self.tracer.start_as_current_span(f"chat {MODEL}", kind=SpanKind.CLIENT, attributes=facts) as span:
            yield span

    @contextmanager
    def tool(self, call_id: str, arguments: str) -> Iterator[Span]:
        facts = {
            "openinference.span.kind": "TOOL",
            "gen_ai.operation.name": "execute_tool",
            "agentflow.run.id": self.run_id,
            "gen_ai.tool.name": "add",
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call_id,
            "agentflow.tool.arguments.size": len(arguments),
            "gen_ai.tool.description": "Add two numbers.",
        }
        with self.tracer.start_as_current_span("execute_tool add", attributes=facts) as span:
            yield span


def asked(messages: list[ChatCompletionMessageParam]) -> dict[str, str | int]:
    return {
        "openinference.span.kind": "LLM",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "server.address": "localhost",
        "server.port": 80,
        "agentflow.chat.input.messages": len(messages),
        "agentflow.chat.input.size": sum(len(str(message.get("content") or "")) for message in messages),
    }


def answered(span: Span, reply: ChatCompletion) -> None:
    message, usage = reply.choices[0].message, reply.usage
    span.set_attributes(
        {
            "agentflow.outcome": "ok",
            "agentflow.llm.http_requests": 1,
            "gen_ai.response.model": reply.model,
            "gen_ai.usage.input_tokens": usage.prompt_tokens if usage else 0,
            "gen_ai.usage.output_tokens": usage.completion_tokens if usage else 0,
            "gen_ai.response.id": reply.id,
            "gen_ai.response.finish_reasons": (reply.choices[0].finish_reason,),
            "agentflow.chat.output.size": len(message.content or ""),
        }
    )
    if message.tool_calls:
        span.set_attribute("agentflow.chat.output.tool_calls", len(message.tool_calls))


def agent(endpoint: Endpoint) -> Text:
    tracer = trace.get_tracer("by hand")
    client = endpoint.client()

    async def add(a: int, b: int) -> int:
        return a + b

    async def run() -> str:
        spans = Spans(tracer)
        with spans.run():
            with spans.step("prepare", "Input", spans.send("Input")):
                messages = beginning()
                turn = spans.send("Turn")
            while True:
                with spans.step("call_model", "Turn", turn) as step:
                    with spans.chat(messages) as chat:
                        reply = await client.chat.completions.create(model=MODEL, messages=messages, tools=[ADD])
                        answered(chat, reply)
                    message = reply.choices[0].message
                    step.add_event("event_streamed", {"agentflow.event.type": "Answered"})
                    step.set_attribute("agentflow.stream.events", 1)
                    sent = spans.send("ToolCall" if message.tool_calls else "Finished")
                if not message.tool_calls:
                    with spans.step("answer", "Finished", sent):
                        return message.content or ""
                messages.append(message.model_dump(exclude_none=True))
                for call in message.tool_calls:
                    with spans.step("call_tool", "ToolCall", sent) as step:
                        arguments = call.function.arguments
                        with spans.tool(call.id, arguments) as tool:
                            result = str(await add(**json.loads(arguments)))
                            tool.set_attributes(
                                {
                                    "agentflow.outcome": "ok",
                                    "agentflow.tool.outcome": "ok",
                                    "agentflow.tool.result.size": len(result),
                                }
                            )
                        step.add_event("event_streamed", {"agentflow.event.type": "Called"})
                        step.set_attribute("agentflow.stream.events", 1)
                        sent = spans.send("ToolResult")
                    with spans.step("collect_results", "ToolResult", sent) as step:
                        step.set_attribute("agentflow.collected.count", 1)
                        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
                        turn = spans.send("Turn")

    return run


def call(url: str) -> Talking:
    tracer = trace.get_tracer("by hand")
    client = AsyncOpenAI(api_key="none", base_url=url, max_retries=0)

    def about(said: Said) -> Text:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": text} if role == "user" else {"role": "assistant", "content": text}
            for role, text in said
        ]

        async def run() -> str:
            facts = asked(messages)
            with tracer.start_as_current_span(f"chat {MODEL}", kind=SpanKind.CLIENT, attributes=facts) as span:
                reply = await client.chat.completions.create(model=MODEL, messages=messages)
                answered(span, reply)
            return reply.choices[0].message.content or ""

        return run

    return about
