"""What the user says, wherever it is said: without content none of it goes out, with content no secret in it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, Field, SecretStr

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from agentflow.observe import Kind, add_observer, operation
from agentflow_agents import ApprovalRequired, FunctionAgent, ReActAgent, tool
from agentflow_agents.errors import ToolError
from agentflow_agents.rag_agent import RAGAgent
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.content import Content
from agentflow_instrumentation.redactors import Redactor
from agentflow_llm import ChatMemory, ChatMessage, Document, ImagePart, ScriptedModel, TextPart, ToolCallPart
from agentflow_llm.messages import Reply, ToolDefinition
from agentflow_llm.records import ChatCall, EmbeddingsCall, Passage, RerankCall, RetrievalCall

WORD = "Zaphodbeeblebrox"
KEY = "sk-proj-abcdefghijklmnop1234"
SAID = f"{WORD} {KEY}"
SPAN = 256 * 1024
Spans = Callable[[], Sequence[ReadableSpan]]


def watch(
    content: Content | None = None, *redactors: Redactor, limits: SpanLimits | None = None
) -> Callable[[], Sequence[ReadableSpan]]:
    """Make spans from now on; returns those that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, span_limits=limits)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider, content=content, redactors=redactors))
    return exporter.get_finished_spans


def whole(spans: Sequence[ReadableSpan]) -> str:
    """All that went out."""
    return "\n".join(str(span.to_json()) for span in spans)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def weight(attributes: Mapping[str, Any] | None) -> int:
    return sum(len(str(name)) + len(str(value).encode()) for name, value in (attributes or {}).items())


JSON_OF_THE_CONVENTIONS = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.tool.definitions",
    "gen_ai.retrieval.documents",
)


def check_whole(spans: Sequence[ReadableSpan]) -> None:
    """What should be JSON parses, and no span is larger than it may be."""
    for span in spans:
        told = facts(span)
        for name in JSON_OF_THE_CONVENTIONS:
            json.loads(told.get(name, "[]"), parse_constant=pytest.fail)
        for side in ("input", "output"):
            if told.get(f"{side}.mime_type") == "application/json":
                json.loads(told[f"{side}.value"], parse_constant=pytest.fail)
        assert weight(told) + sum(weight(event.attributes) for event in span.events) <= SPAN


# where a person or a model can say something


@tool
async def echo(text: str) -> str:
    """Say it again."""
    return text


@tool
async def explode(text: str) -> str:
    """Fail."""
    cause = LookupError(text)
    cause.add_note(text)
    raise RuntimeError(text) from cause


@tool
async def complain(text: str) -> str:
    """Fail, and tell the model."""
    raise ToolError(text)


@tool(requires_approval=True)
async def dare(text: str) -> str:
    """Do something that a person has to approve of."""
    return text


def call(name: str, number: int, arguments: str | None = None) -> ToolCallPart:
    return ToolCallPart(id=str(number), name=name, arguments=arguments or json.dumps({"text": SAID, SAID: [SAID]}))


async def function_agent() -> None:
    text = json.dumps({"text": SAID})
    calls = [
        *(call("echo", 1, text), call("explode", 2, text), call("complain", 3, text), call("echo", 4)),
        *(call("echo", 5, SAID), call(SAID, 6), call("dare", 7, text)),
    ]
    model = ScriptedModel([calls, f"Well, {SAID}."])
    agent = FunctionAgent([echo, explode, complain, dare], model, system_prompt=f"You are {SAID}.", memory=ChatMemory())
    handler = agent.run(SAID)
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            handler.ctx.send_event(event.refuse(f"because {SAID}"))
    assert WORD in str(await handler)


async def react_agent() -> None:
    text = json.dumps({"text": SAID})
    model = ScriptedModel(
        [
            f"Thought: {SAID}\nAction: echo\nAction Input: {text}",
            f"Thought: {SAID}\nAction: explode\nAction Input: {text}",
            f"Thought: {SAID}\nAction: {WORD}\nAction Input: {text}",
            f"Thought: done {SAID}\nAnswer: {SAID}",
        ]
    )
    assert WORD in str(await ReActAgent([echo, explode], model).run(SAID))


async def rag_agent() -> None:
    farm = [Document(f"A cat named {SAID} sleeps a lot.", "cats", {"owner": SAID, SAID: SAID})]
    answer = f"A cat named {SAID} sleeps a lot [1]."
    await RAGAgent(farm, llm=ScriptedModel([answer, answer, answer])).run(f"How long does {SAID} sleep?")


class Login(BaseModel):
    user: str = SAID
    password: SecretStr = SecretStr(WORD)
    pin: str = Field(default=WORD, repr=False)


class Told(Event):
    text: str
    login: Login = Login()
    more: dict[str, Any] = Field(default_factory=dict)


class Asked(InputRequiredEvent):
    text: str = SAID


