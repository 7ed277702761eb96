"""A memory that keeps facts, and finds those that matter now."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import TYPE_CHECKING

from pydantic import BaseModel

from agentflow.errors import shown

from .digesting import DigestingMemory
from .documents import Chunk, DocumentError
from .errors import LLMError, LLMResponseError
from .memory import ChatMemory, MemoryInputError
from .messages import ChatMessage
from .model import Embedder
from .prompt import check_model, check_prompt, filled
from .vector_store import SqliteVectorStore, look_up, made_by
from .window import Window, window_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .model import ChatModel
    from .records import Passage
    from .tokens import TokenCounter
    from .transcript import View

EXTRACT = """\
Below is a part of a conversation. Write down what will matter in later conversations with the same user: who they \
are, what they want and prefer, what was decided, names, dates and numbers. Each fact is one sentence that can be \
understood alone, in the language of the conversation. What is only passing, or not said there, is no such fact; an \
empty list is a good answer.

<conversation>
{messages}
</conversation>"""
"""What the model is asked. A prompt of one's own has `{messages}` in it, too."""

INTRODUCTION = "From earlier conversations, this may matter here:"

_SHARE = 4
"""The part of the limit that facts may take: a fourth."""


class Facts(BaseModel):
    """What the model answers."""

    facts: list[str]


