"""Models whose answers count as the run's, whoever asks them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

from agentflow_llm import ChatModel, LLMOutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

    from agentflow_llm import ChatMessage, ChatOptions, Reply, Reranker
    from agentflow_llm.stream import ReplyStream

    from .budget import Accounts


class Counted:
    """A `ChatModel` whose answers are counted; those of streams are not."""

    def __init__(self, llm: ChatModel, accounts: Accounts) -> None:
        self._llm = llm
        self._accounts = accounts

    @property
    def provider(self) -> str:
        """See `ChatModel.provider`."""
        return self._llm.provider

    @property
    def model(self) -> str:
        """See `ChatModel.model`."""
        return self._llm.model

    async def chat(self, messages: Sequence[ChatMessage], **options: Unpack[ChatOptions]) -> Reply:
        """See `ChatModel.chat`."""
        try:
            reply = await self._llm.chat(messages, **options)
        except LLMOutputError as error:
            if error.reply is not None:
                self._accounts.heard(error.reply, messages)
            raise
        self._accounts.heard(reply, messages)
        return reply

    def stream(self, messages: Sequence[ChatMessage], **options: Unpack[ChatOptions]) -> ReplyStream:
        """See `ChatModel.stream`."""
        return self._llm.stream(messages, **options)


def counted(reranker: Reranker, accounts: Accounts) -> Reranker:
    """The reranker itself, or, where it asks a model, one whose model is counted."""
    llm: object = getattr(reranker, "llm", None)
    if not isinstance(llm, ChatModel):
        return reranker
    twin: Any = copy.copy(reranker)
    twin.llm = Counted(llm, accounts)
    return cast("Reranker", twin)
