"""Document 003, a chapter that describes its workflows in words: each is written here as it is described.

README.md has the numbers. The parts on llama_deploy are out of scope, as are Query Pipelines, which it replaces.
"""

import asyncio
from typing import Any

import pytest

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from agentflow.clock import current_clock, use_clock
from agentflow.testing import FakeClock
from agentflow_llm import OpenAI, Passage
from agentflow_llm.documents import Document
from agentflow_llm.index import VectorStoreIndex

from .stand_ins import Parrot


def test_events_carry_typed_fields() -> None:
    """003.1. Corrected: `NodeWithScore` is called `Passage`."""

    class QueryEvent(Event):
        query: str

    class RetrieveEvent(Event):
        query: str
        nodes: list[Passage]

    class SynthesizeEvent(Event):
        query: str
        context: str

    node = Passage("1", "text", 0.5)
    assert RetrieveEvent(query="q", nodes=[node]).nodes == [node]
    assert SynthesizeEvent(query="q", context="c").context == "c"
    with pytest.raises(ValueError, match="query"):
        QueryEvent.model_validate({"query": 3})


@pytest.mark.usefixtures("parrot")
async def test_a_step_takes_an_event_and_returns_one() -> None:
    """003.2."""

    class Processing(Workflow):
        llm = OpenAI()

        @step
        async def process(self, ev: StartEvent) -> StopEvent:
            query = ev.query
            result = await self.llm.acomplete(query)
            return StopEvent(result=result.text)

    assert await Processing().run(query="What is AI?") == "[What is AI?]"


async def test_run_gives_its_arguments_to_the_start_event_and_returns_the_result() -> None:
    """003.3: `run(query=..., context=...)` and a dictionary as result."""

    class Answering(Workflow):
        @step
        async def answer(self, ev: StartEvent) -> StopEvent:
            answer, sources = f"{ev.query} It depends.", [ev.context]
            return StopEvent(result={"answer": answer, "sources": sources})

    result = await Answering().run(query="What is AI?", context="a book")
    assert result == {"answer": "What is AI? It depends.", "sources": ["a book"]}


class RetrieveEvent(Event):
    """003.4, with the nodes of 003.1."""

    query: str
    nodes: list[Passage]


class RAGWorkflow(Workflow):
    """003.4. Corrected: the model is not that of global settings."""

    def __init__(self, index: VectorStoreIndex, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.index = index
        self.llm = OpenAI()

    @step
    async def retrieve(self, ev: StartEvent) -> RetrieveEvent:
        query = ev.query
        retriever = self.index.as_retriever(similarity_top_k=5)
        nodes = await retriever.aretrieve(query)
        return RetrieveEvent(query=query, nodes=nodes)

    @step
    async def synthesize(self, ev: RetrieveEvent) -> StopEvent:
        context = "\n\n".join([n.text for n in ev.nodes])
        prompt = f"Context: {context}\nQuestion: {ev.query}"
        response = await self.llm.acomplete(prompt)
        return StopEvent(result=response.text)


@pytest.mark.usefixtures("parrot")
async def test_a_rag_workflow_retrieves_and_synthesizes() -> None:
    """003.4: the five passages that say most about the question, the best first."""
    texts = ["A quantum computer computes with qubits: quantum computing.", "Computing with cogs.", "Quantum leaps."]
    texts += [f"Quantum number {n}." for n in range(5)]
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts])
    result = await RAGWorkflow(index=index).run(query="What is quantum computing?")
    context, _, question = result.partition("\nQuestion: ")
    assert question == "What is quantum computing?]"
    found = context.removeprefix("[Context: ").split("\n\n")
    assert found[0] == texts[0]
    assert len(found) == 5
    assert set(found) <= set(texts)


