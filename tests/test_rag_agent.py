"""RAGAgent: answers with checked citations, repairs, the corrective loop, follow-ups, limits, the stream."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from agentflow import Context, Event, Resource, draw_all_possible_flows, step
from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record
from agentflow_agents import AgentConfigurationError, Budget, BudgetExceededError, DocumentsError, TextDelta
from agentflow_agents.citations import Citation
from agentflow_agents.events import Withdrawn
from agentflow_agents.library import PassageFinder, Retrieval, no_reranker, no_retriever
from agentflow_agents.rag_agent import RAGAgent
from agentflow_agents.rag_events import Draft, Found, NotFound, RAGResult, RAGState, Ranked, Repair, Search
from agentflow_agents.resources import Model
from agentflow_llm import (
    BaseReranker,
    ChatMemory,
    ChatMessage,
    Document,
    DocumentError,
    HashEmbedder,
    LLMOutputError,
    LLMServerError,
    ModelReranker,
    OfflineModel,
    OpenAI,
    Passage,
    RefusalPart,
    Reply,
    ScriptedModel,
    SqliteVectorStore,
    TextPart,
    Usage,
    VectorStoreIndex,
)
from agentflow_llm.offline import CLOSING
from agentflow_llm.server import LoopbackServer

CATS = Document("A cat sleeps sixteen hours a day. It hunts at night.", "cats.md", {"source": "cats.md"})
COWS = Document("Cows give milk twice a day. A cow has four stomachs.", "cows.md", {"source": "cows.md"})
FARM = [CATS, COWS]
ASKED = "How long does a cat sleep a day?"
GOOD = "A cat sleeps 16 hours a day [1]."
NOT_FOUND = "The documents do not answer this."


def query(text: str) -> dict[str, str]:
    """What a model says that is asked for a query."""
    return {"query": text}


class Finder:
    """Finds what it is told to, search after search."""

    def __init__(self, *found: list[Passage]) -> None:
        self.found = list(found)
        self.queries: list[str] = []

    async def aretrieve(self, query: str) -> list[Passage]:
        self.queries.append(query)
        return self.found.pop(0) if self.found else []


def passage(name: str, text: str = "A cat sleeps sixteen hours a day.") -> Passage:
    return Passage(name, text, 1.0, {"source": f"{name}.md"})


async def stream_of(handler: Any) -> tuple[list[Any], str]:
    """The events of a run, and the text that a follower is left with."""
    events = [event async for event in handler.stream_events()]
    last = max((at for at, event in enumerate(events) if isinstance(event, Withdrawn)), default=-1)
    return events, "".join(event.text for event in events[last + 1 :] if isinstance(event, TextDelta))


# -- answers --------------------------------------------------------------------------------------------


async def test_answer_has_citations_that_were_checked() -> None:
    with ScriptedModel([GOOD]) as model:
        result = await RAGAgent(FARM, model).run(ASKED)
    assert isinstance(result, RAGResult)
    assert (result.output, str(result), result.found, result.stopped_by) == (GOOD, GOOD, True, "answer")
    assert result.citations == [Citation(1, "cats.md:1", "cats.md", "A cat sleeps 16 hours a day.", holds=True)]
    assert [p.id for p in result.passages] == ["cats.md:1", "cows.md:1"]
    assert result.queries == [ASKED]
    assert [(m.role, m.text) for m in result.messages] == [("user", ASKED), ("assistant", GOOD)]


async def test_model_is_shown_numbered_passages_with_their_places() -> None:
    guide = Document("# Cats\n\n## Sleep\n\nSixteen hours {a} day.\n", "cats.md", markup="markdown")
    with ScriptedModel(["Sixteen hours [1]."]) as model:
        await RAGAgent([guide], model).run("How many hours?")
    [call] = model.calls
    system, user = call.messages
    assert (system.role, system.text) == ("system", RAGAgent.PROMPTS["system"])
    assert "say only: The documents do not answer this.\n\n[1] cats.md:1 > Cats > Sleep\nSixteen" in user.text
    assert "hours {a} day." in user.text
    assert user.text.endswith("\n\nQuestion: How many hours?")


async def test_offline_model_answers_and_cites_and_says_when_it_is_not_there() -> None:
    agent = RAGAgent(FARM, OfflineModel())
    result = await agent.run("How many stomachs does a cow have?")
    assert str(result) == f"A cow has four stomachs. [1]\n\n{CLOSING}"
    assert [(c.source, c.holds) for c in result.citations] == [("cows.md", True)]
    unknown = await agent.run("Who won the world cup?")
    assert (unknown.output, unknown.found, unknown.citations, unknown.stopped_by) == (NOT_FOUND, False, [], "answer")


async def test_real_client_is_sent_the_same() -> None:
    script: list[Any] = [NOT_FOUND, TextPart(text='{"query": "cat day"}'), "A cat never sleeps [1][2].", GOOD]
    with LoopbackServer(script) as server:
        model = OpenAI("m", base_url=server.base_url, api_key="k")
        result = await RAGAgent(
            Finder([passage("a", "Dogs bark.")], [passage("b"), passage("c", "Cows give milk.")]), model
        ).run(ASKED)
        assert str(result) == GOOD
        asked = [request.json["messages"][-1]["content"] for request in server.requests]
    assert [text.splitlines()[0][:40] for text in asked] == [
        "Answer the question from the numbered pa",
        "A search through documents found nothing",
        "Answer the question from the numbered pa",
        "There is something wrong with your answe",
    ]
    assert "- Passage [1] does not say: A cat never sleeps.\n- Passage [2] does not say" in asked[-1]
    assert result.usage.http_requests == 4


# -- repair ---------------------------------------------------------------------------------------------


async def test_model_is_told_once_of_citations_that_do_not_hold() -> None:
    with ScriptedModel(["A cat sleeps 12 hours [1]. Cows fly [7].", GOOD]) as model:
        handler = RAGAgent(FARM, model).run(ASKED)
        events, text = await stream_of(handler)
    result = await handler
    assert (str(result), text) == (GOOD, GOOD)
    [told] = [event for event in events if isinstance(event, Repair)]
    assert told.problems == ["- Passage [1] does not say: A cat sleeps 12 hours.", "- There is no passage [7]."]
    assert [m.role for m in model.calls[1].messages] == ["system", "user", "assistant", "user"]
    assert "- There is no passage [7]." in model.calls[1].messages[-1].text
    assert [m.text for m in result.messages] == [ASKED, GOOD]


async def test_citation_that_still_does_not_hold_is_kept_and_says_so() -> None:
    with ScriptedModel(["A cat sleeps 12 hours [1].", "A cat sleeps 13 hours [1]."]) as model:
        result = await RAGAgent(FARM, model).run(ASKED)
    assert result.found
    assert [(c.claim, c.holds) for c in result.citations] == [("A cat sleeps 13 hours.", False)]


async def test_answer_without_citations_is_asked_for_them() -> None:
    with ScriptedModel(["Sixteen hours.", "Sixteen hours [1]."]) as model:
        result = await RAGAgent(FARM, model).run(ASKED)
    assert "No sentence has the number of a passage" in model.calls[1].messages[-1].text
    assert [c.holds for c in result.citations] == [True]


async def test_empty_answer_is_asked_for_again() -> None:
    with ScriptedModel(["", GOOD]) as model:
        result = await RAGAgent(FARM, model).run(ASKED)
    assert str(result) == GOOD
    assert [m.role for m in model.calls[1].messages] == ["system", "user", "user"]


async def test_model_that_keeps_silent_has_not_answered() -> None:
    with ScriptedModel(["", ""]) as model:
        result = await RAGAgent(FARM, model, rewrites=0).run(ASKED)
    assert (result.found, result.output, result.citations) == (False, NOT_FOUND, [])


async def test_model_that_refuses_is_not_argued_with() -> None:
    refused = Reply(message=ChatMessage(role="assistant", content=(RefusalPart(text="I will not."),)))
    with ScriptedModel([refused]) as model:
        result = await RAGAgent(FARM, model).run(ASKED)
    assert (result.output, result.found, result.citations) == ("I will not.", False, [])


# -- not in the documents, and the corrective loop --------------------------------------------------------


async def test_search_is_tried_again_in_other_words() -> None:
    finder = Finder([passage("a", "Dogs bark.")], [], [passage("b")])
    with ScriptedModel([NOT_FOUND, query("cat rest"), query("feline sleep"), GOOD]) as model:
        handler = RAGAgent(finder, model).run(ASKED)
        events, text = await stream_of(handler)
    result = await handler
    assert result.queries == finder.queries == [ASKED, "cat rest", "feline sleep"]
    assert [(e.number, e.query) for e in events if isinstance(e, Search)] == list(enumerate(result.queries, start=1))
    assert [[p.id for p in e.passages] for e in events if isinstance(e, Ranked)] == [["a"], ["b"]]
    assert (text, result.found, [c.passage_id for c in result.citations]) == (GOOD, True, ["b"])
    assert f"- {ASKED}\n- cat rest\n" in model.calls[2].messages[0].text


async def test_number_of_rewrites_is_bounded() -> None:
    with ScriptedModel([query("b"), query("c")]) as model:
        result = await RAGAgent(Finder(), model).run("a")
    assert (result.queries, result.found, result.output) == (["a", "b", "c"], False, NOT_FOUND)
    assert len(model.calls) == 2
    with ScriptedModel([]) as model:
        assert (await RAGAgent(Finder(), model, rewrites=0).run("a")).queries == ["a"]


@pytest.mark.parametrize("again", [ASKED, " ", "no JSON"])
async def test_without_another_query_it_is_not_there(again: str) -> None:
    said: list[Any] = ["no JSON", "no JSON"] if again == "no JSON" else [query(again)]
    with ScriptedModel(said) as model:
        result = await RAGAgent(Finder(), model).run(ASKED)
    assert (result.queries, result.found) == ([ASKED], False)


async def test_model_is_not_shown_the_same_passages_twice() -> None:
    finder = Finder([passage("a"), passage("b")], [passage("b"), passage("a")], [passage("c")])
    with ScriptedModel([NOT_FOUND, query("x"), query("y"), GOOD]) as model:
        result = await RAGAgent(finder, model).run(ASKED)
    assert (result.found, result.queries) == (True, [ASKED, "x", "y"])


@pytest.mark.parametrize("said", ["**the documents do not answer this**", f"Sorry. {NOT_FOUND}"])
async def test_sentence_is_known_again_and_the_result_has_it_as_it_is(said: str) -> None:
    with ScriptedModel([said]) as model:
        handler = RAGAgent(FARM, model, rewrites=0).run("Who milks a cow?")
        _, text = await stream_of(handler)
    result = await handler
    assert (result.output, text, result.found, result.messages[-1].text) == (NOT_FOUND, NOT_FOUND, False, NOT_FOUND)


async def test_sentence_beside_a_citation_is_no_refusal() -> None:
    said = f"{NOT_FOUND} But a cat hunts at night [1]."
    with ScriptedModel([said]) as model:
        result = await RAGAgent(FARM, model).run("When does a cat eat?")
    assert (result.found, result.output) == (True, said)


async def test_sentence_can_be_changed() -> None:
    with ScriptedModel(["Das steht nicht da."]) as model:
        agent = RAGAgent(FARM, model, rewrites=0, prompts={"not_found": "Das steht nicht da."})
        result = await agent.run("Who milks a cow?")
    assert (result.output, result.found) == ("Das steht nicht da.", False)
    assert "say only: Das steht nicht da.\n" in model.calls[0].messages[1].text


# -- follow-up questions ------------------------------------------------------------------------------------


async def test_question_that_follows_others_is_made_to_stand_alone() -> None:
    memory = ChatMemory()
    alone = "How many stomachs does a cow have?"
    with ScriptedModel(["Cows give milk [1].", query(alone), "A cow has four stomachs [1]."]) as model:
        agent = RAGAgent(FARM, model, memory)
        await agent.run("What do cows give?")
        result = await agent.run("And how many stomachs does it have?")
    assert result.queries == [alone]
    [told] = model.calls[1].messages
    assert "User: What do cows give?\nAssistant: Cows give milk.\n\nQuestion: And how many" in told.text
    assert model.calls[2].messages[-1].text.endswith(f"Question: {alone}")
    assert [m.text for m in await memory.aget()] == [
        "What do cows give?",
        "Cows give milk [1].",
        "And how many stomachs does it have?",
        "A cow has four stomachs [1].",
    ]


async def test_history_of_the_caller_and_the_context_of_an_earlier_run_go_on_too() -> None:
    said = [ChatMessage(role="user", content="Cows?"), ChatMessage(role="assistant", content="Yes.")]
    with ScriptedModel([query(ASKED), GOOD, query(ASKED), GOOD]) as model:
        agent = RAGAgent(FARM, model)
        handler = agent.run("And cats?", history=said)
        assert [m.text for m in (await handler).messages] == ["And cats?", GOOD]
        again = await agent.run("Really?", ctx=handler.ctx)
    assert (again.queries, [m.text for m in again.messages]) == ([ASKED], ["Really?", GOOD])
    assert "User: And cats?" in model.calls[2].messages[0].text


async def test_question_stays_as_it_is_where_the_model_writes_none() -> None:
    said = [ChatMessage(role="user", content="Cows?")]
    with ScriptedModel(["what?", "what?", GOOD]) as model:
        assert (await RAGAgent(FARM, model).run(ASKED, history=said)).queries == [ASKED]


# -- reranking ------------------------------------------------------------------------------------------------


class Backwards(BaseReranker):
    async def order(self, query: str, passages: Any, seen: Any) -> list[Passage]:
        return list(reversed(passages))


async def test_reranker_chooses_among_more() -> None:
    documents = [Document(f"Cat {n} sleeps.", str(n)) for n in range(6)]
    with ScriptedModel(["Cat 5 sleeps [1]."]) as model:
        result = await RAGAgent(documents, model, reranker=Backwards("b"), top_k=2).run("cat sleeps")
    assert len(result.passages) == 2
    plain = await VectorStoreIndex.from_documents(documents).as_retriever(8).aretrieve("cat sleeps")
    assert [p.id for p in result.passages] == [p.id for p in reversed(plain)][:2]


async def test_model_may_rerank_and_what_it_takes_counts() -> None:
    def used(part: TextPart) -> Reply:
        return Reply(message=ChatMessage(role="assistant", content=(part,)), usage=Usage(input_tokens=10))

    judge = ScriptedModel([used(TextPart(text='{"order": [2, 1]}'))])
    with ScriptedModel([used(TextPart(text=GOOD))]) as model, judge:
        result = await RAGAgent(FARM, model, reranker=ModelReranker(judge), top_k=1).run("cat day cows")
    assert len(result.passages) == 1
    assert result.usage.input_tokens == 20


class Wrong:
    """Finds and ranks, and gives what it is told to give."""

    def __init__(self, given: Any) -> None:
        self.given = given

    async def aretrieve(self, query: str) -> Any:
        return self.given

    async def rerank(self, query: str, passages: Any, *, top_k: int | None = None) -> Any:
        return self.given


@pytest.mark.parametrize("given", [None, 3, ["A cat sleeps."], [0, 1]])
async def test_what_finds_or_ranks_has_to_give_passages(given: Any) -> None:
    said = r"Wrong object.* gave .*Return a list of Passage\(id, text, score, metadata\)"
    with pytest.raises(DocumentsError, match=said):
        await RAGAgent(Wrong(given), OfflineModel()).run(ASKED)
    with pytest.raises(DocumentsError, match=said):
        await RAGAgent(FARM, OfflineModel(), reranker=Wrong(given)).run(ASKED)


# -- documents --------------------------------------------------------------------------------------------------


async def test_folder_is_read_before_the_first_search_and_again_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "farm"
    folder.mkdir()
    (folder / "cats.md").write_text("A cat sleeps sixteen hours a day.")
    store = SqliteVectorStore(tmp_path / "farm.db")
    agent = RAGAgent(folder, OfflineModel(), store=store, embedder=HashEmbedder())
    assert (await agent.run(ASKED)).citations[0].source == "farm/cats.md"
    assert not (await agent.run("How many stomachs does a cow have?")).found
    (folder / "cows.md").write_text("A cow has four stomachs.")
    result = await agent.ingest()
    assert (result.added, result.unchanged) == (["farm/cows.md"], ["farm/cats.md"])
    assert (await agent.run("How many stomachs does a cow have?")).found


def test_documents_are_read_once_whatever_event_loop_asks(tmp_path: Path) -> None:
    (tmp_path / "cats.md").write_text("A cat sleeps sixteen hours a day.")
    agent = RAGAgent(tmp_path, OfflineModel())
    assert agent.run_sync(ASKED).found
    (tmp_path / "cats.md").write_text("A cat hunts.")
    assert agent.run_sync(ASKED).found


async def test_offline_model_serves_every_part_of_it() -> None:
    agent = RAGAgent(FARM, OfflineModel(), ChatMemory(), reranker=ModelReranker(OfflineModel()))
    for asked in (ASKED, "And how many stomachs does a cow have?"):
        result = await agent.run(asked)
        assert (result.found, result.queries) == (True, [asked])


async def test_folder_without_documents_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\0")
    with pytest.raises(DocumentsError, match=r"'RAGAgent' has no documents to search. Left out: .*a.txt \(no text\)"):
        await RAGAgent(tmp_path, OfflineModel()).run("Why?")


async def test_documents_that_were_left_out_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_bytes(b"\0")
    (tmp_path / "cats.md").write_text("A cat sleeps sixteen hours a day.")
    assert (await RAGAgent({"farm": tmp_path}, OfflineModel(), name="farm").run(ASKED)).found
    assert "documents of 'farm'. Left out: farm/a.txt (no text)" in caplog.text


async def test_answer_is_streamed_by_a_real_client_too() -> None:
    with LoopbackServer(["A cat sleeps 12 hours a day [1].", GOOD]) as server:
        handler = RAGAgent(FARM, OpenAI("m", base_url=server.base_url, api_key="k")).run(ASKED)
        events, text = await stream_of(handler)
        assert all(request.json["stream"] for request in server.requests)
    assert text == str(await handler) == GOOD
    assert sum(isinstance(event, TextDelta) for event in events) > 4


async def test_index_or_finder_of_ones_own_may_be_given() -> None:
    with ScriptedModel([GOOD, GOOD, GOOD]) as model:
        assert (await RAGAgent(VectorStoreIndex.from_documents(FARM), model).run(ASKED)).found
        assert (await RAGAgent(Finder([passage("a")]), model).run(ASKED)).found
        agent = RAGAgent(llm=model, resources={no_retriever: Resource(lambda: Finder([passage("a")]))})
        assert (await agent.run(ASKED)).found
    with pytest.raises(DocumentsError, match="reads no documents itself"):
        await RAGAgent(Finder(), model).ingest()
    with pytest.raises(DocumentsError, match="that it was given"):
        await agent.ingest()


# -- limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("turns", "answer", "queries"), [(1, NOT_FOUND, 1), (2, "", 2), (3, "Cows fly [1].", 2)])
async def test_limit_of_turns_ends_in_what_there_is(turns: int, answer: str, queries: int) -> None:
    finder = Finder([passage("a", "Dogs bark.")], [passage("b")])
    said: list[Any] = [NOT_FOUND, query("x"), "Cows fly [1]."]
    with ScriptedModel(said[:turns]) as model:
        handler = RAGAgent(finder, model, budget=Budget(turns=turns)).run(ASKED)
        _, text = await stream_of(handler)
    result = await handler
    assert (result.stopped_by, result.output, text, len(result.queries)) == ("turns", answer, answer, queries)
    assert result.found is (turns == 3)
    assert [c.holds for c in result.citations] == [False] * (turns == 3)


async def test_last_answer_is_from_the_passages_that_there_are() -> None:
    finder = Finder([passage("a", "Dogs bark.")], [passage("b")])
    with ScriptedModel([NOT_FOUND, query("x"), GOOD]) as model:
        result = await RAGAgent(finder, model, budget=Budget(turns=2, last_answer=True)).run(ASKED)
    assert (result.stopped_by, result.output, result.found) == ("turns", GOOD, True)


async def test_limit_may_be_an_error_that_has_the_result() -> None:
    agent = RAGAgent(Finder(), ScriptedModel([query("x")]), budget=Budget(turns=1, raises=True))
    with pytest.raises(BudgetExceededError, match="its limit of turns") as raised:
        await agent.run("a")
    assert isinstance(raised.value.result, RAGResult)


async def test_time_that_is_over_stops_the_model() -> None:
    asking = asyncio.Event()

    class Slow(ScriptedModel):
        async def answer(self, call: Any) -> Reply:
            asking.set()
            await asyncio.Event().wait()
            return await super().answer(call)

    with use_clock(FakeClock()) as clock:
        handler = RAGAgent(FARM, Slow([]), budget=Budget(seconds=3)).run(ASKED)
        await asking.wait()
        await clock.advance(3)
        result = await handler
    assert (result.stopped_by, result.output, result.found) == ("seconds", "", False)


@pytest.mark.parametrize("slow", ["model", "finder", "reranker"])
async def test_time_that_is_over_stops_whatever_is_at_work(slow: str) -> None:
    working = asyncio.Event()

    async def work(*_: Any, **__: Any) -> Any:
        working.set()
        await asyncio.Event().wait()

    class Busy(Finder, BaseReranker):
        def __init__(self) -> None:
            Finder.__init__(self, [passage("a"), passage("b")])
            BaseReranker.__init__(self, "busy")

        async def order(self, query: str, passages: Any, seen: Any) -> list[Passage]:
            return list(await work())

    busy, model = Busy(), ScriptedModel([])
    if slow == "model":
        model.answer = work  # type: ignore[method-assign] # because it never answers
    if slow == "finder":
        busy.aretrieve = work  # type: ignore[method-assign] # because it never finds anything
    history = [ChatMessage(role="user", content="Cows?")] if slow == "model" else None
    with use_clock(FakeClock()) as clock:
        handler = RAGAgent(busy, model, reranker=busy, budget=Budget(seconds=3)).run(ASKED, history=history)
        await working.wait()
        await clock.advance(3)
        result = await handler
    assert (result.stopped_by, result.output, result.found, result.passages) == ("seconds", "", False, [])
    assert result.queries == ([] if slow == "model" else [ASKED])


@pytest.mark.parametrize("said", ["no JSON", LLMServerError("it is down")])
async def test_last_answer_that_does_not_come_leaves_what_there_is(said: Any) -> None:
    finder = Finder([passage("a", "Dogs bark.")], [passage("b")])
    model = ScriptedModel([Sleep(animal=NOT_FOUND, told=""), query("x"), said])
    budget = Budget(turns=2, last_answer=True)
    result = await RAGAgent(finder, model, output=Sleep, budget=budget).run(ASKED)
    assert (result.stopped_by, result.output, result.citations) == ("turns", None, [])
    assert [p.id for p in result.passages] == ["b"]


# -- output, stream, changes ---------------------------------------------------------------------------------------


class Sleep(BaseModel):
    animal: str
    told: str


async def test_output_of_a_class_has_its_citations_checked_too() -> None:
    answer = Sleep(animal="cat", told="A cat sleeps 12 hours a day [1].")
    better = Sleep(animal="cat", told=GOOD)
    with ScriptedModel([answer, better]) as model:
        result = await RAGAgent(FARM, model, output=Sleep).run(ASKED)
    assert result.output == better
    assert [(c.claim, c.holds) for c in result.citations] == [("A cat sleeps 16 hours a day.", True)]
    with ScriptedModel([Sleep(animal=NOT_FOUND, told="")]) as model:
        unknown = await RAGAgent(FARM, model, output=Sleep, rewrites=0).run("Who milks a cow?")
    assert (unknown.output, unknown.found, str(unknown)) == (None, False, NOT_FOUND)


async def test_output_that_is_not_valid_is_repaired() -> None:
    with ScriptedModel(["no JSON", Sleep(animal="cat", told=GOOD)]) as model:
        handler = RAGAgent(FARM, model, output=Sleep).run(ASKED)
        _, text = await stream_of(handler)
    assert (await handler).found
    assert text == Sleep(animal="cat", told=GOOD).model_dump_json()


async def test_output_that_is_not_valid_twice_is_an_error() -> None:
    with ScriptedModel(["no JSON", "no JSON"]) as model, pytest.raises(LLMOutputError):
        await RAGAgent(FARM, model, output=Sleep).run(ASKED)


async def test_reranker_whose_model_cannot_be_read_keeps_the_order_and_is_counted() -> None:
    judge = ScriptedModel(["no JSON"] * 2)
    with ScriptedModel([]) as model, judge:
        agent = RAGAgent(FARM, model, reranker=ModelReranker(judge), budget=Budget(turns=1))
        result = await agent.run("cat day cows")
    assert (result.stopped_by, [p.id for p in result.passages]) == ("turns", ["cows.md:1", "cats.md:1"])


async def test_text_comes_in_pieces_where_somebody_follows_and_queries_are_no_text() -> None:
    said = [ChatMessage(role="user", content="Cows?")]
    with ScriptedModel([query(ASKED), GOOD]) as model:
        handler = RAGAgent(FARM, model).run("And cats?", history=said)
        events, text = await stream_of(handler)
    assert text == GOOD
    assert sum(isinstance(event, TextDelta) for event in events) > 3
    assert not any(isinstance(event, Withdrawn) for event in events)


async def test_run_that_is_put_away_goes_on() -> None:
    with ScriptedModel([NOT_FOUND, query("cow stomachs"), "A cow has four stomachs [1]."]) as model:
        agent = RAGAgent(FARM, model, top_k=1)
        handler = agent.run("cat", stepwise=True)
        for _ in range(5):
            for event in await handler.run_step():
                handler.ctx.send_event(event)
        stored = handler.ctx.to_dict()
        await handler.cancel_run()
        result = await RAGAgent(FARM, model, top_k=1).run(ctx=Context.from_dict(agent, stored))
    assert (str(result), result.queries) == ("A cow has four stomachs [1].", ["cat", "cow stomachs"])


async def test_memory_has_each_turn_once_wherever_the_run_is_put_away() -> None:
    given = asyncio.Event()

    class Slow(ChatMemory):
        async def aput(self, *messages: ChatMessage) -> None:
            await super().aput(*messages)
            if not given.is_set():
                given.set()
                await asyncio.Event().wait()

    memory = Slow()
    with ScriptedModel([GOOD]) as model:
        agent = RAGAgent(FARM, model, memory)
        handler = agent.run(ASKED)
        await given.wait()
        stored = handler.ctx.to_json()
        await handler.cancel_run()
        result = await agent.run(ctx=Context.from_json(agent, stored))
    assert [m.text for m in result.messages] == [m.text for m in await memory.aget()] == [ASKED, GOOD]


async def test_limit_that_is_reached_before_the_model_is_asked_takes_nothing_back() -> None:
    history = [ChatMessage(role="user", content="Cows?")]
    with ScriptedModel([query(ASKED)]) as model:
        handler = RAGAgent(FARM, model, budget=Budget(turns=1)).run("And cats?", history=history)
        events, text = await stream_of(handler)
    assert ((await handler).stopped_by, text) == ("turns", "")
    assert not any(isinstance(event, Withdrawn) for event in events)


async def test_prompts_are_shown_and_can_be_changed() -> None:
    class German(RAGAgent):
        PROMPTS = {"system": "Antworte auf Deutsch."}  # noqa: RUF012 because a subclass only changes it

    with ScriptedModel([GOOD, GOOD]) as model:
        agent = German(FARM, model, prompts={"passage": "[{number}] {text} ({source})"})
        assert agent.prompts().keys() >= RAGAgent.PROMPTS.keys()
        await agent.run(ASKED)
        await RAGAgent(FARM, model, system_prompt="").run(ASKED)
    assert model.calls[0].messages[0].text == "Antworte auf Deutsch."
    assert "[1] A cat sleeps sixteen hours a day. It hunts at night. (cats.md)" in model.calls[0].messages[1].text
    assert [m.role for m in model.calls[1].messages] == ["user"]


async def test_step_can_be_replaced() -> None:
    class Shouting(RAGAgent):
        @step
        async def draft(
            self,
            ctx: Context[RAGState],
            ev: Ranked | Repair,
            llm: Model,
            finder: Annotated[Any, Resource(no_retriever)] = None,
        ) -> Draft:
            assert isinstance(finder, PassageFinder)
            return Draft(text="A CAT SLEEPS SIXTEEN HOURS A DAY [1]!")

    assert (await Shouting(FARM, OfflineModel()).run(ASKED)).citations[0].holds


class Translated(Event):
    query: str


async def test_step_can_be_added() -> None:
    class Translating(RAGAgent):
        PROMPTS = {"translate": "In English: {question}"}  # noqa: RUF012 because a subclass only adds one

        @step
        async def retrieve(self, ev: Search, llm: Model) -> Translated:  # type: ignore[override] # because a step is put in between
            asked = self.prompt("translate", question=ev.query)
            return Translated(query=(await llm.chat([ChatMessage(role="user", content=asked)])).message.text)

        @step
        async def look_up(self, ev: Translated, finder: Retrieval) -> Found | NotFound:
            return Found(passages=await finder.aretrieve(ev.query))

    with ScriptedModel(["How long do cats sleep?", GOOD]) as model:
        result = await Translating(FARM, model).run("Wie lange schläft eine Katze?")
    assert model.calls[0].messages[0].text == "In English: Wie lange schläft eine Katze?"
    assert result.found


async def test_any_text_is_a_question() -> None:
    agent = RAGAgent(FARM, OfflineModel(), rewrites=1)
    for asked in ("", " ", "???", "\udcff", "a\0b", "{passages}", "x" * 50_000):
        assert not (await agent.run(asked)).found


async def test_runs_at_once_do_not_mix() -> None:
    agent = RAGAgent(FARM, OfflineModel())
    asked = [ASKED, "How many stomachs does a cow have?", "Who won the world cup?"] * 4
    results = await asyncio.gather(*(agent.run(one) for one in asked))
    assert [result.passages[0].id if result.found else None for result in results] == [
        "cats.md:1",
        "cows.md:1",
        None,
    ] * 4


async def test_trace_has_the_search_and_the_model_calls() -> None:
    with record() as seen, ScriptedModel([GOOD]) as model:
        await RAGAgent(FARM, model, name="farm").run(ASKED)
    tree = seen.tree()
    assert "retrieval farm" in tree
    assert "chat scripted" in tree
    assert "run Ingest" in tree


def test_it_is_drawn(tmp_path: Path) -> None:
    draw_all_possible_flows(RAGAgent, str(tmp_path / "rag.mmd"))
    drawn = (tmp_path / "rag.mmd").read_text()
    assert all(name in drawn for name in ("prepare", "retrieve", "rank", "draft", "check", "rewrite", "finish"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r'RAGAgent\(\) has no documents. Write RAGAgent\("path/of/a/folder"'),
        ({"documents": FARM, "top_k": 0}, r"top_k=0\): it must be a whole number of 1 or more"),
        ({"documents": FARM, "rewrites": True}, r"rewrites=True\): it must be a whole number of 0 or more"),
        ({"documents": FARM, "similarity_top_k": 3}, r"no option 'similarity_top_k'. It is top_k=... here"),
        ({"documents": FARM, "top_n": 3}, r"RAGAgent has no option 'top_n'"),
        ({"documents": FARM, "reranker": 3}, r"reranker=3\): it has no rerank"),
        ({"documents": Finder(), "embedder": HashEmbedder()}, "has its own. Leave them out"),
        ({"documents": FARM, "prompts": {"answer": "{question}"}}, r"lacks {not_found} and {passages}"),
        ({"documents": FARM, "prompts": {"not_found": "..."}}, "the agent can know again"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentConfigurationError, match=said):
        RAGAgent(**options)


def test_documents_that_are_not_there_are_refused_when_it_is_made() -> None:
    with pytest.raises(DocumentsError, match="does not exist"):
        RAGAgent("no/such/folder")
    with pytest.raises(DocumentsError, match=r"has no documents to search: there are none in \[\]"):
        RAGAgent([])
    with pytest.raises(DocumentsError, match=r'Write "." for the folder you are in'):
        RAGAgent("")
    with pytest.raises(DocumentsError, match=r"is no Document, file or folder. A model is given as llm="):
        RAGAgent(OfflineModel())  # type: ignore[arg-type] # because it is wrong
    with pytest.raises(DocumentError, match=r"two documents have the id 'cats\.md'"):
        RAGAgent([*FARM, Document("Dogs bark.", "cats.md")])
    with pytest.raises(DocumentError, match="no embed"):
        RAGAgent(FARM, embedder=3)  # type: ignore[arg-type] # because it is wrong


def test_resources_of_steps_can_be_given_by_their_factories() -> None:
    agent = RAGAgent(FARM, resources={no_reranker: Backwards("b")})
    agent.validate()
