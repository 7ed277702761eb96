"""Words, sentences, and which sentence says most about a question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_llm.reading import Text, quotes, sentences, stem, stems, words


@pytest.mark.parametrize(
    "forms",
    ["retry retries retried", "limit limits limited limiting", "city cities", "stop stopped stops", "Luther's Luther"],
)
def test_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({stem(word) for word in forms.split()}) == 1


def test_names_in_code_are_taken_apart() -> None:
    assert words("read_document and ChatModel in 1,000 U.S. cities") == [
        "read", "document", "and", "Chat", "Model", "in", "1,000", "U.S", "cities",
    ]  # fmt: skip
    assert stems("What is the ChatModel?") == ["chat", "model"]


def test_sentences_end_where_they_end() -> None:
    text = 'Dr. Who met J. Smith in the U.S. in 1963. "Really?" she asked! It cost 3.50, e.g. for tea'
    assert list(sentences(text)) == [
        "Dr. Who met J. Smith in the U.S. in 1963.",
        '"Really?"',
        "she asked!",
        "It cost 3.50, e.g. for tea",
    ]


def test_markdown_is_read_as_prose() -> None:
    text = "# Title\nOne is\nhere. Two\n\n- a list\n  goes on\n1. and on\n\n```sh\ncode. more\n```\n> said\n\n"
    text += "| a | b |\n|---|---|\n| c | d |\n"
    assert list(sentences(text)) == ["One is here.", "Two", "a list goes on", "and on", "said", "a - b", "c - d"]


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    for sentence in sentences(text):
        assert sentence.strip()
        assert sentence.split("\n") == [sentence] or "\n" not in text.replace("\r", "\n")


def best(question: str, *texts: str) -> str:
    return quotes(question, [Text(text, str(n)) for n, text in enumerate(texts)])[0].text


def test_rare_words_count_more() -> None:
    text = "The run began. The run stopped. A run is a walrus. The run went on."
    assert best("Is the run a walrus?", text) == "A run is a walrus."


def test_sentence_before_says_who_he_is() -> None:
    text = "Nobody played. Manning was born here. He is 39. Somebody sang."
    ranked = quotes("How old is Manning?", [Text(text, "p")])
    assert [quote.text for quote in ranked[:2]] == ["Manning was born here.", "He is 39."]


def test_definition_comes_first() -> None:
    texts = "The workflow workflow: a workflow.", "In a workflow, much happens.", "A workflow is a class."
    assert best("What is a workflow?", *texts) == "A workflow is a class."


def test_heading_counts_as_context() -> None:
    texts = [Text("It fails at once.", "a"), Text("It fails at last.", "b", heading="Retries")]
    assert quotes("When do retries fail?", texts)[0].source == "b"


def test_nothing_stands_twice_and_nothing_cut_off() -> None:
    found = quotes(
        "Where do cats sleep?",
        [Text("Cats eat. Cats sleep on so", "a"), Text("Cats sleep on sofas.\n\nCats eat.", "b")],
    )
    assert [quote.text for quote in found] == ["Cats sleep on sofas.", "Cats eat."]


def test_question_is_no_answer() -> None:
    assert quotes("Where do cats sleep?", [Text('Try ask "Where do cats sleep?"', "a")]) == []


@given(st.text(), st.lists(st.text(), max_size=4))
def test_same_texts_give_the_same_quotes(question: str, texts: list[str]) -> None:
    given_texts = [Text(text, str(n)) for n, text in enumerate(texts)]
    found = quotes(question, given_texts)
    assert found == quotes(question, given_texts)
    assert all(0 <= quote.score <= 2 for quote in found)
