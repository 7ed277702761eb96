"""Judge a question, improve it in a loop, answer it in three ways at once, and let a judge pick the best answer.

    python examples/judged_answers.py "Wo discoverd oxigen?"

    Question ─► judge_query ─┬─► NaiveRAGEvent ──► naive_rag ──┬─► ResponseEvent ─► judge_response ─► Answer
                  ▲      │   ├─► HighTopKEvent ──► high_top_k ─┤
            JudgeEvent   ▼   └─► RerankEvent ────► rerank ─────┘
              improve_query

The model answers, and is asked which answer is best. The question's judge only knows the words of the documents.
"""

import asyncio
import json
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, ChatModel, Document, OfflineModel, Passage, VectorStoreIndex
from agentflow_llm.reading import stem, stems, words

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "In what year did a tropical strom cause a four day loss of power to Jaksonville?"


class Said(BaseModel):
    answer: str | None = Field(None, description="The answer, from the passages alone; null if they have none.")


class Verdict(BaseModel):
    source: str = Field(description="The number of the response that answers the question best.")


class Library:
    def __init__(self, texts: list[str]) -> None:
        self.index = VectorStoreIndex.from_documents([Document(text) for text in texts])
        self.words = sorted({word for text in texts for word in words(text.lower())})
        self.stems = frozenset(map(stem, self.words))


def read_library() -> Library:  # your own: the texts of load("folder").documents
    return Library([p["context"] for a in json.loads(ARTICLES.read_text("utf-8"))["data"] for p in a["paragraphs"]])


class QueryJudge:  # your own: one that asks a model, as judge_response does
    async def unclear_word(self, query: str, documents: Library) -> str | None:
        return next((word for word in words(query) if not documents.stems.issuperset(stems(word))), None)


Documents = Annotated[Library, Resource(read_library)]
Model = Annotated[ChatModel, Resource(OfflineModel)]  # your own: Resource(lambda: OpenAI("gpt-4o-mini"))


class Question(StartEvent):
    query: str


class JudgeEvent(Event):
    query: str


class BadQueryEvent(Event):
    query: str
    unclear: str


class NaiveRAGEvent(Event):
    query: str


class HighTopKEvent(Event):
    query: str


class RerankEvent(Event):
    query: str


class ResponseEvent(Event):
    query: str
    strategy: str
    text: str


class Answer(StopEvent):
    responses: list[ResponseEvent]
    best: ResponseEvent | None


class JudgeQuery(Workflow[Question, Answer]):
    @step
    async def judge_query(
        self, ev: Question | JudgeEvent, documents: Documents, judge: Annotated[QueryJudge, Resource(QueryJudge)]
    ) -> BadQueryEvent | list[NaiveRAGEvent | HighTopKEvent | RerankEvent]:
        if (unclear := await judge.unclear_word(ev.query, documents)) and unclear in words(ev.query):
            return BadQueryEvent(query=ev.query, unclear=unclear)
        return [NaiveRAGEvent(query=ev.query), HighTopKEvent(query=ev.query), RerankEvent(query=ev.query)]

    @step
    async def improve_query(self, ev: BadQueryEvent, documents: Documents) -> JudgeEvent:
        near = "".join(get_close_matches(ev.unclear.lower(), documents.words, n=1, cutoff=0.75))
        better = {ev.unclear: near if near != ev.unclear.lower() else ""}  # what the judge does not want is left out
        return JudgeEvent(query=" ".join(filter(None, (better.get(word, word) for word in words(ev.query)))))

    @step
    async def naive_rag(self, ev: NaiveRAGEvent, documents: Documents, llm: Model) -> ResponseEvent:
        return await respond("naive", ev.query, await documents.index.as_retriever(1).aretrieve(ev.query), llm)

    @step
    async def high_top_k(self, ev: HighTopKEvent, documents: Documents, llm: Model) -> ResponseEvent:
        return await respond("high top k", ev.query, await documents.index.as_retriever(10).aretrieve(ev.query), llm)

    @step
    async def rerank(self, ev: RerankEvent, documents: Documents, llm: Model) -> ResponseEvent:
        found, asked = await documents.index.as_retriever(5).aretrieve(ev.query), set(stems(ev.query))
        found.sort(key=lambda passage: -len(asked.intersection(stems(passage.text))))
        return await respond("rerank", ev.query, found[:2], llm)

    @step
    async def judge_response(self, ctx: Context, ev: ResponseEvent, llm: Model) -> Answer | None:
        responses = ctx.collect_events(ev, {ResponseEvent: 3})
        if responses is None:
            return None
        responses.sort(key=lambda one: (len(one.text), one.strategy))  # of equally good ones the first is the shortest
        numbered = {str(number): one for number, one in enumerate(responses, start=1)}
        told = "\n\n".join(f"[{number}]\n{one.text}" for number, one in numbered.items())
        asked = ChatMessage(role="user", content=f"{told}\n\nQuestion: {ev.query}")
        verdict = (await llm.chat([asked], output=Verdict)).output
        return Answer(responses=responses, best=numbered.get(verdict.source) if isinstance(verdict, Verdict) else None)


async def respond(strategy: str, query: str, passages: list[Passage], llm: ChatModel) -> ResponseEvent:
    prompt = "\n\n".join([*(passage.text for passage in passages), f"Question: {query}"])
    said = (await llm.chat([ChatMessage(role="user", content=prompt)], output=Said)).output
    return ResponseEvent(query=query, strategy=strategy, text=said.answer or "" if isinstance(said, Said) else "")


async def main(question: str) -> None:
    answer = await JudgeQuery(verbose=True).run(query=question)
    print(f"\n{answer.responses[0].query}")
    for response in answer.responses:
        print(f"{'best' if response == answer.best else '':5}{response.strategy:11}{response.text}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