def broken() -> str:
    raise ConnectionError(SAID)


class Everything(Workflow):
    """Has the words in events, state, the stream, a question, errors that are tried again, and its result."""

    failed = False

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Told:
        await ctx.store.set("said", SAID)
        ctx.write_event_to_stream(Told(text=SAID))
        answer = await ctx.wait_for_event(HumanResponseEvent, waiter_event=Asked(), requirements={"said": SAID})
        return Told(text=answer.said, more={SAID: [SAID, {"deep": SAID}]})

    @step(retry_policy=Retry(attempts=2, wait=0))
    async def fail_once(self, ev: Told) -> StopEvent:
        if not self.failed:
            self.failed = True
            raise ValueError(SAID) from LookupError(SAID)
        return StopEvent(result={"said": SAID, "list": [SAID]})


class Failing(Workflow):
    @step
    async def fail(self, ev: StartEvent) -> StopEvent:
        error = ExceptionGroup(SAID, [ValueError(SAID), KeyError(SAID)])
        error.add_note(SAID)
        raise error


class Unfit(Workflow):
    @step
    async def fail(self, ev: StartEvent, db: Annotated[str, Resource(broken)]) -> StopEvent:
        return StopEvent()


async def workflow() -> None:
    handler = Everything().run(start_event=StartEvent(text=SAID, login=Login(), **{SAID: SAID}))
    async for event in handler.stream_events():
        if isinstance(event, Asked):
            handler.ctx.send_event(HumanResponseEvent(said=SAID))
    assert WORD in str(await handler)
    with pytest.raises(ExceptionGroup):
        await Failing().run(text=SAID)
    with pytest.raises(Exception, match=WORD):
        await Unfit().run(text=SAID)


SAYING = pytest.mark.parametrize("say", [function_agent, react_agent, rag_agent, workflow])


@SAYING
async def test_without_content_nothing_that_was_said_goes_out(say: Callable[[], Any]) -> None:
    spans = watch("none")
    await say()
    assert len(spans()) > 3
    assert "Zaphod" not in whole(spans())
    assert KEY not in whole(spans())


@SAYING
@pytest.mark.parametrize("content", ["preview", "full"])
async def test_with_content_it_goes_out_and_the_secrets_in_it_do_not(say: Callable[[], Any], content: Content) -> None:
    spans = watch(content)
    await say()
    told = whole(spans())
    assert WORD in told
    assert KEY not in told
    assert "abcdefghijklmnop" not in told
    check_whole(spans())


async def test_fields_that_are_secret_by_their_class_do_not_go_out() -> None:
    spans = watch("full")

    class Greeting(Workflow):
        @step
        async def greet(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=Login(user="Ann"))

    await Greeting().run(login=Login(user="Ann"))
    assert "Ann" in whole(spans())
    assert WORD not in whole(spans())


# what the environment hides

PARTS = ["question", "answer", "argument", "result", "asked", "found", "vectorised", "tooling", "picture", "metadata"]
CHATTED = {"question", "answer", "tooling", "picture"}


def said_to_clients() -> None:
    """One call of each kind, each with words of its own."""
    call = ChatCall(
        "openai",
        "tiny",
        [ChatMessage(role="user", content=(TextPart(text="question"), ImagePart(url="https://x.example/picture")))],
        [ToolDefinition(name="t", description="tooling")],
        {"temperature": 0.5},
    )
    with operation(Kind.CHAT, "tiny", call) as seen:
        assert seen
        seen.op.result = Reply(message=ChatMessage(role="assistant", content="answer"))
    with operation(Kind.EMBEDDINGS, "vec", EmbeddingsCall("openai", "vec", ["vectorised"])):
        pass
    found = [Passage("id-of-it", "found", 1.0, {"k": "metadata"})]
    with operation(Kind.RETRIEVAL, "docs", RetrievalCall("docs", "asked", 3)) as seen:
        assert seen
        seen.op.result = found
    with operation(Kind.RERANK, "judge", RerankCall("judge", "asked", found, 3)) as seen:
        assert seen
        seen.op.result = found


