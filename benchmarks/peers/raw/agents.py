"""A loop around the bare `openai` client."""

import json

from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from peers import Text
from stub import MODEL, QUESTION, SYSTEM, Stub

ADD: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}

SPANS: dict[str, int] = {}


def agent(stub: Stub) -> Text:
    client = stub.client()

    def add(a: int, b: int) -> int:
        return a + b

    async def run() -> str:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": QUESTION},
        ]
        while True:
            reply = await client.chat.completions.create(model=MODEL, messages=messages, tools=[ADD])
            message = reply.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                result = add(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})

    return run


agent_traced = agent  # the goal is a multiple of the loop that nobody watches
