"""The bare `openai` client."""

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from peers import Said, Streaming, Talking, Text
from server import MODEL


def call(url: str) -> Talking:
    client = AsyncOpenAI(api_key="none", base_url=url, max_retries=0)

    def about(said: Said) -> Text:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": text} if role == "user" else {"role": "assistant", "content": text}
            for role, text in said
        ]

        async def run() -> str:
            reply = await client.chat.completions.create(model=MODEL, messages=messages)
            return reply.choices[0].message.content or ""

        return run

    return about


call_traced = call  # the goal is a multiple of what nobody watches


def call_spanned(url: str) -> Talking:
    from peers.raw import spanned  # noqa: PLC0415 because others must not pay for OpenTelemetry

    return spanned.call(url)


def stream(url: str) -> Streaming:
    client = AsyncOpenAI(api_key="none", base_url=url, max_retries=0)

    async def run() -> tuple[str, int]:
        chunks = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Talk."}],
            stream=True,
            stream_options={"include_usage": True},
        )
        deltas = [chunk.choices[0].delta.content async for chunk in chunks if chunk.choices]
        pieces = [piece for piece in deltas if piece]
        return "".join(pieces), len(pieces)

    return run


step_stream = stream  # the bare iteration, without step, stream or handler