@pytest.mark.usefixtures("parrot")
def test_a_workflow_with_a_constructor_of_its_own_runs_in_plain_code(capsys: pytest.CaptureFixture[str]) -> None:
    """003.5: the options reach the base class, and `asyncio.run(main())` runs it."""
    layers = Document(text="Neural networks have layers.")

    async def main() -> Any:
        workflow = RAGWorkflow(index=VectorStoreIndex.from_documents([layers]), timeout=60, verbose=True)
        return await workflow.run(query="Explain neural networks")

    assert asyncio.run(main()) == "[Context: Neural networks have layers.\nQuestion: Explain neural networks]"
    assert capsys.readouterr().out.splitlines() == [
        "Running step retrieve",
        "Step retrieve produced event RetrieveEvent",
        "Running step synthesize",
        "Step synthesize produced event StopEvent",
    ]


@pytest.mark.parametrize(("query", "answer"), [("What is AI?", "looked up"), ("A poem, please", "made up")])
async def test_a_union_of_return_types_branches(query: str, answer: str) -> None:
    """003.6."""

    class QueryTypeEvent(Event):
        query: str
        query_type: str

    class FactualEvent(Event):
        query: str

    class CreativeEvent(Event):
        query: str

    class BranchingWorkflow(Workflow):
        @step
        async def classify(self, ev: StartEvent) -> QueryTypeEvent:
            factual = any(word in ev.query.lower() for word in ("explain", "what is"))
            return QueryTypeEvent(query=ev.query, query_type="factual" if factual else "creative")

        @step
        async def route(self, ev: QueryTypeEvent) -> FactualEvent | CreativeEvent:
            if ev.query_type == "factual":
                return FactualEvent(query=ev.query)
            return CreativeEvent(query=ev.query)

        @step
        async def handle_factual(self, ev: FactualEvent) -> StopEvent:
            return StopEvent(result="looked up")

        @step
        async def handle_creative(self, ev: CreativeEvent) -> StopEvent:
            return StopEvent(result="made up")

    assert await BranchingWorkflow().run(query=query) == answer


@pytest.mark.parametrize(("gain", "answer"), [(0.5, "draft, refined"), (0.1, "draft, refined, refined, refined")])
async def test_a_loop_refines_until_the_quality_or_the_limit_is_reached(gain: float, answer: str) -> None:
    """003.7: quality above 0.8, or three iterations."""

    class RefineEvent(Event):
        query: str
        answer: str
        iteration: int

    class QualityCheckEvent(Event):
        query: str
        answer: str
        iteration: int
        quality_score: float

    class RefinementWorkflow(Workflow):
        @step
        async def generate(self, ev: StartEvent | RefineEvent) -> QualityCheckEvent:
            if isinstance(ev, StartEvent):
                iteration, answer = 0, "draft"
            else:
                iteration, answer = ev.iteration + 1, f"{ev.answer}, refined"
            score = 0.4 + gain * iteration
            return QualityCheckEvent(query=ev.query, answer=answer, iteration=iteration, quality_score=score)

        @step
        async def check_quality(self, ev: QualityCheckEvent) -> RefineEvent | StopEvent:
            if ev.quality_score > 0.8 or ev.iteration >= 3:
                return StopEvent(result=ev.answer)
            return RefineEvent(query=ev.query, answer=ev.answer, iteration=ev.iteration)

    assert await RefinementWorkflow().run(query="why") == answer


async def test_state_is_set_in_one_step_and_read_in_another() -> None:
    """003.8. Corrected: `time.time()` is asked of a clock that stands still."""

    class MiddleEvent(Event):
        pass

    class StatefulWorkflow(Workflow):
        @step
        async def step1(self, ctx: Context, ev: StartEvent) -> MiddleEvent:
            await ctx.set("user_id", ev.user_id)
            await ctx.set("start_time", current_clock().time())
            return MiddleEvent()

        @step
        async def step2(self, ctx: Context, ev: MiddleEvent) -> StopEvent:
            user_id = await ctx.get("user_id")
            start_time = await ctx.get("start_time")
            return StopEvent(result=(user_id, start_time))

    with use_clock(FakeClock(start=99)):
        assert await StatefulWorkflow().run(user_id="u1") == ("u1", 99)


