"""Turn a question into SQL, run it, and let the model correct what the database refuses.

    python examples/text_to_sql.py

The model is shown the tables that a search in the schema finds, and can only read, not for long, whatever it writes.
The database is Chinook, a shop for music (data/chinook); a model's queries, two of them wrong, are written down below.
"""

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, ChatModel, Document, Retriever, ScriptedModel, VectorStoreIndex

CHINOOK = Path(__file__).parent / "data" / "chinook" / "Chinook_Sqlite.sql"
ABOUT = {"Invoice": "a sale: what a customer bought and paid", "InvoiceLine": "a track that was sold, and its price"}
TASK = "Answer with one SELECT statement of SQLite: {query}\n{tables}"
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
SCRIPT = {
    "Which five artists have sold the most tracks?": [
        "SELECT ArtistName, SUM(Quantity) FROM InvoiceLine JOIN Track USING (TrackId) GROUP BY ArtistName",
        """SELECT Artist.Name AS Artist, SUM(Quantity) AS Sold FROM InvoiceLine JOIN Track USING (TrackId)
    JOIN Album USING (AlbumId) JOIN Artist USING (ArtistId) GROUP BY ArtistId ORDER BY Sold DESC LIMIT 5""",
    ],
    "Delete the customers in Germany, and show who is left.": [
        "DELETE FROM Customer WHERE Country = 'Germany'",
        "SELECT FirstName, LastName, City FROM Customer WHERE Country = 'Germany' ORDER BY LastName",
    ],
}


class Database(NamedTuple):
    file: Path
    tables: dict[str, str]  # with their columns, as the model is shown them
    links: set[tuple[str, str]]  # which tables foreign keys join, in both directions
    schema: Retriever

    def between(self, first: str, last: str) -> list[str]:  # the tables on the shortest way, both included
        ways = new = {first: [first]}
        while new and last not in ways:  # each round reaches the tables that are one link farther
            new = {to: [*ways[table], to] for table, to in sorted(self.links) if table in ways and to not in ways}
            ways = {**ways, **new}
        return ways.get(last, [last])


def open_shop() -> Iterator[Database]:
    with TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder, "chinook.db"))) as db:
        db.executescript(f"BEGIN; {CHINOOK.read_text(encoding='utf-8-sig')} COMMIT;")
        tables, links = dict[str, str](), set[tuple[str, str]]()
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            columns = [column for (column,) in db.execute("SELECT name FROM pragma_table_info(?)", [name])]
            tables[name] = f"  {name}({', '.join(columns)}) {ABOUT.get(name, '')}".rstrip()
            keys = db.execute('SELECT "table" FROM pragma_foreign_key_list(?)', [name])
            links |= {link for (other,) in keys for link in ((name, other), (other, name))}
        said = [Document(re.sub("([a-z])([A-Z])", r"\1 \2", text), name) for name, text in tables.items()]
        index = VectorStoreIndex.from_documents(said, name="schema")
        yield Database(Path(folder, "chinook.db"), tables, links, index.as_retriever(3))


def choose_model() -> ChatModel:
    return ScriptedModel([sql for attempts in SCRIPT.values() for sql in attempts])  # your own: OpenAI("gpt-4o")


class Question(StartEvent):
    query: str


class Task(Event):
    messages: list[ChatMessage]  # the last is shown, as is what the model writes


class Refused(Task):
    pass


class Written(Event):
    sql: str
    messages: list[ChatMessage]


class Rows(StopEvent):
    columns: list[str]
    rows: list[list[Any]]


Shop = Annotated[Database, Resource(open_shop, scope="workflow")]


class TextToSQL(Workflow[Question, Rows]):
    most_attempts = 3
    most_rows = 20
    most_work = 20_000_000  # instructions of SQLite's virtual machine

    @step
    async def choose_tables(self, ev: Question, shop: Shop) -> Task:
        found = [passage.metadata["document"] for passage in await shop.schema.aretrieve(ev.query)] or [*shop.tables]
        names = dict.fromkeys(name for end in found for name in shop.between(found[0], end))
        told = TASK.format(query=ev.query, tables="\n".join(shop.tables[name] for name in names))
        return Task(messages=[ChatMessage(role="user", content=told)])

    @step
    async def write(self, ctx: Context, ev: Task, llm: Annotated[ChatModel, Resource(choose_model)]) -> Written:
        ctx.write_event_to_stream(ev)
        reply = await llm.chat(ev.messages)
        return Written(sql=reply.text.strip("`\n").removeprefix("sql"), messages=[*ev.messages, reply.message])

    @step
    def execute(self, ctx: Context, ev: Written, shop: Shop) -> Rows | Refused:  # a plain function runs in a thread
        ctx.write_event_to_stream(ev)
        try:
            return self.read(shop.file, ev.sql)
        except (sqlite3.Error, sqlite3.Warning) as error:
            if len(ev.messages) // 2 == self.most_attempts:
                raise
            told = ChatMessage(role="user", content=f"The database refuses it: {error}. Correct it.")
            return Refused(messages=[*ev.messages, told])

    def read(self, file: Path, sql: str) -> Rows:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
            db.set_authorizer(lambda does, _1, _2, _3, _4: int(does not in READING))  # 0 lets it, 1 refuses
            db.set_progress_handler(lambda: 1, self.most_work)
            found = db.execute(sql)
            if found.description is None:
                raise sqlite3.ProgrammingError("it selects nothing")
            columns = [name for name, *_ in found.description]
            return Rows(columns=columns, rows=[list(row) for row in found.fetchmany(self.most_rows)])


async def main() -> None:
    async with TextToSQL() as workflow:
        for question in SCRIPT:
            handler = workflow.run(query=question)
            async for event in handler.stream_events():
                if isinstance(event, Task | Written):
                    print(f"> {event.messages[-1].text}" if isinstance(event, Task) else f"    {event.sql}")
            found = await handler
            lines = [found.columns, *([str(value) for value in row] for row in found.rows)]
            widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
            print(*("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines), "", sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
