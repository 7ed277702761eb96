"""The Chat Completions client."""

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, OpenAI
from peers import Said, Streaming, Talking, Text
from server import MODEL

TALK = [ChatMessage(role="user", content="Talk.")]


def call(url: str) -> Talking:
    model = OpenAI(MODEL, api_key="none", base_url=url, retry=None)

    def about(said: Said) -> Text:
        messages = [ChatMessage(role="user" if role == "user" else "assistant", content=text) for role, text in said]

        async def run() -> str:
            return (await model.chat(messages)).text

        return run

    return about


call_traced = call
call_spanned = call


def stream(url: str) -> Streaming:
    model = OpenAI(MODEL, api_key="none", base_url=url, retry=None)

    async def run() -> tuple[str, int]:
        pieces = [delta.text async for delta in model.stream(TALK)]
        return "".join(pieces), len(pieces)

    return run


class Piece(Event):
    """A piece of the answer."""

    text: str


class Talk(Workflow):
    """One step, which streams."""

    def __init__(self, model: OpenAI) -> None:
        super().__init__()
        self.model = model

    @step
    async def talk(self, ctx: Context, ev: StartEvent) -> StopEvent:
        async for delta in self.model.stream(TALK):
            ctx.write_event_to_stream(Piece(text=delta.text))
        return StopEvent()


def step_stream(url: str) -> Streaming:
    workflow = Talk(OpenAI(MODEL, api_key="none", base_url=url, retry=None))

    async def run() -> tuple[str, int]:
        handler = workflow.run()
        pieces = [event.text async for event in handler.stream_events() if isinstance(event, Piece)]
        await handler
        return "".join(pieces), len(pieces)

    return run
