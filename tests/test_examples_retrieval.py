"""The recipes that search: what they promise beyond what they print."""

from __future__ import annotations

import asyncio
import importlib.util
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_llm import Passage, ScriptedModel

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> Any:
    """The program, imported."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where annotations of steps are looked up
    spec.loader.exec_module(module)
    return module


citation_query = example("citation_query")
corrective_rag = example("corrective_rag")
query_rewriting = example("query_rewriting")
rag_with_rerank = example("rag_with_rerank")
sub_questions = example("sub_questions")
text_to_sql = example("text_to_sql")


def passages(*texts: str) -> list[Passage]:
    return [Passage(text, text, 1 / place, {"source": text}) for place, text in enumerate(texts, start=1)]


class Shelf:
    """A retriever that finds what it is told to find, by the query."""

    def __init__(self, found: Mapping[str, Sequence[str]] | None = None) -> None:
        self.found = found or {}
        self.asked: list[str] = []

    async def aretrieve(self, query: str) -> list[Passage]:
        self.asked.append(query)
        return passages(*self.found.get(query, ()))


class Backwards:
    """A reranker for which the last is the best."""

    async def rerank(self, query: str, passages: Sequence[Passage], *, top_k: int | None = None) -> list[Passage]:
        return [*reversed(passages)]


class TestRerank:
    async def test_the_answer_is_from_the_passage_that_the_reranker_puts_first(self) -> None:
        cats = {
            rag_with_rerank.read_articles: Shelf({"When sleeps a cat?": ["A cat is small.", "A cat sleeps all day."]}),
            rag_with_rerank.choose_reranker: Backwards(),
        }
        answer = await rag_with_rerank.RAGWithRerank(resources=cats).run(query="When sleeps a cat?")
        assert answer.source == "A cat sleeps all day."
        assert answer.text.startswith("A cat sleeps all day.")

    async def test_where_nothing_is_found_nobody_is_asked(self) -> None:
        nothing = {
            rag_with_rerank.read_articles: Shelf(),
            rag_with_rerank.choose_model: ScriptedModel([]),
        }
        answer = await rag_with_rerank.RAGWithRerank(resources=nothing).run(query="When sleeps a cat?")
        assert answer.text == "No passage has a word of it."

    async def test_the_best_sentence_of_a_passage_counts_and_not_its_length(self) -> None:
        first, second = "The weather was fine. " * 5 + "Some cats are grey.", "It rained. At noon all cats sleep."
        order = await rag_with_rerank.BestSentence().rerank(
            "Do all cats sleep at noon?", [Passage("1", first, 1.0), Passage("2", second, 0.9)]
        )
        assert [passage.id for passage in order] == ["2", "1"]


ROLLO = "Rollo came to Normandy in 911, with his men. They were Vikings."


class TestCitations:
    @pytest.mark.parametrize(
        ("statement", "number", "problem"),
        [
            ("Rollo came in 911.", 1, ""),
            ("His men were Vikings.", 1, ""),
            ("Rollo came in 912.", 1, "it says nothing of 912"),
            ("Rollo came in 911.", 2, "there is no such passage"),
            ("Rollo came in 911.", 0, "there is no such passage"),
            ("William conquered England.", 1, "it says nothing of conquer, england, william"),
        ],
    )
    def test_a_statement_is_held_against_its_passage(self, statement: str, number: int, problem: str) -> None:
        assert citation_query.problem_of(statement, number, [ROLLO]) == problem

    @given(st.text(), st.text(), st.text())
    def test_what_a_passage_says_word_for_word_holds(self, before: str, statement: str, after: str) -> None:
        assert not citation_query.problem_of(statement, 1, [f"{before} {statement} {after}"])

    @given(st.integers(min_value=0))
    def test_no_number_that_is_not_in_the_passage_gets_through(self, year: int) -> None:
        assert bool(citation_query.problem_of(f"Rollo came in {year}.", 1, [ROLLO])) == (year != 911)

    async def ask(self, *replies: str) -> tuple[Any, ScriptedModel]:
        with ScriptedModel(replies) as model:
            flow = citation_query.CitationQuery(
                resources={
                    citation_query.choose_model: model,
                    citation_query.read_articles: Shelf({"Who is Rollo?": [ROLLO]}),
                }
            )
            return await flow.run(query="Who is Rollo?"), model

    async def test_a_wrong_statement_goes_back_with_what_is_wrong(self) -> None:
        answer, model = await self.ask("Rollo came in 912. [1]", "Rollo came in 911. [1]")
        assert answer.statements == ["Rollo came in 911. [1]"]
        assert answer.passages == {1: ROLLO}
        told = model.calls[1].messages
        assert [message.role for message in told[-2:]] == ["assistant", "user"]
        assert "- Rollo came in 912. [1]: it says nothing of 912" in told[-1].text

    async def test_what_is_still_wrong_is_left_out(self) -> None:
        answer, _ = await self.ask("Rollo came in 912. [1]", "Rollo came in 913. [1] They were Vikings. [1]")
        assert answer.statements == ["They were Vikings. [1]"]

    async def test_a_reply_without_citations_is_no_answer(self) -> None:
        answer, _ = await self.ask("I believe that he was a nice man.")
        assert answer.statements == []


class TestCorrectiveRAG:
    def flow(self, guide: Shelf, elsewhere: Shelf, *rewritten: str) -> Any:
        resources = {
            corrective_rag.choose_sources: [guide, elsewhere],
            corrective_rag.choose_writer: ScriptedModel(rewritten),
        }
        return corrective_rag.CorrectiveRAG(resources=resources)

    async def test_a_good_passage_needs_no_correction(self) -> None:
        elsewhere = Shelf()
        flow = self.flow(Shelf({"When sleeps a cat?": ["Rain fell.", "A cat sleeps all day."]}), elsewhere)
        answer = await flow.run(query="When sleeps a cat?")
        assert [one.quote for one in answer.found] == ["A cat sleeps all day."]
        assert elsewhere.asked == []

    async def test_after_poor_passages_the_rewritten_question_is_asked_elsewhere(self) -> None:
        guide = Shelf({"What of a moggy?": ["Rain fell."]})
        elsewhere = Shelf({"When sleeps a cat?": ["A cat sleeps all day."]})
        answer = await self.flow(guide, elsewhere, "When sleeps a cat?").run(query="What of a moggy?")
        assert [one.quote for one in answer.found] == ["A cat sleeps all day."]
        assert (guide.asked, elsewhere.asked) == (["What of a moggy?"], ["When sleeps a cat?"])

    async def test_the_corrections_have_a_bound(self) -> None:
        elsewhere = Shelf({"An ounce?": ["Rain fell."]})
        answer = await self.flow(Shelf(), elsewhere, "An ounce?", "A lynx?").run(query="What of a moggy?")
        assert answer.found == []
        assert elsewhere.asked == ["An ounce?", "A lynx?"]

    async def test_the_best_passage_stands_first_whichever_was_graded_first(self) -> None:
        found = ["A cat sleeps.", "A cat sleeps long.", "A cat sleeps well."]
        flow = self.flow(Shelf({"Sleeps a cat?": found}), Shelf())
        answer = await flow.run(query="Sleeps a cat?")
        assert [one.passage.score for one in answer.found] == [1, 1 / 2, 1 / 3]


class TestSubQuestions:
    async def test_the_parts_are_joined_by_their_years_and_what_is_unknown_is_named(self) -> None:
        parts = ["When was Ada born?", "When was Alan born?", "When was Grace born?"]
        said = ["Ada Lovelace was born in 1815.", "Nobody knows.", "In 1906 Grace Hopper was born."]
        shelf = Shelf({part: [text] for part, text in zip(parts, said, strict=True)})
        resources = {
            sub_questions.choose_planner: ScriptedModel([sub_questions.Plan(questions=[*reversed(parts)])]),
            sub_questions.read_articles: shelf,
        }
        answer = await sub_questions.SubQuestions(resources=resources).run(query="Who was born first?")
        assert [finding.year for finding in answer.timeline] == [1815, 1906]
        assert answer.unanswered == [parts[1]]
        assert sorted(shelf.asked) == sorted(parts)

    async def test_a_part_for_which_nothing_is_found_is_unanswered(self) -> None:
        resources = {
            sub_questions.choose_planner: ScriptedModel([sub_questions.Plan(questions=["When?"])]),
            sub_questions.read_articles: Shelf(),
        }
        answer = await sub_questions.SubQuestions(resources=resources).run(query="When?")
        assert (answer.timeline, answer.unanswered) == ([], ["When?"])


class TestQueryRewriting:
    async def test_what_stands_high_in_many_orders_comes_first(self) -> None:
        first = {"What is a moggy?": "Noise.", "What is a cat?": "Dogs.", "A pet.": "Birds."}
        found = {query: [text, "Cats."] for query, text in first.items()}
        rewritings = query_rewriting.Rewritings(otherwise="What is a cat?", hoped_for="A pet.")
        resources = {
            query_rewriting.choose_writer: ScriptedModel([rewritings]),
            query_rewriting.read_articles: Shelf(found),
        }
        handler = query_rewriting.QueryRewriting(resources=resources).run(query="What is a moggy?")
        hits = [event async for event in handler.stream_events() if isinstance(event, query_rewriting.Hits)]
        assert (await handler).source == "Cats."
        assert sorted(hit.query for hit in hits) == sorted(found)

    async def test_where_nothing_is_found_it_says_so(self) -> None:
        rewritings = query_rewriting.Rewritings(otherwise="a", hoped_for="b")
        resources = {
            query_rewriting.choose_writer: ScriptedModel([rewritings]),
            query_rewriting.read_articles: Shelf(),
        }
        answer = await query_rewriting.QueryRewriting(resources=resources).run(query="c")
        assert answer.text == "Nothing was found."


@pytest.fixture(scope="module")
def shop() -> Iterator[Any]:
    yield from text_to_sql.open_shop()


SOLD = {"InvoiceLine", "Track", "Album", "Artist"}
ALL = SOLD | {"Customer", "Employee", "Genre", "Invoice", "MediaType", "Playlist", "PlaylistTrack"}
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"


class TestTextToSQL:
    async def ask(self, shop: Any, *replies: str, query: str = "Which artists?", **limits: int) -> tuple[Any, Any]:
        """What comes of it, and the model that was asked."""
        limited = type("Limited", (text_to_sql.TextToSQL,), limits)
        with ScriptedModel(replies) as model:
            resources = {text_to_sql.open_shop: shop, text_to_sql.choose_model: model}
            return await limited(resources=resources).run(query=query), model

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM Customer",
            "UPDATE Customer SET Country = 'Nowhere'",
            "INSERT INTO Artist VALUES (1000, 'Nobody')",
            "REPLACE INTO Artist VALUES (1, 'Nobody')",
            "DROP TABLE Customer",
            "CREATE TABLE mine (a)",
            "CREATE TEMP TABLE mine AS SELECT * FROM Customer",
            "ALTER TABLE Customer ADD COLUMN mine",
            "PRAGMA query_only = OFF",
            "PRAGMA writable_schema = ON",
            "BEGIN IMMEDIATE",
            "REINDEX",
            "ATTACH '{folder}/other.db' AS other",
            "VACUUM INTO '{folder}/copy.db'",
            "SELECT load_extension('{folder}/evil')",
            "SELECT 1; DELETE FROM Customer",
            "",
        ],
    )
    def test_what_does_more_than_read_is_refused(self, shop: Any, sql: str, tmp_path: Path) -> None:
        before = shop.file.read_bytes()
        replies = [sql.format(folder=tmp_path), "SELECT COUNT(*) FROM Customer"]
        found, model = asyncio.run(self.ask(shop, *replies))
        assert found.rows == [[59]]
        assert model.calls[1].messages[-1].text.startswith("The database refuses it: ")
        assert shop.file.read_bytes() == before
        assert list(tmp_path.iterdir()) == []

    async def test_the_file_is_read_only_even_without_the_authorizer(
        self, shop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(text_to_sql, "READING", set(range(100)))
        _, model = await self.ask(shop, "DELETE FROM Customer", "SELECT 1")
        assert "attempt to write a readonly database" in model.calls[1].messages[-1].text

    async def test_the_error_goes_back_behind_the_query(self, shop: Any) -> None:
        _, model = await self.ask(shop, "SELECT Nam FROM Artist", "SELECT Name FROM Artist")
        asked, wrong, told = model.calls[1].messages
        assert (asked, wrong.text) == (model.calls[0].messages[0], "SELECT Nam FROM Artist")
        assert told.text == "The database refuses it: no such column: Nam. Correct it."

    async def test_the_attempts_have_a_bound(self, shop: Any) -> None:
        with pytest.raises(sqlite3.OperationalError, match="no such table: Third"):
            await self.ask(shop, "SELECT * FROM First", "SELECT * FROM Second", "SELECT * FROM Third")

    async def test_a_query_that_works_long_is_cut_off(self, shop: Any) -> None:
        found, model = await self.ask(shop, ENDLESS, "SELECT 1", most_work=10_000)
        assert found.rows == [[1]]
        assert "interrupted" in model.calls[1].messages[-1].text

    async def test_no_more_rows_are_taken_than_allowed(self, shop: Any) -> None:
        found, _ = await self.ask(shop, "SELECT Name FROM Track", most_rows=7)
        assert (found.columns, len(found.rows)) == (["Name"], 7)

    async def test_a_query_in_a_fence_is_taken_out_of_it(self, shop: Any) -> None:
        found, _ = await self.ask(shop, "```sql\nSELECT 1 AS one\n```")
        assert (found.columns, found.rows) == (["one"], [[1]])

    @pytest.mark.parametrize(
        ("query", "tables"),
        [
            ("Which five artists have sold the most tracks?", SOLD),
            ("Which employee supports the customers who paid most?", {"Customer", "Employee", "Invoice"}),
            ("How long is the average track of each genre?", {"Genre", "Track", "PlaylistTrack"}),
            ("xyzzy", ALL),
        ],
    )
    async def test_the_model_is_shown_the_tables_of_the_question_and_those_between(
        self, shop: Any, query: str, tables: set[str]
    ) -> None:
        _, model = await self.ask(shop, "SELECT 1", query=query)
        _, *shown = model.calls[0].messages[0].text.splitlines()
        assert {line.strip().partition("(")[0] for line in shown} == tables

    def test_the_way_between_tables_is_the_shortest_however_many_ways_there_are(self) -> None:
        names = [f"T{number:02}" for number in range(60)]
        every = {(one, other) for one in names for other in names if one != other}
        links = {*every, ("T59", "Last"), ("Last", "T59"), ("Alone", "Apart"), ("Apart", "Alone")}
        database = text_to_sql.Database(Path("none"), {}, links, Shelf())
        assert database.between("T00", "Last") == ["T00", "T59", "Last"]
        assert database.between("T00", "Alone") == ["Alone"]
        assert database.between("T00", "T00") == ["T00"]

    async def test_the_database_is_made_once_and_goes_with_the_workflow(self) -> None:
        files: list[Path] = []

        class Watched(text_to_sql.TextToSQL):  # type: ignore[misc, name-defined]  # because it is imported by its path
            def read(self, file: Path, sql: str) -> Any:
                files.append(file)
                return super().read(file, sql)

        model = ScriptedModel(["SELECT 1", "SELECT 2"])
        async with Watched(resources={text_to_sql.choose_model: model}) as flow:
            assert [(await flow.run(query="Which artists?")).rows for _ in range(2)] == [[[1]], [[2]]]
            assert files[0].exists()
        assert files[0] == files[1]
        assert not files[0].exists()
