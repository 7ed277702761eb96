"""Checks that every client must pass, for tests of clients of your own: no network is needed, nor pytest.

Each function runs its checks one after the other, and raises one `AssertionError` that lists what failed and how to
mend it. What a client cannot do is named in `skip`, and stands in what is returned:

```
print(await check_chat_model(MyModel(), skip={"tools", "tool_results"}))
```

For what takes time there is `agentflow.testing.FakeClock`, for answers `ScriptedModel`, `OfflineModel`,
`HashEmbedder`, `agentflow_llm.server.LoopbackServer` and `agentflow_llm.recording.Recording`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conformance import Checked, run_checks
from .conformance_chat import ChatChecks
from .conformance_search import EmbedderChecks, MemoryChecks, RerankerChecks, StoreChecks

if TYPE_CHECKING:
    from collections.abc import Collection

    from .documents import VectorStore
    from .memory import Memory
    from .model import ChatModel, Embedder, Reranker

__all__ = [
    "Checked",
    "check_chat_model",
    "check_embedder",
    "check_memory",
    "check_reranker",
    "check_vector_store",
]
_PATIENCE = 60.0


async def check_chat_model(
    model: ChatModel,
    *,
    failing: ChatModel | None = None,
    skip: Collection[str] = (),
    timeout: float = _PATIENCE,
) -> Checked:
    """Check a chat model. It is asked about thirty times.

    - `failing`: a model of the same class that cannot answer, such as one with a dead address, to see its errors;
      without one, that is not checked.
    - `skip`: names, reply, usage, stream, close, close_elsewhere, cancel, concurrent, unchanged, options, operation,
      tools, tool_results, output, errors, failing.
    - `timeout`: seconds for each check.
    """
    skip = {skip} if isinstance(skip, str) else {*skip}
    if failing is None:
        skip.add("failing")
    return await run_checks(model, ChatChecks(model, failing).all(), skip, timeout)


async def check_embedder(embedder: Embedder, *, skip: Collection[str] = (), timeout: float = _PATIENCE) -> Checked:
    """Check an embedder: names, vectors, order, empty, usage, unchanged, concurrent, cancel, operation."""
    return await run_checks(embedder, EmbedderChecks(embedder).all(), skip, timeout)


async def check_reranker(reranker: Reranker, *, skip: Collection[str] = (), timeout: float = _PATIENCE) -> Checked:
    """Check a reranker: passages, top_k, empty, unchanged, concurrent, operation."""
    return await run_checks(reranker, RerankerChecks(reranker).all(), skip, timeout)


async def check_memory(memory: Memory, *, skip: Collection[str] = (), timeout: float = _PATIENCE) -> Checked:
    """Check a memory, which must be empty, and has room for a dozen short messages.

    Checked are order, own_list, together, concurrent, operation, clear; the last one empties it.
    """
    return await run_checks(memory, MemoryChecks(memory).all(), skip, timeout)


async def check_vector_store(store: VectorStore, *, skip: Collection[str] = (), timeout: float = _PATIENCE) -> Checked:
    """Check a store of chunks, which must be empty, and is empty afterwards.

    Checked are words, vectors, both, filters, replace, top_k, versions, concurrent, delete.
    """
    return await run_checks(store, StoreChecks(store).all(), skip, timeout)
