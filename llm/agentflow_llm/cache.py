"""A client that remembers its answers."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast, overload

from pydantic import ValidationError

from .chat import with_output
from .database import shared_database
from .embedding import check_vectors
from .errors import LLMError, LLMOutputError
from .messages import ChatMessage, Delta, Reply, Usage
from .model import Embeddings
from .stream import pieces_of
from .wrapper import ChatWrapper, EmbedderWrapper, Wrapper, kind_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from pathlib import Path

    from .model import ChatModel, Embedder
    from .records import ChatCall, EmbeddingsCall

_TABLES = """
CREATE TABLE cached_answers (key BLOB PRIMARY KEY, value BLOB NOT NULL, model TEXT NOT NULL, used INTEGER NOT NULL);
CREATE UNIQUE INDEX cached_answers_used ON cached_answers (used);
"""
_HIT = Usage(cost=0.0)
"""What an answer costs that is there already: no request, no tokens, no money."""
_Row = tuple[bytes, bytes, str]
"""Key, value, and the model that answered."""


class Cached(Wrapper):
    """A chat model or an embedder that gives the same answer to the same call: `Cached(OpenAI("gpt-4o"), file="c.db")`.

    - `file`: where the answers are kept, for all processes; memory otherwise, for this object alone.
    - `most`: how many; those go that were not used for the longest time.

    Calls are the same where all is that would be sent: provider, server, model, messages (not their ids), tools,
    parameters, output and `extra`. An embedder's texts are remembered one by one: only the new ones are asked for.
    An answer that is known costs nothing: its usage has no request, unknown tokens and a cost of 0. Whether it was
    is a note `cache` on the call's operation. A stream is remembered when it was read to its end, and then comes word
    by word. Not remembered are errors, answers that are not the `output` that was asked for, and those of a `Fallback`
    inside that are not its first client's. Equal calls at the same time are all asked. `Cached(RateLimited(client))`
    lets known answers pass the limits; the other order does not.
    """

    title = "Cached"

    @overload
    def __new__(cls, client: ChatModel, *, file: str | Path | None = ..., most: int = ...) -> _CachedChatModel: ...
    @overload
    def __new__(cls, client: Embedder, *, file: str | Path | None = ..., most: int = ...) -> _CachedEmbedder: ...
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """One of the two kinds."""
        return kind_of(cls, _CachedChatModel, _CachedEmbedder)(*args, **kwargs)


class _Cached(Cached):
    def __init__(self, client: Any, *, file: str | Path | None = None, most: int = 1000) -> None:
        if most < 1:
            raise LLMError(f"Cached(..., most={most!r}) would remember nothing. Write most=1 or more.")
        super().__init__(client)
        self._database = shared_database(file, _TABLES)
        self._in_memory = file is None
        self._most = most

    async def _find(self, keys: Iterable[bytes]) -> dict[bytes, _Row]:
        def work(db: sqlite3.Connection) -> dict[bytes, _Row]:
            found: dict[bytes, _Row] = {}
            for key in keys:
                row = db.execute("SELECT key, value, model FROM cached_answers WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = row
                    db.execute(f"UPDATE cached_answers SET used = {_NEXT} WHERE key = ?", (key,))  # noqa: S608 because it is a constant
            return found

        return self._database.now(work) if self._in_memory else await self._database.write(work)

    async def _keep(self, rows: Sequence[_Row]) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.executemany(f"INSERT OR REPLACE INTO cached_answers VALUES (?, ?, ?, {_NEXT})", rows)  # noqa: S608 because it is a constant
            db.execute(
                "DELETE FROM cached_answers WHERE used <= "
                "(SELECT used FROM cached_answers ORDER BY used DESC LIMIT 1 OFFSET ?)",
                (self._most,),
            )

        if self._in_memory:
            self._database.now(work)
        else:
            await self._database.write(work)


_NEXT = "(SELECT coalesce(max(used), 0) + 1 FROM cached_answers)"


class _CachedChatModel(_Cached, ChatWrapper):
    async def through(self, ask: Callable[[ChatCall], Awaitable[Reply]], call: ChatCall) -> Reply:
        """The answer that is known, or else a new one."""
        key = _key(call)
        known = await self._known(call, key)
        if known is not None:
            return known
        call.progress.stopgap = False
        reply = await ask(call)
        await self._remember(call, key, reply)
        return reply

    async def through_deltas(
        self, ask: Callable[[ChatCall], AsyncGenerator[Delta | Reply]], call: ChatCall
    ) -> AsyncGenerator[Delta | Reply]:
        """As `through`, in pieces."""
        key = _key(call)
        known = await self._known(call, key)
        if known is not None:
            for delta in pieces_of(known):
                yield delta
            yield known
            return
        call.progress.stopgap = False
        async with aclosing(ask(call)) as items:
            async for item in items:
                if isinstance(item, Reply):
                    await self._remember(call, key, item)
                yield item

    async def _known(self, call: ChatCall, key: bytes | None) -> Reply | None:
        reply = None
        if key is not None:
            found = await self._find([key])
            reply = _read(found[key][1]) if key in found else None
        if call.noting is not None:
            call.noting("cache", {"hit": reply is not None})
        return reply

    async def _remember(self, call: ChatCall, key: bytes | None, reply: Reply) -> None:
        try:
            with_output(call, reply)
        except LLMOutputError:  # asked again, it may do better
            return
        if key is not None and not call.progress.stopgap:
            await self._keep([(key, reply.model_dump_json().encode(), reply.model)])


class _CachedEmbedder(_Cached, EmbedderWrapper):
    async def through(self, ask: Callable[[EmbeddingsCall], Awaitable[Embeddings]], call: EmbeddingsCall) -> Embeddings:
        """The vectors that are known, and new ones for the other texts."""
        about = _where(call), call.dimensions
        keys = [_hash(["embeddings", *about, text]) for text in call.texts]
        found = await self._find(dict.fromkeys(keys))
        new = {key: text for key, text in zip(keys, call.texts, strict=True) if key not in found}
        if call.noting is not None:
            call.noting("cache", {"hit": not new})
        usage, model = _HIT, next((row[2] for row in found.values()), "")
        if new:
            call.progress.stopgap = False
            answer = await ask(replace(call, texts=tuple(new.values())))
            usage, model = answer.usage, answer.model
            check_vectors(answer, len(new))
            rows = [(key, array("f", vector).tobytes(), model) for key, vector in zip(new, answer.vectors, strict=True)]
            if not call.progress.stopgap:
                await self._keep(rows)
            found.update((row[0], row) for row in rows)
        return Embeddings([array("f", found[key][1]) for key in keys], usage, model)


def _read(value: bytes) -> Reply | None:
    """A reply that was kept, as a new message. None where another version of this library wrote it."""
    try:
        reply = Reply.model_validate_json(value)
    except ValidationError:
        return None
    message = ChatMessage(role=reply.message.role, content=reply.message.content)
    return reply.model_copy(update={"message": message, "usage": _HIT})


def _key(call: ChatCall) -> bytes | None:
    """What all calls have in common that are the same. None where something in it cannot be put into JSON."""
    output = call.output
    try:
        return _hash(
            [
                "chat",
                _where(call),
                [message.model_dump_json(exclude={"id"}) for message in call.messages],
                [tool.model_dump_json() for tool in call.tools],
                call.parameters,
                call.extra,
                None if output is None else [output.name, output.schema],
            ]
        )
    except (TypeError, ValueError):
        return None


def _where(call: ChatCall | EmbeddingsCall) -> Sequence[object]:
    return call.provider, call.model, call.server_address, call.server_port


def _hash(data: Sequence[object]) -> bytes:
    return sha256(json.dumps(data, sort_keys=True, default=_plain).encode()).digest()


def _plain(value: Any) -> Any:
    """What `json` does not know as what it knows. Raises `TypeError`."""
    if isinstance(value, Mapping):
        return {**cast("dict[str, Any]", value)}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [*cast("list[Any]", value)]
    raise TypeError
