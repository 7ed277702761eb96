"""A real Phoenix shows what a run did: its tree, its kinds, what went in and out, how it ended."""

from __future__ import annotations

from typing import Any

import pytest

import clerk
from real import Protocol, RealPhoenix, Seen

pytestmark = pytest.mark.slow

KINDS = {
    "invoke_agent": "AGENT",
    "invoke_workflow": "CHAIN",
    "step": "CHAIN",
    "event": "CHAIN",
    "chat": "LLM",
    "execute_tool": "TOOL",
    "retrieval": "RETRIEVER",
    "embeddings": "EMBEDDING",
    "rerank": "RERANKER",
    "memory": "CHAIN",
}


class Told(clerk.Told):
    """The trace of the agent's run, as the SDK made it and as Phoenix shows it."""

    @property
    def first_chat(self) -> Seen:
        """In which the model asks for tools."""
        return self.shown.all_named("chat scripted")[0]

    @property
    def second_chat(self) -> Seen:
        """In which it answers."""
        return self.shown.all_named("chat scripted")[1]


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"])
def told(request: pytest.FixtureRequest, phoenix: RealPhoenix, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("library")
    return Told(*clerk.record(phoenix, request.param, clerk.ask_clerk(folder)))


def part(span: Seen, prefix: str) -> dict[str, Any]:
    """The attributes below this prefix, which Phoenix tells flat."""
    return {name.removeprefix(prefix): value for name, value in span.attributes.items() if name.startswith(prefix)}


def test_the_tree_is_the_one_that_was_made(told: Told) -> None:
    assert told.shown.tree() == told.made.tree()
    assert {(span.parent is None, span.name) for span in told.shown.spans.values() if not span.parent} == {
        (True, "invoke_agent clerk")
    }


def test_each_call_is_below_the_step_that_makes_it(told: Told) -> None:
    run = "invoke_agent clerk"
    above = told.shown.above
    assert above(told.first_chat) == above(told.second_chat) == [run, "step call_model", "chat scripted"]
    assert above(told.shown.named("execute_tool add")) == [run, "step call_tool", "execute_tool add"]
    search = [run, "step call_tool", "execute_tool search_documents", "retrieval library"]
    assert above(told.shown.named("retrieval library")) == search


def test_every_span_has_a_kind_that_phoenix_knows(told: Told) -> None:
    assert {span.name: span.kind for span in told.shown.spans.values()} == {
        span.name: KINDS[span.name.partition(" ")[0]] for span in told.made.spans.values()
    }


def test_the_run_shows_the_question_and_the_answer(told: Told) -> None:
    run = told.shown.named("invoke_agent clerk")
    assert (run.attributes["input.value"], run.attributes["output.value"]) == (clerk.QUESTION, clerk.ANSWER)
    assert (run.status, run.attributes["agentflow.outcome"]) == ("UNSET", "ok")


def test_a_step_shows_what_it_took_and_what_it_returned(told: Told) -> None:
    for step in told.shown.all_named("step call_tool"):
        assert step.attributes["input.value"]
        assert step.attributes["output.value"]


def test_a_chat_shows_the_messages_that_were_sent(told: Told) -> None:
    sent = part(told.first_chat, "llm.input_messages.")
    assert sent["0.message.role"] == "system"
    assert (sent["1.message.role"], sent["1.message.content"]) == ("user", clerk.QUESTION)


def test_a_chat_shows_the_tools_that_the_model_may_ask_for(told: Told) -> None:
    tools = part(told.first_chat, "llm.tools.")
    assert '"search_documents"' in tools["0.tool.json_schema"]
    assert '"add"' in tools["1.tool.json_schema"]


def test_a_chat_shows_the_calls_that_the_model_asks_for(told: Told) -> None:
    said = part(told.first_chat, "llm.output_messages.0.message.")
    calls = [part(told.first_chat, f"llm.output_messages.0.message.tool_calls.{n}.tool_call.") for n in range(2)]
    assert said["role"] == "assistant"
    assert calls == [
        {"id": "call-1", "function.name": "search_documents", "function.arguments": '{"query": "library opens"}'},
        {"id": "call-2", "function.name": "add", "function.arguments": '{"a": 2, "b": 3}'},
    ]


def test_the_next_chat_shows_the_results_beside_their_calls(told: Told) -> None:
    sent = part(told.second_chat, "llm.input_messages.")
    results = {
        sent[f"{n}.message.tool_call_id"]: sent[f"{n}.message.content"]
        for n in range(10)
        if sent.get(f"{n}.message.role") == "tool"
    }
    assert results.keys() == {"call-1", "call-2"}
    assert "opens at nine" in results["call-1"]
    assert results["call-2"] == "5"
    assert part(told.second_chat, "llm.output_messages.0.message.")["content"] == clerk.ANSWER


def test_a_chat_shows_what_it_cost(told: Told) -> None:
    counts = [part(chat, "llm.token_count.") for chat in (told.first_chat, told.second_chat)]
    assert counts == [
        {"prompt": 50, "completion": 7, "total": 57},
        {"prompt": 80, "completion": 9, "total": 89},
    ]


def test_tokens_are_counted_once(told: Told) -> None:
    """Phoenix adds up what the spans say; a sum on the run would be counted twice."""
    counted = [span.name for span in told.shown.spans.values() if "llm.token_count.total" in span.attributes]
    assert counted == ["chat scripted", "chat scripted"]


def test_a_retry_is_an_event_of_its_chat(told: Told) -> None:
    (retry,) = told.first_chat.events
    assert retry.name == "agentflow.retry"
    assert retry.attributes["agentflow.retry.attempt"] == 1
    assert retry.attributes["http.response.status_code"] == 429
    assert told.first_chat.status == "UNSET"


def test_a_tool_shows_its_arguments_and_its_result(told: Told) -> None:
    tool = told.shown.named("execute_tool add").attributes
    assert (tool["tool.name"], tool["tool.description"]) == ("add", "Add two numbers.")
    assert (tool["tool.parameters.a"], tool["tool.parameters.b"]) == (2, 3)
    assert (tool["input.mime_type"], tool["output.value"]) == ("application/json", "5")


def test_a_retrieval_shows_the_documents_with_their_scores(told: Told) -> None:
    retrieval = told.shown.named("retrieval library")
    assert retrieval.attributes["input.value"] == "library opens"
    document = part(retrieval, "retrieval.documents.0.document.")
    assert document["content"] == "The library opens at nine and closes at six."
    assert document["id"] == "hours.md:3"
    assert document["score"] > 0


def test_a_step_names_what_triggered_it(told: Told) -> None:
    """Phoenix keeps no links, so an attribute has to say it."""
    sent = {span.id: span for span in told.shown.all_named("event ToolCall")}
    for step in told.shown.all_named("step call_tool"):
        (cause,) = step.attributes["agentflow.triggered_by"]
        who, event = cause.split()
        assert who == "call_model:ToolCall"
        assert sent.pop(event).parent == told.first_chat.parent
    assert not sent


def test_a_step_that_collects_names_all_that_it_collected(told: Told) -> None:
    waits, goes_on = told.shown.all_named("step collect_results")
    assert waits.attributes["agentflow.outcome"] == "collecting"
    assert len(goes_on.attributes["agentflow.triggered_by"]) == 2


@pytest.fixture(scope="module")
def library(phoenix: RealPhoenix) -> Told:
    return Told(*clerk.record(phoenix, "http/protobuf", clerk.ask_librarian()))


def test_all_kinds_of_clients_stand_below_the_step_that_uses_them(library: Told) -> None:
    assert library.shown.tree() == library.made.tree()
    below = [library.shown.above(span)[1:] for span in library.shown.spans.values() if "event" not in span.name]
    search = ["step find", "retrieval library"]
    assert below == [
        [],
        ["step find"],
        ["step find", "memory put"],
        search,
        *[[*search, "embeddings text-embedding-3-small"]] * 2,
        ["step find", "rerank gpt-4o-mini"],
        ["step find", "rerank gpt-4o-mini", "chat gpt-4o-mini"],
        ["step answer"],
        ["step answer", "memory get"],
        ["step answer", "chat gpt-4o-mini"],
    ]
    assert {span.kind for span in library.shown.spans.values()} == {
        "LLM",
        "EMBEDDING",
        "RETRIEVER",
        "RERANKER",
        "CHAIN",
    }
    for span in library.shown.spans.values():
        assert span.kind == KINDS[span.name.partition(" ")[0]]


def test_embeddings_show_their_model_their_texts_and_tokens(library: Told) -> None:
    documents, question = library.shown.all_named("embeddings text-embedding-3-small")
    assert part(question, "embedding.") == {
        "model_name": "text-embedding-3-small",
        "embeddings.0.embedding.text": "How many seats?",
    }
    assert "costs 20 cents" in documents.attributes["embedding.embeddings.0.embedding.text"]
    assert "forty seats" in documents.attributes["embedding.embeddings.1.embedding.text"]
    assert (documents.attributes["llm.token_count.prompt"], question.attributes["llm.token_count.prompt"]) == (20, 6)


def test_a_reranking_shows_the_documents_before_and_after(library: Told) -> None:
    span = library.shown.named("rerank gpt-4o-mini")
    told = part(span, "reranker.")
    assert (told["query"], told["model_name"], told["top_k"]) == ("How many seats?", "gpt-4o-mini", 1)
    first, second = (part(span, f"reranker.input_documents.{n}.document.") for n in range(2))
    assert first["score"] > second["score"] > 0
    best = part(span, "reranker.output_documents.0.document.")
    assert best == {**second, "score": 1.0}
    assert "reranker.output_documents.1.document.id" not in span.attributes


def test_a_memory_shows_what_went_in_and_how_much_came_out(library: Told) -> None:
    put, got = (library.shown.named(f"memory {name}").attributes for name in ("put", "get"))
    assert (put["input.value"], put["agentflow.memory.session"]) == ("How many seats?", "reader-7")
    assert got["agentflow.memory.messages.got"] == 1


def test_a_picture_is_shown_by_its_address_and_never_by_its_bytes(library: Told) -> None:
    _, chat = library.shown.all_named("chat gpt-4o-mini")
    contents = part(chat, "llm.input_messages.1.message.contents.")
    assert contents["0.message_content.type"] == "text"
    assert contents["1.message_content.text"] == "[image/png, 50,008 bytes]"
    assert contents["2.message_content.image.image.url"] == "https://example.com/room.png"


def test_a_streamed_chat_shows_its_answer_its_tokens_and_its_first_piece(library: Told) -> None:
    _, chat = library.shown.all_named("chat gpt-4o-mini")
    assert part(chat, "llm.output_messages.0.message.")["content"] == clerk.LIBRARIAN
    assert part(chat, "llm.token_count.")["total"] == 1200
    assert '"stream": true' in chat.attributes["llm.invocation_parameters"]
    assert 0 < chat.attributes["gen_ai.response.time_to_first_chunk"] < 30


def test_a_cost_is_worked_out_from_the_tokens_and_beside_it_stands_ours(library: Told, phoenix: RealPhoenix) -> None:
    """Phoenix has a list of prices of its own, and does not read `llm.cost`; of embeddings it says nothing."""
    _, chat = library.shown.all_named("chat gpt-4o-mini")
    assert phoenix.cost(chat) == pytest.approx({"prompt": 0.00015, "completion": 0.00012, "total": 0.00027})
    assert chat.attributes["llm.cost.total"] == pytest.approx(0.00027)
    embeddings, _ = library.shown.all_named("embeddings text-embedding-3-small")
    assert not phoenix.cost(embeddings)
    assert embeddings.attributes["llm.cost.total"] > 0


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_run_that_fails_shows_where_and_why(phoenix: RealPhoenix, protocol: Protocol) -> None:
    _, shown = clerk.record(phoenix, protocol, clerk.fail())
    run, step = shown.named("invoke_workflow unlucky"), shown.named("step divide")
    for span in (run, step):
        assert (span.status, span.attributes["agentflow.outcome"]) == ("ERROR", "error")
        assert "division by zero" in span.message
    (exception,) = (event for event in step.events if event.name == "exception")
    assert exception.attributes["exception.type"] == "ZeroDivisionError"
    assert "1 / 0" in exception.attributes["exception.stacktrace"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_run_that_is_cancelled_is_no_error_and_no_success(phoenix: RealPhoenix, protocol: Protocol) -> None:
    made, shown = clerk.record(phoenix, protocol, clerk.cancel())
    assert shown.tree() == made.tree()
    for span in (shown.named("invoke_workflow slow"), shown.named("step sleep")):
        assert (span.status, span.attributes["agentflow.outcome"]) == ("UNSET", "cancelled")
