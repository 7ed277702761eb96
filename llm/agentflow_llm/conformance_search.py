"""What is checked of embedders, rerankers, memories and stores of chunks."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, cast

from agentflow.observe import Kind

from .conformance import must, nothing_left, watching
from .documents import Chunk
from .messages import ChatMessage, ToolCallPart, ToolResultPart, Usage
from .model import Embedder, Embeddings, Reranker
from .records import Passage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .documents import VectorStore
    from .memory import Memory

_TEXTS = ("The cat sleeps on the sofa.", "A cat is asleep on a couch.", "Interest rates were raised by the bank.")
_SAME = 0.999
"""Vectors whose cosine is this are the same: servers round, and not always alike."""
_Checks = dict[str, "Callable[[], Awaitable[None]]"]


class EmbedderChecks:
    """The checks of one embedder."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def all(self) -> _Checks:
        """By name, in the order in which they are run."""
        return {
            "names": self.names,
            "vectors": self.vectors,
            "order": self.order,
            "empty": self.empty,
            "usage": self.usage,
            "unchanged": self.unchanged,
            "concurrent": self.concurrent,
            "cancel": self.cancel,
            "operation": self.operation,
        }

    async def names(self) -> None:
        """It is an `Embedder` with a provider and a model."""
        must(isinstance(self.embedder, Embedder), "It lacks provider, model or embed. See agentflow_llm.Embedder.")
        for name in ("provider", "model"):
            value = getattr(self.embedder, name)
            must(isinstance(value, str) and value, f"Its {name} is {value!r}. Make it a string that is not empty.")

    async def _vectors(self, texts: Sequence[str]) -> list[list[float]]:
        answer: object = await self.embedder.embed(texts)
        if not isinstance(answer, Embeddings):
            told = f"embed() returns {answer!r}. Return Embeddings(vectors, usage, model)."
            raise AssertionError(told)  # noqa: TRY004 because a check fails
        vectors = [list(vector) for vector in answer.vectors]
        must(len(vectors) == len(texts), f"It gives {len(vectors)} vectors for {len(texts)} texts. Give one for each.")
        return vectors

    async def vectors(self) -> None:
        """Texts become vectors of one length; those of texts about the same are closer than others."""
        vectors = await self._vectors(_TEXTS)
        lengths = {len(vector) for vector in vectors}
        must(len(lengths) == 1 and 0 not in lengths, f"Its vectors have the lengths {sorted(lengths)}, not one length.")
        numbers = [number for vector in vectors for number in vector]
        must(all(math.isfinite(number) for number in numbers), "Its vectors have numbers that are not finite.")
        one, near, far = vectors
        must(_cosine(one, near) > _cosine(one, far), "Texts about the same are no closer together than others.")

    async def order(self) -> None:
        """A text has the same vector wherever it stands in the list, and each time."""
        forth, back = await self._vectors(_TEXTS), await self._vectors(_TEXTS[::-1])
        same = all(_cosine(*pair) >= _SAME for pair in zip(forth, back[::-1], strict=True))
        must(same, "A text's vector depends on where it stands. Put the vectors into the order of the texts.")

    async def empty(self) -> None:
        """No texts have no vectors; a single string is no list of texts."""
        await self._vectors([])
        try:
            answer = await self.embedder.embed("text")
        except Exception:  # noqa: BLE001 because any error is good here
            return
        raise AssertionError(f"embed('text') gives {len(answer.vectors)} vectors, one for each letter. Raise an error.")

    async def usage(self) -> None:
        """Its usage is a `Usage` that can be."""
        usage = (await self.embedder.embed(_TEXTS)).usage
        must(isinstance(usage, Usage), f"Its usage is {usage!r}. Make it a Usage; Usage() where nothing is known.")
        for name, value in usage:
            must(value is None or value >= 0, f"Its usage has {name}={value!r}. Where it is not known, leave it None.")

    async def unchanged(self) -> None:
        """What it is given stays as it was."""
        texts = list(_TEXTS)
        await self.embedder.embed(texts)
        must(texts == list(_TEXTS), "It changes the list that it is given. Copy it first.")

    async def concurrent(self) -> None:
        """Several calls go on at once, each with its own answer."""
        answers = await asyncio.gather(*(self._vectors([text]) for text in _TEXTS))
        alone = await self._vectors(_TEXTS)
        same = all(_cosine(one, other) >= _SAME for (one,), other in zip(answers, alone, strict=True))
        must(same, "Concurrent calls get each other's vectors. Keep nothing of a call in the embedder.")

    async def cancel(self) -> None:
        """A call that is cancelled ends with that, and leaves nothing behind."""
        async with nothing_left("A call that is cancelled"):
            call = asyncio.create_task(self._vectors(_TEXTS))
            await asyncio.sleep(0)
            going_on = call.cancel()
            (end,) = await asyncio.gather(call, return_exceptions=True)
            cancelled = not going_on or isinstance(end, asyncio.CancelledError)
            must(cancelled, f"A call that was cancelled ends with {end!r}. Let CancelledError through.")

    async def operation(self) -> None:
        """A call is one operation, which has the vectors as its result."""
        with watching(Kind.EMBEDDINGS) as seen:
            answer = await self.embedder.embed(_TEXTS)
        op, error = seen.only("A call")
        must(error is None and op.result == answer, "The operation of a call has not its Embeddings as the result.")


