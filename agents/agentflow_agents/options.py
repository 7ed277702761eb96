"""The options of agents: what they may be, and the line to write instead."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypedDict

from pydantic import BaseModel

from agentflow.errors import shown
from agentflow_llm import ChatModel, Memory
from agentflow_llm.output import OutputFormat, output_format

from .budget import Budget
from .errors import AgentConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class AgentOptions(TypedDict, total=False):
    """The options that are the same for every agent. See `Agent`."""

    prompts: Mapping[str, str] | None
    name: str | None
    description: str
    timeout: float | None
    verbose: bool
    num_concurrent_runs: int | None
    resources: Mapping[Callable[..., Any], Any] | None


_BUDGET = "budget=Budget(turns=10)"
MEANT = {
    "model": "llm=...",
    "client": "llm=OpenAI(..., client=...)",
    "instructions": "system_prompt=...",
    "prompt": "system_prompt=...",
    "max_turns": _BUDGET,
    "max_iterations": _BUDGET,
    "max_steps": _BUDGET,
    "early_stopping_method": "budget=Budget(turns=10, last_answer=True)",
    "output_cls": "output=...",
    "output_type": "output=...",
    "response_format": "output=...",
    "can_handoff_to": "handoffs=... of a Team",
    "handoffs": "handoffs=... of a Team",
}
"""What other frameworks call an option of an agent, and what it is here."""
ASKED = {
    "user_msg": "query=...",
    "user_message": "query=...",
    "input": "query=...",
    "question": "query=...",
    "message": "query=...",
    "prompt": "query=...",
    "chat_history": "history=...",
    "messages": "history=...",
    "message_history": "history=...",
    "memory": "memory=... of the agent",
    "max_turns": f"{_BUDGET} of the agent",
    "max_iterations": f"{_BUDGET} of the agent",
    "max_steps": f"{_BUDGET} of the agent",
}
"""The same for a run of one."""


def check_names(what: str, given: Iterable[str], known: Iterable[str], meant: Mapping[str, str]) -> None:
    """Refuse a name that is not known, with the one that was probably meant."""
    known = list(known)
    for name in given:
        if name in known:
            continue
        near = get_close_matches(name, known, n=1)
        hint = f" It is {meant[name]} here." if name in meant else f" Did you mean {near[0]}=...?" if near else ""
        raise AgentConfigurationError(f"{what} has no option {name!r}.{hint} There are {', '.join(sorted(known))}.")


def check_options(kind: str, llm: object, memory: object, system_prompt: object, budget: object) -> None:
    """Refuse what an agent of class `kind` cannot be given."""
    if llm is not None and (isinstance(llm, type) or not isinstance(llm, ChatModel)):
        what = "a class, and no model" if isinstance(llm, type) else "no model"
        line = f"{llm.__name__}(...)" if isinstance(llm, type) else f"OpenAI({_model_name(llm)!r})"
        raise AgentConfigurationError(
            f"{kind}(llm={shown(llm)}): it is {what}. Write llm={line}, or leave it out for the one that the "
            "environment names."
        )
    # a class has the methods that the protocol asks for
    if memory is not None and (isinstance(memory, type) or not isinstance(memory, Memory)):
        what = "a class, and no memory" if isinstance(memory, type) else "no memory"
        line = f"{memory.__name__}()" if isinstance(memory, type) else "ChatMemory()"
        raise AgentConfigurationError(
            f"{kind}(memory={shown(memory)}): it is {what}. Write memory={line}, or leave it out for runs that know "
            "nothing of each other."
        )
    if system_prompt is not None and not isinstance(system_prompt, str):
        raise AgentConfigurationError(
            f'{kind}(system_prompt={shown(system_prompt)}): it must be a text. Write system_prompt="...", or "" for '
            "none."
        )
    if budget is not None and not isinstance(budget, Budget):
        raise AgentConfigurationError(f"{kind}(budget={shown(budget)}): write budget=Budget(turns=10, tokens=50_000).")


def shape_of(kind: str, output: object) -> OutputFormat | None:
    """The shape of the answers of an agent; None for text."""
    if output is None or output is str:
        return None
    if not isinstance(output, type) or not issubclass(output, BaseModel):
        raise AgentConfigurationError(
            f"{kind}(output={output!r}): it must be a pydantic model. Write class Answer(BaseModel): city: str, and "
            "output=Answer."
        )
    return output_format(output)


def _model_name(given: object) -> str:
    """The name of a model that was meant: a text that was given in place of a model is taken for one."""
    return given if isinstance(given, str) and given else "gpt-4o-mini"
