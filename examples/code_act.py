"""CodeAct: the model writes Python instead of calling tools, the workflow runs it, and what fails goes back to it.

    python examples/code_act.py

A program runs in a process of its own, without our environment, in an empty folder, within limits of time, memory and
output. THAT IS NO SANDBOX: it may read files, use the network, start processes. What you do not trust belongs into a
container or a virtual machine. It needs Linux. The programs that a model would write, one of them wrong, are written
down below; they run over 612 real questions (XQuAD).
"""

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Annotated, Any

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, ChatModel, ScriptedModel

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "With which words do the questions begin most often?"
TASK = """Answer by writing Python programs, each in a block: ```python ... ```. You are told what a program prints.
Each begins anew, with a variable `data`: {about}. When you know the answer, write it without a block.

{query}"""
LIMITED = """
import json, resource, sys
_, code, seconds, memory, output = sys.argv
for limit, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, output)):
    resource.setrlimit(limit, (int(most), int(most)))
exec(compile(code, "program", "exec"), {"__name__": "__main__", "data": json.load(sys.stdin)})
"""
WRONG = "counts = {}\nfor question in data['questions']:\n    word = question.split()[0]"
RIGHT = """\
from collections import Counter
counts = Counter(question.split()[0].lower() for questions in data.values() for question in questions)
print(*[f"{word} {count}" for word, count in counts.most_common(3)], sep=", ")"""


def choose_model() -> ChatModel:
    """Your own: `OpenAI("gpt-4o-mini")`."""
    return ScriptedModel(
        [
            f"I count the first words.\n```python\n{WRONG}\n```",
            f"So `data` is by article.\n```python\n{RIGHT}\n```",
            lambda messages: f"With these, and so often: {messages[-1].text.removeprefix('It printed:').strip()}.",
        ]
    )


class Question(StartEvent):
    query: str
    data: Any
    about: str


class Program(Event):
    """What the model wrote. Shown on the stream, as is what came of it."""

    code: str
    messages: list[ChatMessage]


class Ran(Event):
    told: str
    messages: list[ChatMessage]


class Answer(StopEvent):
    """`text` is empty where the turns did not suffice."""

    text: str


class CodeAct(Workflow[Question, Answer]):
    most_turns = 5
    most_seconds = 5.0
    most_memory = 512 * 2**20  # bytes
    most_output = 10_000  # bytes

    @step
    async def think(
        self, ctx: Context, ev: Question | Ran, llm: Annotated[ChatModel, Resource(choose_model)]
    ) -> Program | Answer:
        if isinstance(ev, Question):
            await ctx.set("data", json.dumps(ev.data))
            before, told = list[ChatMessage](), TASK.format(query=ev.query, about=ev.about)
        else:
            before, told = ev.messages, ev.told
        if len(before) // 2 == self.most_turns:
            return Answer(text="")
        messages = [*before, ChatMessage(role="user", content=told)]
        reply = await llm.chat(messages)
        block = re.search(r"```(?:python)?\n(.*?)```", reply.text, re.DOTALL)
        return Program(code=block[1], messages=[*messages, reply.message]) if block else Answer(text=reply.text)

    @step
    async def execute(self, ctx: Context, ev: Program) -> Ran:
        ctx.write_event_to_stream(ev)
        ran = Ran(told=await self.run_program(ev.code, await ctx.get("data")), messages=ev.messages)
        ctx.write_event_to_stream(ran)
        return ran

    async def run_program(self, code: str, data: str) -> str:
        limits = [str(int(self.most_seconds) + 1), str(self.most_memory), str(self.most_output)]
        command = [sys.executable, "-I", "-S", "-u", "-X", "utf8", "-c", LIMITED, code, *limits]
        problem = ""
        with TemporaryDirectory() as folder, TemporaryFile() as given, TemporaryFile() as output:
            given.write(data.encode())
            given.seek(0)
            process = await asyncio.create_subprocess_exec(
                *command, stdin=given, stdout=output, stderr=output, cwd=folder, env={}, start_new_session=True
            )
            try:
                async with asyncio.timeout(self.most_seconds):
                    status = await process.wait()
                    problem = f"It ended with status {status}." if status else ""
            except TimeoutError:
                problem = f"It was ended after {self.most_seconds} seconds."
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and with it what it has started
                await process.wait()
            output.seek(0)
            printed = output.read()
        if len(printed) >= self.most_output:
            problem = f"It printed more than {self.most_output} bytes."
        return f"It printed:\n{printed.decode(errors='replace')}\n{problem}".strip()


async def main() -> None:
    articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    asked = {a["title"]: [qa["question"] for paragraph in a["paragraphs"] for qa in paragraph["qas"]] for a in articles}
    handler = CodeAct().run(query=QUESTION, data=asked, about="questions about articles")
    print(QUESTION)
    async for event in handler.stream_events():
        if isinstance(event, Program | Ran):
            print(f"\n{event.code}" if isinstance(event, Program) else f"    {event.told}".replace("\n", "\n    "))
    print(f"\n{(await handler).text}")


if __name__ == "__main__":
    asyncio.run(main())