@pytest.mark.parametrize(
    ("variable", "hidden"),
    [
        ("HIDE_INPUTS", {"question", "asked", "vectorised", "tooling", "picture"}),
        ("HIDE_OUTPUTS", {"answer", "metadata"}),
        ("HIDE_INPUT_MESSAGES", {"question", "picture", "vectorised"}),
        ("HIDE_OUTPUT_MESSAGES", {"answer"}),
        ("HIDE_PROMPTS", {"question", "picture", "vectorised"}),
        ("HIDE_CHOICES", {"answer"}),
        ("HIDE_INPUT_IMAGES", {"picture"}),
        ("HIDE_INPUT_TEXT", {"question", "vectorised"}),
        ("HIDE_OUTPUT_TEXT", {"answer"}),
        ("HIDE_LLM_TOOLS", {"tooling"}),
        ("HIDE_LLM_INVOCATION_PARAMETERS", {"temperature"}),
        ("HIDE_EMBEDDINGS_TEXT", {"vectorised"}),
        ("HIDE_EMBEDDINGS_VECTORS", set[str]()),
        ("HIDE_RETRIEVAL_DOCUMENTS", {"found", "metadata"}),
        ("NOTHING", set[str]()),
    ],
)
def test_what_openinference_hides_is_hidden(variable: str, hidden: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"OPENINFERENCE_{variable}", "true")
    spans = watch("full")
    monkeypatch.undo()  # it was read when the observer was made
    said_to_clients()
    told = whole(spans())
    every = {"question", "answer", "asked", "found", "vectorised", "tooling", "picture", "metadata", "temperature"}
    assert {word for word in every if word not in told} == hidden
    if variable not in {"HIDE_INPUTS", "HIDE_OUTPUTS"}:
        assert "id-of-it" in told
    check_whole(spans())


@pytest.mark.parametrize(
    ("says", "goes_out"),
    [
        *(("NO_CONTENT", False), ("EVENT_ONLY", False), ("SPAN_ONLY", True), ("SPAN_AND_EVENT", True)),
        *(("span_and_event", True), ("true", True), ("false", False), ("", False), ("nonsense", False)),
    ],
)
def test_the_standard_variable_says_whether_content_goes_out_and_code_beats_it(
    says: str, monkeypatch: pytest.MonkeyPatch, *, goes_out: bool
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", says)
    spans, silent, loud = watch(), watch("none"), watch("preview")
    said_to_clients()
    assert ("question" in whole(spans())) is goes_out
    assert "question" not in whole(silent())
    assert "question" in whole(loud())


# how much


def chat(*messages: ChatMessage, tools: Sequence[ToolDefinition] = (), notes: int = 0) -> None:
    with operation(Kind.CHAT, "tiny", ChatCall("openai", "tiny", messages, tools)) as seen:
        assert seen
        for number in range(notes):
            seen.note(f"note{number // 32}", {"text": "x" * 2000})
        seen.op.result = Reply(message=ChatMessage(role="assistant", content="y" * 100_000))


def test_a_span_holds_256_kilobytes_at_most_whatever_it_is_told() -> None:
    spans = watch("full")
    many = [ChatMessage(role="user", content="x" * 100_000) for _ in range(100)]
    tools = [ToolDefinition(name=f"t{number}", description="z" * 9000) for number in range(100)]
    chat(*many, tools=tools, notes=125)
    [span] = spans()
    check_whole(spans())
    assert facts(span)["agentflow.content.truncated"] is True
    assert weight(facts(span)) + sum(weight(event.attributes) for event in span.events) > 220 * 1024


def test_without_content_every_error_has_its_stack_however_many_there_were() -> None:
    spans = watch("none")
    for _ in range(500):
        with pytest.raises(ValueError, match=WORD), operation(Kind.TOOL, "t"):
            raise ValueError(WORD)
    stacks = {str((span.events[0].attributes or {})["exception.stacktrace"]) for span in spans()}
    assert len(stacks) == 1
    assert "raise ValueError(WORD)" in stacks.pop()
    assert not any("agentflow.content.truncated" in facts(span) for span in spans())


def test_what_is_whole_is_not_called_cut() -> None:
    spans = watch("full")
    with operation(Kind.CHAT, "tiny", ChatCall("openai", "tiny", [ChatMessage(role="user", content="x" * 5000)])):
        pass
    assert "agentflow.content.truncated" not in facts(spans()[0])
    assert len(facts(spans()[0])["input.value"].encode()) == 1024


@pytest.mark.parametrize("longest", [16, 64, 100, 333, 5000])
def test_where_the_provider_cuts_attributes_we_cut_them_first_inside_their_structure(longest: int) -> None:
    spans = watch("full", limits=SpanLimits(max_attribute_length=longest))
    said_to_clients()
    chat(
        *[ChatMessage(role="user", content="x" * 10_000)] * 3, tools=[ToolDefinition(name="t", description="z" * 9000)]
    )
    with operation(Kind.RETRIEVAL, "docs", RetrievalCall("docs", "asked", 3)) as seen:
        assert seen
        seen.op.result = [Passage("1", "é" * 10_000, 1.0, {"k" * 300: "v" * 9000})]
    check_whole(spans())
    assert all(len(value) <= longest for span in spans() for value in facts(span).values() if isinstance(value, str))


def test_the_limit_of_the_environment_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "100")
    spans = watch("full")
    chat(*[ChatMessage(role="user", content="x" * 10_000)] * 3)
    check_whole(spans())
    assert all(len(value) <= 100 for value in facts(spans()[0]).values() if isinstance(value, str))
