"""What agents need from outside: a model, tools, a memory. The agent's constructor fills them in."""

from __future__ import annotations

from typing import Annotated

from agentflow import Resource
from agentflow.log import logger
from agentflow_llm import ChatModel, Memory, default_model

from .toolbox import Toolbox


async def choose_model() -> ChatModel:
    """The model that the environment names, where the agent was given none. See `agentflow_llm.default_model`."""
    chosen = await default_model()
    said = logger().warning if chosen.model.provider == "offline" else logger().info
    said(chosen.reason)
    return chosen.model


def no_tools() -> Toolbox:
    """Replaced by the tools that the agent is given."""
    return Toolbox()


def no_memory() -> Memory | None:
    """Replaced by the memory that the agent is given: without one, each run begins anew."""
    return None


Model = Annotated[ChatModel, Resource(choose_model)]
Tools = Annotated[Toolbox, Resource(no_tools)]
Remembered = Annotated[Memory | None, Resource(no_memory)]
