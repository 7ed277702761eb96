"""What agents and their runs may be given: what is not known is refused, with what was meant."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agentflow_agents import AgentConfigurationError, FunctionAgent, ReActAgent
from agentflow_llm import ChatMessage, ScriptedModel


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"model": "gpt-4o"}, "FunctionAgent has no option 'model'. It is llm=... here. There are budget,"),
        ({"max_turns": 3}, "no option 'max_turns'. It is budget=Budget(turns=10) here."),
        ({"output_cls": dict}, "no option 'output_cls'. It is output=... here."),
        ({"promts": {}}, "no option 'promts'. Did you mean prompts=...?"),
        ({"zebra": 1}, "no option 'zebra'. There are"),
        ({"prompts": "be kind"}, "FunctionAgent(prompts='be kind'): it must be a mapping of names to texts."),
    ],
)
def test_an_unknown_option_is_refused(option: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentConfigurationError, match=re.escape(said)):
        FunctionAgent(**option)


@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"user_msg": "x"}, "has no option 'user_msg'. It is query=... here."),
        ({"query": "x", "chat_history": []}, "has no option 'chat_history'. It is history=... here."),
        ({"query": "x", "histroy": []}, "has no option 'histroy'. Did you mean history=...?"),
        ({"query": "x", "memory": None}, "has no option 'memory'. It is memory=... of the agent here."),
        ({"query": "x", "max_iterations": 3}, "It is budget=Budget(turns=10) of the agent here."),
    ],
)
def test_an_unknown_option_of_a_run_is_refused(kind: type[FunctionAgent], given: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentConfigurationError, match=re.escape(said)):
        _ = kind(llm=ScriptedModel([])).run(**given)


@pytest.mark.parametrize("query", [[ChatMessage(role="user", content="x")], ChatMessage(role="user", content="x"), 3])
def test_a_question_is_a_text(query: Any) -> None:
    with pytest.raises(AgentConfigurationError, match=r"it must be a text\. What was said before goes into history="):
        _ = FunctionAgent(llm=ScriptedModel([])).run(query)


def test_a_misspelt_prompt_of_a_subclass_is_refused() -> None:
    class Pirate(FunctionAgent):
        PROMPTS = {"sytem": "You are a pirate."}  # noqa: RUF012 because users write it so

    with pytest.raises(AgentConfigurationError, match=r"Pirate has no prompt 'sytem'\. Did you mean 'system'"):
        Pirate(llm=ScriptedModel([]))


def test_a_subclass_may_add_prompts() -> None:
    class Pirate(FunctionAgent):
        PROMPTS = {"farewell": "Arr!"}  # noqa: RUF012 because users write it so

    assert Pirate(llm=ScriptedModel([])).prompt("farewell") == "Arr!"
