"""Failed answers made into errors that say what happened and what to do."""

from __future__ import annotations

import inspect
import json
import pickle
from email.utils import formatdate
from typing import Any

import pytest

from agentflow.clock import use_clock
from agentflow.errors import AgentflowError
from agentflow.testing import FakeClock
from agentflow_llm import (
    ChatMessage,
    ContentFilterError,
    ContextLengthError,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMNotFoundError,
    LLMRefusedError,
    LLMResponseError,
    LLMServerError,
    LLMUnavailableError,
    OpenAI,
    QuotaError,
    RateLimitError,
    Reply,
    errors,
)
from agentflow_llm.failures import Asked, answered, confessed, retry_after

ASKED = Asked("gpt-9", "http://127.0.0.1:1/v1")


ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, AgentflowError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_goes_from_process_to_process(kind: type[AgentflowError]) -> None:
    error = kind("What happened.")
    facts = {"status": 429, "code": "c", "request_id": "r", "retry_after": 2.0, "attempts": 3, "http_requests": 4}
    facts |= {"text": "said", "reply": Reply(message=ChatMessage(role="assistant", content="said"))}
    for name, value in facts.items():
        if hasattr(error, name):
            setattr(error, name, value)
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 because it was made here
    assert (type(copied), str(copied), vars(copied)) == (kind, "What happened.", vars(error))


def failed(status: int, said: Any = None, **headers: str) -> LLMError:
    text = said if isinstance(said, str) else json.dumps({"error": said})
    return answered(ASKED, status, {name.replace("_", "-"): value for name, value in headers.items()}, text)


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, {"message": "no"}, LLMBadRequestError),
        (400, {"message": "?", "code": "context_length_exceeded"}, ContextLengthError),
        (400, {"message": "This model's maximum context length is 10 tokens"}, ContextLengthError),
        (400, {"message": "too big", "type": "exceed_context_size_error"}, ContextLengthError),
        (413, {"message": "prompt is too long"}, ContextLengthError),
        (
            400,
            {"message": "The input token count (9) exceeds the maximum number of tokens allowed"},
            ContextLengthError,
        ),
        (400, {"message": "filtered", "code": "content_filter"}, ContentFilterError),
        (400, {"message": "filtered", "type": "content_policy_violation", "code": "x"}, ContentFilterError),
        (401, {"message": "no"}, LLMAuthenticationError),
        (402, {"message": "pay"}, QuotaError),
        (403, {"message": "no"}, LLMAuthenticationError),
        (404, {"message": "no"}, LLMNotFoundError),
        (408, {"message": "slow"}, LLMServerError),
        (409, {"message": "clash"}, LLMServerError),
        (422, {"message": "no"}, LLMBadRequestError),
        (429, {"message": "slow down"}, RateLimitError),
        (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}, QuotaError),
        (429, {"message": "You exceeded your current quota", "type": "insufficient_quota"}, QuotaError),
        (500, {"message": "oops"}, LLMServerError),
        (503, "<html>busy</html>", LLMServerError),
        (529, None, LLMServerError),
        (304, "", LLMResponseError),
    ],
)
def test_status_and_code_decide_which_error_it_is(status: int, said: Any, kind: type[LLMError]) -> None:
    error = failed(status, said)
    assert type(error) is kind
    assert error.status == status
    assert "'gpt-9' at http://127.0.0.1:1/v1" in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_server_that_says_not_to_try_again_is_not_tried_again(status: int) -> None:
    error = failed(status, {"message": "no", "code": "c"}, x_should_retry="false", x_request_id="r", retry_after="3")
    assert type(error) is LLMRefusedError
    assert (error.status, error.code, error.request_id, error.retry_after) == (status, "c", "r", None)
    assert str(error).endswith("trying again would not help.")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "x", LLMBadRequestError),
        (400, "context_length_exceeded", ContextLengthError),
        (401, "x", LLMAuthenticationError),
        (429, "insufficient_quota", QuotaError),
    ],
)
def test_request_that_is_wrong_stays_so_whatever_the_server_says(status: int, code: str, kind: type[LLMError]) -> None:
    error = failed(status, {"message": "no", "code": code}, x_should_retry="true")
    assert type(error) is kind
    assert not isinstance(error, LLMUnavailableError)


def test_facts_are_kept() -> None:
    error = failed(429, {"message": "slow", "code": 429}, x_request_id="req_1", retry_after="3")
    assert (error.status, error.code, error.request_id, error.retry_after) == (429, "429", "req_1", 3)


@pytest.mark.parametrize(
    ("status", "told"), [(401, "Set OPENAI_API_KEY"), (404, "GET /models"), (429, "It asks for a wait of 3 s.")]
)
def test_error_says_what_to_do(status: int, told: str) -> None:
    assert told in str(failed(status, {"message": "no"}, retry_after="3"))


def test_what_the_provider_behind_the_server_said_is_handed_on() -> None:
    assert "Provider returned error: upstream is full." in str(
        failed(429, {"message": "Provider returned error", "metadata": {"raw": "upstream is full"}})
    )


@pytest.mark.parametrize(
    "text",
    [
        '[{"error": {"message": "plain text"}}]',
        "",
        "plain\ntext",
        '{"detail": "plain text"}',
        '"plain text"',
        "[1]",
        '{"error": "plain text"}',
    ],
)
def test_any_body_gives_one_line(text: str) -> None:
    said = str(failed(500, text))
    assert "\n" not in said
    assert said.endswith(".")


def test_long_body_is_cut() -> None:
    assert len(str(failed(500, "x" * 10_000))) < 500


@pytest.mark.parametrize(
    ("said", "kind", "status"),
    [
        ({"message": "filtered", "code": "content_filter", "status": 400}, ContentFilterError, 400),
        ({"message": "filtered", "code": "content_filter"}, ContentFilterError, 400),
        ({"message": "busy", "code": 429}, RateLimitError, 429),
        ({"message": "busy", "code": "502"}, LLMServerError, 502),
        ("something", LLMServerError, 500),
    ],
)
def test_error_in_an_answer_that_claims_success(said: Any, kind: type[LLMError], status: int) -> None:
    error = confessed(ASKED, said, {"retry-after": "9"})
    assert (type(error), error.status, error.retry_after) == (kind, status, None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "9"}, 9),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": formatdate(1_000_000_030, usegmt=True)}, 30),
        ({"retry-after": formatdate(999_999_999, usegmt=True)}, None),
        ({"retry-after-ms": "?", "retry-after": "9"}, 9),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_wait_that_is_asked_for_is_milliseconds_seconds_or_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    with use_clock(FakeClock(1_000_000_000)):
        assert retry_after(headers) == seconds


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_closed_port_is_told_as_what_the_connection_said(host: str, unused_tcp_port: int) -> None:
    """And not as what the client's libraries tried meanwhile."""
    async with OpenAI("m", base_url=f"http://{host}:{unused_tcp_port}/v1", api_key="k", retry=None) as model:
        with pytest.raises(LLMConnectionError, match=r"No connection for 'm' .*(Connect call failed|refused)"):
            await model.acomplete("hi")