async def test_attributes_of_the_object_are_shared_by_steps_and_runs(parrot: Parrot) -> None:
    """003.9: configuration, client and cache on `self`."""

    class CachingWorkflow(Workflow):
        def __init__(self, config: dict[str, str], **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.config = config
            self.llm = OpenAI(model="gpt-4o")
            self.cache: dict[str, str] = {}

        @step
        async def answer(self, ev: StartEvent) -> StopEvent:
            if ev.query in self.cache:
                return StopEvent(result=self.cache[ev.query])
            response = await self.llm.acomplete(self.config["prefix"] + ev.query)
            self.cache[ev.query] = response.text
            return StopEvent(result=response.text)

    workflow = CachingWorkflow(config={"prefix": "Q: "}, timeout=60)
    assert [await workflow.run(query="why") for _ in range(3)] == ["[Q: why]"] * 3
    assert parrot.prompts == ["Q: why"]


class SearchResultEvent(Event):
    """003.10."""

    source: str
    results: list[str]


class AggregatedEvent(Event):
    """003.10."""

    all_results: dict[str, list[str]]


class ParallelSearchWorkflow(Workflow):
    """003.10. A returned list fans out, which the engine of that time refused. Corrected: `aggregate` takes `ctx`."""

    async def search(self, source: str, query: str) -> SearchResultEvent:
        """Stands in for `search_web`, `search_database` and `search_vector_store`."""
        return SearchResultEvent(source=source, results=[f"{query} in {source}"])

    @step
    async def dispatch(self, ev: StartEvent) -> list[SearchResultEvent]:
        tasks = [self.search(source, ev.query) for source in ("web", "database", "vector store")]
        return await asyncio.gather(*tasks)

    @step
    async def aggregate(self, ctx: Context, ev: SearchResultEvent) -> AggregatedEvent | None:
        events = ctx.collect_events(ev, [SearchResultEvent] * 3)
        if events is None:
            return None
        return AggregatedEvent(all_results={event.source: event.results for event in events})

    @step
    async def synthesize(self, ev: AggregatedEvent) -> StopEvent:
        return StopEvent(result=[result for results in ev.all_results.values() for result in results])


async def test_a_returned_list_fans_out_and_is_collected() -> None:
    """003.10."""
    result = await ParallelSearchWorkflow().run(query="cats")
    assert result == ["cats in web", "cats in database", "cats in vector store"]


async def test_a_semaphore_of_the_object_limits_a_step() -> None:
    """003.11: never more than `max_concurrent` inside it, whatever `num_workers` allows."""

    class WorkEvent(Event):
        number: int

    class DoneEvent(Event):
        number: int

    class RateLimitedWorkflow(Workflow):
        def __init__(self, max_concurrent: int = 5, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.semaphore = asyncio.Semaphore(max_concurrent)
            self.inside = self.most = 0

        @step
        async def dispatch(self, ev: StartEvent) -> list[WorkEvent]:
            return [WorkEvent(number=n) for n in range(20)]

        @step(num_workers=20)
        async def work(self, ev: WorkEvent) -> DoneEvent:
            async with self.semaphore:
                self.inside += 1
                self.most = max(self.most, self.inside)
                await asyncio.sleep(0)
                self.inside -= 1
            return DoneEvent(number=ev.number)

        @step
        async def gather(self, ctx: Context, ev: DoneEvent) -> StopEvent | None:
            done = ctx.collect_events(ev, [DoneEvent] * 20)
            return None if done is None else StopEvent(result=sorted(event.number for event in done))

    for limit in (1, 3, 5):
        workflow = RateLimitedWorkflow(max_concurrent=limit)
        assert await workflow.run() == list(range(20))
        assert workflow.most == limit


class ReviewEvent(Event):
    """003.12."""

    content: str
    requires_approval: bool


class InteractiveWorkflow(Workflow):
    """003.12. Corrected: the content is kept in the context, as a HumanResponseEvent does not carry it."""

    def generate_content(self, query: str) -> str:
        """Stands in for a model."""
        return f"All about {query}"

    def needs_review(self, content: str) -> bool:
        """Stands in for a judgement."""
        return "secret" in content

    @step
    async def generate(self, ctx: Context, ev: StartEvent) -> ReviewEvent:
        content = self.generate_content(ev.query)
        await ctx.set("content", content)
        return ReviewEvent(content=content, requires_approval=self.needs_review(content))

    @step
    async def request_review(self, ev: ReviewEvent) -> InputRequiredEvent | StopEvent:
        if not ev.requires_approval:
            return StopEvent(result=ev.content)
        return InputRequiredEvent(prefix=f"Publish {ev.content!r}? ")

    @step
    async def process_review(self, ctx: Context, ev: HumanResponseEvent) -> StopEvent:
        status = "approved" if ev.response.lower() == "yes" else "rejected"
        return StopEvent(result={"status": status, "content": await ctx.get("content")})


@pytest.mark.parametrize(
    ("query", "response", "result"),
    [
        ("cats", None, "All about cats"),
        ("secrets", "Yes", {"status": "approved", "content": "All about secrets"}),
        ("secrets", "no", {"status": "rejected", "content": "All about secrets"}),
    ],
)
async def test_a_human_reviews_what_needs_it(query: str, response: str | None, result: object) -> None:
    """003.12, with its usage pattern."""
    asked: list[str] = []
    workflow = InteractiveWorkflow()
    handler = workflow.run(query=query)
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            asked.append(event.prefix)
            handler.ctx.send_event(HumanResponseEvent(response=response))
    assert await handler == result
    assert asked == ([] if response is None else ["Publish 'All about secrets'? "])


class TopicEvent(Event):
    """003.16."""

    topic: str
    category: str


class SourceEvent(Event):
    """003.16."""

    source: str
    content: str
    quality: float


class CheckedEvent(Event):
    """003.16. Added: what `evaluate_quality` tells `synthesize`, which the exercise leaves open."""

    source: SourceEvent
    used: bool


class ResearchWorkflow(Workflow):
    """003.16, the exercise. A source of low quality is used only if a human says so."""

    @step
    async def classify_topic(self, ev: StartEvent) -> TopicEvent:
        return TopicEvent(topic=ev.topic, category="animals" if "cat" in ev.topic else "other")

    @step
    async def gather_sources(self, ev: TopicEvent) -> list[SourceEvent]:
        found = {"paper": 0.9, "blog": 0.2, "book": 0.8, "rumour": 0.1}
        return [SourceEvent(source=s, content=f"{ev.category} in a {s}", quality=q) for s, q in found.items()]

    @step
    async def evaluate_quality(self, ctx: Context, ev: SourceEvent) -> CheckedEvent:
        if ev.quality > 0.5:
            return CheckedEvent(source=ev, used=True)
        answer = await ctx.wait_for_event(
            HumanResponseEvent,
            waiter_event=InputRequiredEvent(prefix="Use it? ", source=ev.source),
            requirements={"source": ev.source},
        )
        return CheckedEvent(source=ev, used=answer.response == "yes")

    @step
    async def synthesize(self, ctx: Context, ev: CheckedEvent) -> StopEvent | None:
        checked = ctx.collect_events(ev, [CheckedEvent] * 4)
        if checked is None:
            return None
        return StopEvent(result=sorted(event.source.content for event in checked if event.used))


async def test_the_exercise_asks_for_each_low_source_and_takes_answers_in_any_order() -> None:
    """003.16: two questions are open at once, and each answer reaches the step that asked."""
    handler = ResearchWorkflow().run(topic="cats")
    asked: list[str] = []
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            asked.append(event.source)
            if len(asked) == 2:
                handler.ctx.send_event(HumanResponseEvent(source="rumour", response="no"))
                handler.ctx.send_event(HumanResponseEvent(source="blog", response="yes"))
    assert asked == ["blog", "rumour"]
    assert await handler == ["animals in a blog", "animals in a book", "animals in a paper"]
