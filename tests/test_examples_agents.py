"""The recipes of agents by hand: what they promise beyond what they print."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import select
import sys
from pathlib import Path
from typing import Any

import pytest

from agentflow import Context, StopEvent, WorkflowCancelledByUser
from agentflow_agents import Toolbox
from agentflow_llm import ScriptedModel, ToolCallPart

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> Any:
    """The program, imported."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where annotations of steps are looked up
    spec.loader.exec_module(module)
    return module


code_act = example("code_act")
function_calling = example("function_calling_from_scratch")
react = example("react_from_scratch")


def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


class TestReAct:
    async def ask(self, *replies: str, **limits: int) -> tuple[Any, ScriptedModel]:
        """What comes of it, and the model that was asked."""
        limited = type("Limited", (react.ReAct,), limits)
        with ScriptedModel(replies) as model:
            resources = {react.choose_model: model, react.make_tools: Toolbox([double])}
            return await limited(resources=resources).run(query="What is twice four?"), model

    async def test_the_model_is_told_of_the_tools_and_then_what_they_return(self) -> None:
        answer, model = await self.ask(
            'Thought: I double.\nAction: double\nAction Input: {"number": 4}', "Thought: So.\nAnswer: 8"
        )
        assert (answer.text, answer.turns) == ("8", 2)
        system, question, thought, observation = model.calls[1].messages
        assert "double(number: integer): Twice a number." in system.text
        assert (question.text, thought.role) == ("What is twice four?", "assistant")
        assert (observation.role, observation.text) == ("user", "Observation: 8")
        assert model.calls[0].parameters["stop"] == ["Observation:"]

    @pytest.mark.parametrize(
        ("reply", "observed"),
        [
            ("It is eight.", react.UNREADABLE),
            ("", react.UNREADABLE),
            ("Action: double\nAction Input: four", react.UNREADABLE),
            ("Action: dubble\nAction Input: {}", "There is no tool 'dubble'. Did you mean 'double'?"),
            ('Action: double\nAction Input: {"number": "four"}', "number: "),
        ],
    )
    async def test_what_cannot_be_done_is_an_observation(self, reply: str, observed: str) -> None:
        answer, model = await self.ask(reply, "Answer: 8")
        assert answer.text == "8"
        told = model.calls[1].messages[-1].text
        assert told.startswith("Observation: ")
        assert observed in told

    async def test_the_turns_have_a_bound(self) -> None:
        answer, model = await self.ask("Hm.", "Hm.", "Hm.", most_turns=3)
        assert (answer.text, answer.turns, len(model.calls)) == ("", 3, 3)


class TestFunctionCalling:
    async def ask(self, *replies: Any) -> tuple[Any, ScriptedModel]:
        with ScriptedModel(replies) as model:
            resources = {function_calling.choose_model: model, function_calling.make_tools: Toolbox([double])}
            return await function_calling.FunctionCalling(resources=resources).run(query="Twice?"), model

    async def test_each_call_has_one_result_in_the_order_of_the_calls(self) -> None:
        calls = [ToolCallPart(id=f"call_{n}", name="double", arguments=f'{{"number": {n}}}') for n in range(5)]
        answer, model = await self.ask(calls, [ToolCallPart(id="last", name="no_tool", arguments="{}")], "Done.")
        assert answer.text == "Done."
        _, asked, results, last, failed = model.calls[2].messages
        assert asked.tool_calls == calls
        assert [(part.call_id, part.content) for part in results.tool_results] == [
            (f"call_{n}", str(2 * n)) for n in range(5)
        ]
        assert [part.id for part in last.tool_calls] == ["last"]
        assert [(part.call_id, part.outcome) for part in failed.tool_results] == [("last", "error")]

    def test_only_documents_can_be_read(self) -> None:
        with pytest.raises(function_calling.ToolError, match=r"There is no '\.\./README\.md', only agents\.md"):
            function_calling.count_words("../README.md")


def ends(pid: int) -> bool:
    """Does a process end, whose end was asked for?"""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 30)[0])
    finally:
        os.close(process)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="its limits are those of Linux")