class RerankerChecks:
    """The checks of one reranker."""

    query = "Where does the cat sleep?"

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker
        self.passages = [Passage(str(number), text, 0.0, {"n": number}) for number, text in enumerate(_TEXTS)]

    def all(self) -> _Checks:
        """By name, in the order in which they are run."""
        return {
            "passages": self.ordered,
            "top_k": self.top_k,
            "empty": self.empty,
            "unchanged": self.unchanged,
            "concurrent": self.concurrent,
            "operation": self.operation,
        }

    async def _ranked(self, **options: Any) -> list[Passage]:
        ranked = await self.reranker.rerank(self.query, list(self.passages), **options)
        must(isinstance(ranked, list), f"rerank() returns {ranked!r}. Return a list of Passage.")
        return ranked

    async def ordered(self) -> None:
        """All passages come back, each once, as they were but for the score, the best first."""
        must(isinstance(self.reranker, Reranker), "It lacks rerank. See agentflow_llm.Reranker.")
        ranked = await self._ranked()
        known = {passage.id: (passage.text, passage.metadata) for passage in self.passages}
        same = {passage.id: (passage.text, passage.metadata) for passage in ranked} == known
        must(
            same and len(ranked) == len(known), f"It was given {self.passages!r} and returns {ranked!r}, not the same."
        )
        scores = [passage.score for passage in ranked]
        must(scores == sorted(scores, reverse=True), f"Its scores are {scores}. The largest comes first.")

    async def top_k(self) -> None:
        """Only so many come back as are asked for, and these are the first of all."""
        everything, some = await self._ranked(), await self._ranked(top_k=2)
        ids = [passage.id for passage in some]
        must(ids == [passage.id for passage in everything[:2]], f"With top_k=2 it returns {ids}, not the first two.")
        must(len(await self._ranked(top_k=100)) == len(self.passages), "With top_k=100 it does not return all three.")

    async def empty(self) -> None:
        """No passages are none."""
        ranked = await self.reranker.rerank(self.query, [])
        must(ranked == [], f"Of no passages it makes {ranked!r}. Return an empty list.")

    async def unchanged(self) -> None:
        """What it is given stays as it was."""
        passages = list(self.passages)
        await self.reranker.rerank(self.query, passages)
        must(passages == self.passages, "It changes the list that it is given. Return a new one.")

    async def concurrent(self) -> None:
        """Several calls go on at once."""
        ranked = await asyncio.gather(*(self._ranked() for _ in range(3)))
        complete = all(len(passages) == len(self.passages) for passages in ranked)
        must(complete, "Concurrent calls lose passages. Keep nothing of a call in the reranker.")

    async def operation(self) -> None:
        """A call is one operation, which has the passages as its result."""
        with watching(Kind.RERANK) as seen:
            ranked = await self._ranked()
        op, error = seen.only("A call")
        must(error is None and op.result == ranked, "The operation of a call has not its passages as the result.")


