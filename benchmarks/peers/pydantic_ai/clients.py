"""pydantic-ai's OpenAIChatModel through its direct interface."""

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    UserPromptPart,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from peers import Said, Streaming, Talking, Text
from server import MODEL


def client(url: str) -> OpenAIChatModel:
    bare = AsyncOpenAI(api_key="none", base_url=url, max_retries=0)
    return OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=bare))


def call(url: str, *, instrument: bool = False) -> Talking:
    model = client(url)

    def about(said: Said) -> Text:
        messages = [
            ModelRequest(parts=[UserPromptPart(text)])
            if role == "user"
            else ModelResponse(parts=[TextPart(text)], model_name=MODEL)
            for role, text in said
        ]

        async def run() -> str:
            reply = await model_request(model, messages, instrument=instrument)
            return "".join(part.content for part in reply.parts if isinstance(part, TextPart))

        return run

    return about


def call_traced(url: str) -> Talking:
    return call(url, instrument=True)


def stream(url: str) -> Streaming:
    model = client(url)

    async def run() -> tuple[str, int]:
        pieces = []
        async with model_request_stream(model, [ModelRequest(parts=[UserPromptPart("Talk.")])]) as events:
            async for event in events:
                match event:
                    case PartStartEvent(part=TextPart(content=piece)) if piece:
                        pieces.append(piece)
                    case PartDeltaEvent(delta=TextPartDelta(content_delta=piece)) if piece:
                        pieces.append(piece)
        return "".join(pieces), len(pieces)

    return run


def step_stream(url: str) -> Streaming:
    agent = Agent(client(url))

    async def run() -> tuple[str, int]:
        async with agent.run_stream("Talk.") as result:
            pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        return "".join(pieces), len(pieces)

    return run