class TestCodeAct:
    async def printed(self, code: str, data: str = "[]", **limits: float) -> str:
        """What the model would be told of a program."""
        flow = type("Limited", (code_act.CodeAct,), limits)()
        told: str = await flow.run_program(code, data)
        return told

    async def test_a_program_has_the_data_and_nothing_of_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        program = "import os\nprint(sum(data), dict(os.environ), os.listdir())"
        told = await self.printed(program, data="[1, 2]")
        assert told.startswith("It printed:\n3 {")
        assert "OPENAI_API_KEY" not in told
        assert told.endswith("} []")

    @pytest.mark.parametrize(
        ("code", "problem"),
        [
            ("print(1 / 0)", "ZeroDivisionError: division by zero\n\nIt ended with status 1."),
            ("this is no Python", "SyntaxError: invalid syntax\n\nIt ended with status 1."),
            ("import sys; sys.exit(3)", "It ended with status 3."),
            ("bytes(2**30)", "MemoryError\n\nIt ended with status 1."),
            ("print('x' * 20_000)", "It printed more than 10000 bytes."),
            ("print('\u00fc' * 20_000)", "It printed more than 10000 bytes."),
            ("open('file', 'w').write('x' * 20_000)", "It ended with status 1."),
            ("import os; os.abort()", "It ended with status -6."),
        ],
    )
    async def test_what_goes_wrong_is_told(self, code: str, problem: str) -> None:
        assert (await self.printed(code)).endswith(problem)

    async def test_no_more_output_is_kept_than_allowed(self) -> None:
        told = await self.printed("while True:\n    print('x' * 99)", most_output=1000)
        assert told.count("x") <= 1000
        assert told.endswith("It printed more than 1000 bytes.")

    async def test_a_program_that_does_not_end_is_ended_with_what_it_printed_and_what_it_started(self) -> None:
        code = "import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid)\nwhile True:\n    pass"
        told = await self.printed(code, most_seconds=0.5)
        assert told.endswith("It was ended after 0.5 seconds.")
        assert ends(int(told.split()[2]))

    async def test_what_a_program_leaves_running_is_ended(self) -> None:
        told = await self.printed("import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid)")
        assert ends(int(told.split()[2]))

    async def test_a_cancelled_run_leaves_no_process(self, tmp_path: Path) -> None:
        started = tmp_path / "started"
        os.mkfifo(started)
        code = f"import os\nopen({str(started)!r}, 'w').write(str(os.getpid()))\nwhile True:\n    pass"
        model = ScriptedModel([f"```python\n{code}\n```"])
        flow = code_act.CodeAct(resources={code_act.choose_model: model})
        handler = flow.run(query="For how long?", data=[], about="nothing")
        pid = int(await asyncio.to_thread(started.read_text))
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler
        assert ends(pid)

    async def test_a_failing_program_goes_back_and_the_turns_have_a_bound(self) -> None:
        replies = ["```python\nprint(nothing)\n```", "```\nprint(len(data))\n```", "There are 3."]
        for most_turns, answer in [(3, "There are 3."), (2, "")]:
            model = ScriptedModel(replies)
            limited = type("Limited", (code_act.CodeAct,), {"most_turns": most_turns})
            flow = limited(resources={code_act.choose_model: model})
            assert (await flow.run(query="How many?", data=[1, 2, 3], about="numbers")).text == answer
            assert len(model.calls) == most_turns
            assert "NameError: name 'nothing' is not defined" in model.calls[1].messages[-1].text
            assert "with a variable `data`: numbers." in model.calls[0].messages[0].text


RUNS = [
    ("citation_query", "CitationQuery", {"query": "Who discovered oxygen, and when?"}),
    ("code_act", "CodeAct", {"query": "How often?", "data": {"an article": ["Who is it?"]}, "about": "questions"}),
    ("corrective_rag", "CorrectiveRAG", {"query": "Who found the gas that we breathe?"}),
    ("function_calling_from_scratch", "FunctionCalling", {"query": 'How many words has "models.md"?'}),
    ("query_rewriting", "QueryRewriting", {"query": "What was Ghandi's work called?"}),
    ("rag_with_rerank", "RAGWithRerank", {"query": "Who was the main crew of Apollo 1?"}),
    ("react_from_scratch", "ReAct", {"query": "How many years?"}),
    ("sub_questions", "SubQuestions", {"query": "In which order?"}),
    ("text_to_sql", "TextToSQL", {"query": "Which five artists have sold the most tracks?"}),
]


@pytest.mark.parametrize(("name", "workflow", "fields"), RUNS, ids=[run[0] for run in RUNS])
async def test_a_run_that_is_put_away_after_every_step_comes_to_the_same_end(
    name: str, workflow: str, fields: dict[str, Any]
) -> None:
    kind = getattr(example(name), workflow)
    async with kind() as flow:
        straight = await flow.run(**fields)
    async with kind() as flow:
        stored = ""
        while True:
            ctx = Context.from_json(flow, stored) if stored else None
            handler = flow.run(ctx=ctx, stepwise=True, **({} if stored else fields))
            produced = await handler.run_step()
            for event in produced:
                handler.ctx.send_event(event)
            if any(isinstance(event, StopEvent) for event in produced):
                break
            stored = handler.ctx.to_json()
            await handler.cancel_run()
            with pytest.raises(WorkflowCancelledByUser):
                await handler
        assert await handler == straight
