"""Reranking by a model: whatever it answers, every passage is kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.testing import record
from agentflow_llm.documents import DocumentError
from agentflow_llm.errors import LLMServerError
from agentflow_llm.messages import ChatMessage, RefusalPart, Reply
from agentflow_llm.model import Reranker
from agentflow_llm.records import Passage
from agentflow_llm.rerank import PROMPT, BaseReranker, ModelReranker
from agentflow_llm.scripted import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentflow.observe import Opened

PASSAGES = [Passage(name, f"text of {name}", 0.5, {"n": name}) for name in "abc"]


def ids(found: Sequence[Passage]) -> list[str]:
    return [passage.id for passage in found]


async def test_model_is_asked_once_and_its_order_is_taken() -> None:
    with ScriptedModel(['{"order": [3, 1, 2]}']) as model:
        found = await ModelReranker(model).rerank("Which?", PASSAGES)
    assert ids(found) == ["c", "a", "b"]
    assert [passage.score for passage in found] == pytest.approx([1, 2 / 3, 1 / 3])
    assert found[0].metadata == {"n": "c"}
    [call] = model.calls
    said = call.messages[0].text
    assert "Question: Which?" in said
    assert "[3]\ntext of c" in said
    assert call.output is not None
    assert isinstance(ModelReranker(model), Reranker)


async def test_prompt_is_ones_own_and_braces_in_texts_are_no_fields() -> None:
    passages = [Passage("a", "{query} {0}", 1), Passage("b", "{passages}", 1)]
    with ScriptedModel(['{"order": [2, 1]}']) as model:
        assert ids(await ModelReranker(model, prompt="Q {query} P {passages}").rerank("{x}", passages)) == ["b", "a"]
    assert model.calls[0].messages[0].text == "Q {x} P [1]\n{query} {0}\n\n[2]\n{passages}"


async def test_only_the_best_are_handed_out_where_so_many_are_asked_for() -> None:
    with ScriptedModel(['{"order": [2, 1, 3]}']) as model:
        assert ids(await ModelReranker(model).rerank("q", PASSAGES, top_k=2)) == ["b", "a"]
    with pytest.raises(DocumentError, match="top_k=0"):
        await ModelReranker(model).rerank("q", PASSAGES, top_k=0)


async def test_nothing_is_asked_where_there_is_nothing_to_order() -> None:
    with ScriptedModel([]) as model:
        assert await ModelReranker(model).rerank("q", []) == []
        assert await ModelReranker(model).rerank("q", PASSAGES[:1]) == PASSAGES[:1]


@given(st.lists(st.integers(-2, 6)))
async def test_every_passage_is_kept_once_whatever_numbers_are_answered(order: list[int]) -> None:
    with ScriptedModel([json.dumps({"order": order})]) as model:
        found = await ModelReranker(model).rerank("q", PASSAGES)
    assert sorted(ids(found)) == ["a", "b", "c"]
    named = [PASSAGES[number - 1].id for number in dict.fromkeys(order) if 1 <= number <= 3]
    assert ids(found)[: len(named)] == named


@pytest.mark.parametrize("said", ["the second one", '{"order": "none"}', '{"order": []}', '{"order": [7]}'])
async def test_order_stays_where_the_answer_is_unusable_and_that_is_noted(said: str) -> None:
    model = ScriptedModel([said] * 5)
    with record() as seen:
        assert ids(await ModelReranker(model).rerank("q", PASSAGES)) == ["a", "b", "c"]
    [op] = seen.find("rerank")
    assert op.outcome == "ok"
    [note] = seen.notes[op.ref.id]
    assert note.name == "order_kept"
    assert isinstance(note.facts["error"], Exception)


async def test_refusal_leaves_the_order() -> None:
    refused = ChatMessage(role="assistant", content=[RefusalPart(text="I will not.")])
    with ScriptedModel([Reply(message=refused, finish_reason="stop", model="m")]) as model:
        assert ids(await ModelReranker(model).rerank("q", PASSAGES)) == ["a", "b", "c"]


async def test_model_that_cannot_be_reached_is_an_error() -> None:
    with ScriptedModel([LLMServerError("down")]) as model, pytest.raises(LLMServerError):
        await ModelReranker(model).rerank("q", PASSAGES)


async def test_reranking_is_an_operation_with_the_chat_inside() -> None:
    with record() as seen, ScriptedModel(['{"order": [3, 1, 2]}']) as model:
        found = await ModelReranker(model).rerank("q", PASSAGES, top_k=1)
    assert seen.tree() == "rerank scripted\n  chat scripted"
    [op] = seen.find("rerank")
    assert op.result == found
    assert (op.subject.model, op.subject.query, op.subject.passages, op.subject.top_k) == ("scripted", "q", PASSAGES, 1)


class Backwards(BaseReranker):
    async def order(self, query: str, passages: Sequence[Passage], seen: Opened | None) -> list[Passage]:
        return list(passages)[::-1]


async def test_reranker_of_ones_own_says_only_how_to_order() -> None:
    with record() as seen:
        assert ids(await Backwards("backwards").rerank("q", PASSAGES, top_k=2)) == ["c", "b"]
    assert seen.tree() == "rerank backwards"
    assert repr(Backwards("backwards")) == "Backwards('backwards')"


async def test_braces_in_a_query_are_no_fields() -> None:
    with ScriptedModel(['{"order": [1, 2, 3]}']) as model:
        await ModelReranker(model).rerank("what is {passages}?", PASSAGES)
    assert "Question: what is {passages}?\n" in model.calls[0].messages[0].text


def test_wrong_settings_are_refused_and_prompts_are_shown() -> None:
    name: Any = "gpt"
    with pytest.raises(DocumentError, match=r"ModelReranker\('gpt'\): it is no model"):
        ModelReranker(name)
    with pytest.raises(DocumentError, match=r"it lacks \{query\} and \{passages\}"):
        ModelReranker(ScriptedModel([]), prompt="Order!")
    assert ModelReranker(ScriptedModel([])).prompts() == {"rerank": PROMPT}