class LongTermMemory(DigestingMemory):
    """A conversation, kept whole, of which models are sent the newest part, and facts that fit what comes next.

    - `llm`: writes down the facts of what leaves the window, with `prompt`; None for those alone that `remember` is
      given. See `EXTRACT`.
    - `embedder`: lets facts be found by what they mean; by their words alone otherwise. Facts that were kept with
      another one, or with none, are embedded anew when it is first used.
    - `token_limit`: of what `aget` gives, facts included.
    - `top_k`: how many facts at most.
    - The others are those of `ChatMemory`. For thousands of sessions, give each a file of its own.

    Facts are found by words and meaning at once, see `SqliteVectorStore`, in this session alone. `aget(query)` puts
    them behind the window, in one message of the user: what stands before it stays as it was, so that a server's cache
    of it holds, and all servers take a user's message there. Where the model fails, nothing is lost, and the next
    `aput` tries again. Raises `MemoryInputError`, `StorageError`, `DocumentError`.
    """

    verb = "extract"

    def __init__(  # noqa: PLR0913 because all but the model have names
        self,
        llm: ChatModel | None = None,
        messages: Iterable[ChatMessage] = (),
        *,
        session: str = "default",
        embedder: Embedder | None = None,
        file: str | Path | None = None,
        token_limit: int | None = 16_000,
        top_k: int = 5,
        counter: TokenCounter | None = None,
        prompt: str = EXTRACT,
    ) -> None:
        if llm is not None:
            check_model("LongTermMemory", llm, MemoryInputError)
        _check(embedder, top_k)
        check_prompt("LongTermMemory", prompt, ("messages",), MemoryInputError)
        super().__init__(messages, session=session, token_limit=token_limit, counter=counter, file=file)
        self.llm = llm
        self.embedder = embedder
        self.top_k = top_k
        self.prompt = prompt
        self._facts = SqliteVectorStore(file, collection=f"facts of {self.session}")

    def prompts(self) -> dict[str, str]:
        """Every text of its own that a model is sent."""
        return {"extract": self.prompt, "introduction": INTRODUCTION}

    async def aput(self, *messages: ChatMessage) -> None:
        """See `Memory.aput`."""
        if self.llm is None:
            await ChatMemory.aput(self, *messages)
        else:
            await super().aput(*messages)

    async def remember(self, fact: str) -> str:
        """Keep a fact, a sentence that can be understood alone; returns its id. One that is there stays as it is."""
        _check_fact(fact)
        with self._operation("put"):
            return (await self._keep([fact]))[0]

    async def recall(self, query: str) -> list[Passage]:
        """The facts that fit a query, the best first, at most `top_k`. Their ids are those of `remember`."""
        self._check_query("recall", query)
        with self._operation("recall", query=query):
            return await self._search(query)

    async def forget(self, id: str) -> None:  # noqa: A002 because passages call it so
        """Forget the fact with this id, where there is one."""
        with self._operation("delete"):
            await self._facts.delete([id])

    async def clear(self) -> None:
        """Forget all of the session: the conversation and the facts."""
        await self._transcript.clear()
        await self._facts.delete(await self._facts.versions())

    async def _found(self, query: str) -> tuple[Window, int]:
        """Where there is a query, the last message tells the facts that fit it, if there are any."""
        told = await self._told(query)
        return await self._transcript.look(lambda view: self._beside(view, told))

    async def digest(self, before: str, messages: list[ChatMessage]) -> str:
        """Keep the facts in messages. Raises `LLMError`."""
        if self.llm is not None:  # else nothing is digested
            text = filled(self.prompt, {"messages": self.written(messages)})
            reply = await self.llm.chat([ChatMessage(role="user", content=text)], output=Facts)
            if not isinstance(reply.output, Facts):
                raise LLMResponseError(f"{self.llm.model!r} wrote down no facts: {reply.message!r}.")
            await self._keep(reply.output.facts)
        return before

    async def _keep(self, facts: Sequence[str]) -> list[str]:
        """Keep facts; returns their ids, which are made of the words, so that the same fact is kept once."""
        # of several that are the same the first stays
        by_id = {_id(fact): fact.strip() for fact in reversed(facts) if fact.strip()}
        known = await self._facts.versions()
        new = [(ident, fact) for ident, fact in by_id.items() if ident not in known]
        vectors: Sequence[Sequence[float] | None] = [None] * len(new)
        if self.embedder is not None and new:
            await self._renew()
            vectors = (await self.embedder.embed([fact for _, fact in new])).vectors
        for (ident, fact), vector in zip(new, vectors, strict=True):
            try:
                await self._facts.add(ident, [Chunk(ident, fact, vector)], version=made_by(self.embedder))
            except DocumentError:  # somebody else has begun to use another embedder: its vector comes later
                await self._facts.add(ident, [Chunk(ident, fact)])
        return list(by_id)

    async def _renew(self) -> None:
        """Embed what was kept with another embedder, or with none: all vectors are of one. Raises `LLMError`."""
        version = made_by(self.embedder)
        others = [ident for ident, kept in (await self._facts.versions()).items() if kept != version]
        if self.embedder is None or not others:
            return
        read = await asyncio.to_thread(lambda: [chunk for ident in others for chunk in self._facts.chunks_now(ident)])
        vectors = (await self.embedder.embed([chunk.text for chunk in read])).vectors
        made = {chunk.id: Chunk(chunk.id, chunk.text, vector) for chunk, vector in zip(read, vectors, strict=True)}
        await asyncio.to_thread(self._facts.renew_now, made, version)

    async def _search(self, query: str) -> list[Passage]:
        if query.strip():
            await self._renew()
        try:
            return await look_up(self._facts, self.embedder, query, self.top_k)
        except DocumentError:  # somebody else has begun to use another embedder
            return await self._facts.search(query, top_k=self.top_k)

    async def _told(self, query: str) -> list[ChatMessage]:
        """The message with the facts that fit, within their share of the limit; none where there are none."""
        if not query.strip():
            return []
        try:
            found = await self._search(query)
        except LLMError:  # the embedder's operation has told it; words find something, too
            found = await self._facts.search(query, top_k=self.top_k)
        told: list[ChatMessage] = []
        text = INTRODUCTION
        for passage in found:
            longer = f"{text}\n- {passage.text}"
            message = ChatMessage(role="user", content=longer, id=f"facts_{self.session}")
            if self.token_limit is not None and self.counter.count([message]) > self.token_limit // _SHARE:
                continue  # a shorter one may still have room
            text, told = longer, [message]
        return told

    def _beside(self, view: View, told: list[ChatMessage]) -> tuple[Window, int]:
        """The window, and behind it the facts."""
        limit = self.token_limit
        reserved = self.counter.count(told) if limit is not None else 0
        room = None if limit is None else limit - reserved
        found = window_back(view.newest_first(), view.systems(), room, self.counter)
        tokens = found.tokens + reserved
        left_out = 0 if found.reach == view.length else view.length - len(found.messages)
        over = limit is not None and tokens > limit
        return Window(found.front, [*found.rest, *told], found.reach, tokens, over), left_out


def _id(fact: str) -> str:
    words = " ".join(fact.casefold().split()).strip(" .!")
    return f"fact_{sha256(words.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def _check(embedder: object, top_k: object) -> None:
    if embedder is not None and (isinstance(embedder, type) or not isinstance(embedder, Embedder)):
        raise MemoryInputError(f"LongTermMemory(embedder={shown(embedder)}): it has no embed(texts).")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise MemoryInputError(f"LongTermMemory(top_k={shown(top_k)}): it is a whole number of 1 or more.")


def _check_fact(fact: object) -> None:
    if not isinstance(fact, str) or not fact.strip():
        raise MemoryInputError(f'remember({shown(fact)}): a fact is a sentence. Write remember("...").')
