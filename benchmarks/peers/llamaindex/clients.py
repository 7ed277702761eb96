"""llama-index's OpenAI, and its workflow."""

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from peers import Said, Streaming, Talking, Text
from peers.llamaindex.traces import instrument
from server import MODEL

SIZES: dict[str, dict[str, int]] = {"step_stream": {"streams": 1}}


def client(url: str) -> OpenAI:
    return OpenAI(model=MODEL, api_key="none", api_base=url, max_retries=0)


def call(url: str) -> Talking:
    llm = client(url)

    def about(said: Said) -> Text:
        messages = [ChatMessage(role=role, content=text) for role, text in said]

        async def run() -> str:
            return (await llm.achat(messages)).message.content or ""

        return run

    return about


def call_traced(url: str) -> Talking:
    instrument()
    return call(url)


def stream(url: str) -> Streaming:
    llm = client(url)

    async def run() -> tuple[str, int]:
        chunks = await llm.astream_chat([ChatMessage(role="user", content="Talk.")])
        pieces = [chunk.delta async for chunk in chunks if chunk.delta]
        return "".join(pieces), len(pieces)

    return run


class Piece(Event):
    """A piece of the answer."""

    text: str


class Talk(Workflow):
    """One step, which streams."""

    def __init__(self, llm: OpenAI) -> None:
        super().__init__(timeout=None)
        self.llm = llm

    @step
    async def talk(self, ctx: Context, ev: StartEvent) -> StopEvent:
        async for chunk in await self.llm.astream_chat([ChatMessage(role="user", content="Talk.")]):
            if chunk.delta:
                ctx.write_event_to_stream(Piece(text=chunk.delta))
        return StopEvent()


def step_stream(url: str) -> Streaming:
    workflow = Talk(client(url))

    async def run() -> tuple[str, int]:
        handler = workflow.run()
        pieces = [event.text async for event in handler.stream_events() if isinstance(event, Piece)]
        await handler
        return "".join(pieces), len(pieces)

    return run