class MemoryChecks:
    """The checks of one memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def all(self) -> _Checks:
        """By name, in the order in which they are run."""
        return {
            "order": self.order,
            "own_list": self.own_list,
            "together": self.together,
            "concurrent": self.concurrent,
            "operation": self.operation,
            "clear": self.clear,
        }

    async def _ids(self) -> list[str]:
        return [message.id for message in await self.memory.aget()]

    async def order(self) -> None:
        """What is put comes out, in its order, the newest last."""
        messages = [_said("one"), _said("two"), _said("three")]
        await self.memory.aput(messages[0])
        await self.memory.aput(*messages[1:])
        await self.memory.aput()
        found = await self.memory.aget("three")
        must(found[-3:] == messages, f"After three messages were put, it ends with {found[-3:]!r}, not with these.")

    async def own_list(self) -> None:
        """The list that it gives is the caller's."""
        found = await self.memory.aget()
        before = [message.id for message in found]
        found.clear()
        must(await self._ids() == before, "Who changes the list that aget() gives changes the memory. Return a copy.")

    async def together(self) -> None:
        """A tool call and its results stay together."""
        call = ToolCallPart(id="call_1", name="search", arguments="{}")
        results = ToolResultPart(call_id="call_1", name="search", content="found")
        turn = [
            _said("Look it up."),
            ChatMessage(role="assistant", content=[call]),
            ChatMessage(role="tool", content=[results]),
            ChatMessage(role="assistant", content="It is found."),
        ]
        await self.memory.aput(*turn)
        found = await self._ids()
        wanted = [message.id for message in turn]
        must(found[-len(turn) :] == wanted, "A tool call was put with its result, and they do not come out together.")

    async def concurrent(self) -> None:
        """What one aput was given stays together, however many are going on."""
        turns = [[_said(f"{number} asks"), _said(f"{number} answers")] for number in range(3)]
        await asyncio.gather(*(self.memory.aput(*turn) for turn in turns))
        found = await self._ids()
        for first, second in turns:
            at = found.index(first.id) if first.id in found else -1
            next_to = at >= 0 and found[at + 1 : at + 2] == [second.id]
            must(next_to, "Of two messages that one aput was given, another stands between, or one is lost.")

    async def operation(self) -> None:
        """Putting and getting are one operation each."""
        for what, call in (("aput", lambda: self.memory.aput(_said("seen"))), ("aget", self.memory.aget)):
            with watching(Kind.MEMORY) as seen:
                await cast("Callable[[], Awaitable[Any]]", call)()
            must(
                seen.begun,
                f"{what} is no operation. Derive from agentflow_llm.Memory, and write put, get and clear alone.",
            )
            must(len(seen.begun) == len(seen.ended), f"An operation of {what} has not ended. Close it on every path.")

    async def clear(self) -> None:
        """A memory that was cleared has nothing."""
        await self.memory.aclear()
        must(await self.memory.aget() == [], "After aclear() it still has messages.")


class StoreChecks:
    """The checks of one store of chunks, with vectors of three numbers."""

    def __init__(self, store: VectorStore) -> None:
        self.store = store
        self._filled = False

    def all(self) -> _Checks:
        """By name, in the order in which they are run."""
        return {
            "words": self.words,
            "vectors": self.vectors,
            "both": self.both,
            "filters": self.filters,
            "top_k": self.top_k,
            "versions": self.versions,
            "replace": self.replace,
            "concurrent": self.concurrent,
            "delete": self.delete,
        }

    async def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True
        await self.store.add(
            "pets",
            [
                Chunk("cat", "The cat sleeps on the sofa.", [1.0, 0.0, 0.1], {"kind": "animal"}),
                Chunk("dog", "The dog barks at the postman.", [0.9, 0.1, 0.0], {"kind": "animal"}),
            ],
            version="1",
        )
        bank = Chunk("bank", "The bank raised interest rates.", [0.0, 1.0, 0.0], {"kind": "money"})
        await self.store.add("bank", [bank], version="7")

    async def _found(self, query: str, **options: Any) -> list[str]:
        await self._fill()
        found = await self.store.search(query, **options)
        must(isinstance(found, list), f"search() returns {found!r}. Return a list of Passage.")
        scores = [passage.score for passage in found]
        must(scores == sorted(scores, reverse=True), f"The scores of what it finds are {scores}. The largest is first.")
        return [passage.id for passage in found]

    async def words(self) -> None:
        """A chunk is found by its words."""
        found = await self._found("interest rates")
        must(
            found[:1] == ["bank"], f"Asked for 'interest rates' it finds {found}, not first the chunk with these words."
        )
        await self._found('("unbalanced AND *')

    async def vectors(self) -> None:
        """A chunk is found by its vector."""
        found = await self._found("", vector=[0.0, 2.0, 0.0])
        must(
            found[:1] == ["bank"], f"Asked for a vector it finds {found}, not first the chunk whose vector is nearest."
        )

    async def both(self) -> None:
        """What both words and vector find comes first."""
        found = await self._found("sofa", vector=[1.0, 0.0, 0.1])
        must(found[:1] == ["cat"], f"Asked for words and vector of one chunk it finds {found}, not first that chunk.")

    async def filters(self) -> None:
        """Only what has the metadata that is asked for is found."""
        for query, vector in (("the", None), ("the bank", [0.0, 1.0, 0.0])):
            found = await self._found(query, vector=vector, where={"kind": "animal"})
            must("bank" not in found, "With where={'kind': 'animal'} it finds a chunk of another kind.")
        found = await self._found("", vector=[1.0, 1.0, 0.0], where={"kind": ["animal", "money"]})
        must(len(found) == len(_TEXTS), "With a list in where= it does not find what has any of its values.")
        (passage, *_) = await self.store.search("interest")
        must(dict(passage.metadata).get("kind") == "money", "What it finds has not the metadata of its chunk.")

    async def top_k(self) -> None:
        """No more is found than is asked for."""
        found = await self._found("", vector=[1.0, 0.0, 0.0], top_k=2)
        must(len(found) == 2, f"With top_k=2 it finds {len(found)} of three chunks.")  # noqa: PLR2004 because as asked

    async def versions(self) -> None:
        """It tells the documents that it has, with their versions."""
        await self._fill()
        versions = await self.store.versions()
        must(versions == {"pets": "1", "bank": "7"}, f"Its versions are {versions}, not those that were added.")

    async def replace(self) -> None:
        """A document that is added again takes the place of the old one."""
        await self._fill()
        await self.store.add("bank", [Chunk("loan", "A loan is granted.", [0.0, 1.0, 0.0])], version="8")
        found = await self._found("interest rates", vector=[0.0, 1.0, 0.0])
        must("bank" not in found and "loan" in found, f"After its document was added anew it finds {found}.")
        must(
            (await self.store.versions()).get("bank") == "8",
            "After its document was added anew it tells the old version.",
        )

    async def concurrent(self) -> None:
        """Several add and search at once."""
        names = [f"zebra{number}" for number in range(5)]
        await asyncio.gather(
            *(self.store.add(name, [Chunk(name, f"{name} zebra", [0.1, 0.1, 1.0])], version="1") for name in names),
            *(self._found("zebra") for _ in names),
        )
        found = await self._found("zebra", top_k=10)
        await self.store.delete(names)
        must(set(names) <= set(found), f"Of five that were added at once it finds {found}.")

    async def delete(self) -> None:
        """What is deleted is gone; what is not there may be deleted as well."""
        await self._fill()
        await self.store.delete(["pets", "nobody"])
        must(await self._found("sofa") == [], "After its document was deleted a chunk is still found.")
        await self.store.delete(["bank"])
        must(await self.store.versions() == {}, "After all documents were deleted it still tells versions.")


def _said(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    both = math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / both if both else 0.0
