"""What a call of a model takes: where it goes, tokens, cost, requests, and what it waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import names
from .cutting import clean, clean_again

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from agentflow_llm.records import ChatCall, EmbeddingsCall

    from .trail import Trail

_TOKENS = (
    (names.INPUT_TOKENS, "input_tokens"),
    (names.OUTPUT_TOKENS, "output_tokens"),
    (names.CACHE_READ_TOKENS, "cached_tokens"),
    (names.CACHE_WRITE_TOKENS, "cache_write_tokens"),
    (names.REASONING_TOKENS, "reasoning_tokens"),
    (names.REASONING_COUNT, "reasoning_tokens"),
)


def asked(call: ChatCall | EmbeddingsCall) -> dict[str, AttributeValue]:
    """Which model is asked, and where."""
    made: dict[str, AttributeValue] = {names.PROVIDER: call.provider, names.REQUEST_MODEL: call.model}
    if call.server_address:
        made[names.SERVER_ADDRESS] = call.server_address
        if call.server_port:
            made[names.SERVER_PORT] = call.server_port
    return made


def took(trail: Trail, answer: Any, error: BaseException | None) -> dict[str, AttributeValue]:
    """What the call took until it was answered, or failed. `answer`: a reply or embeddings, if there is one."""
    made = _waits(trail)
    usage = getattr(answer, "usage", None)
    requests = getattr(error if usage is None else usage, "http_requests", 0)
    if isinstance(requests, int) and requests:
        made[names.LLM_REQUESTS] = requests
    if error is not None:
        made |= _failure(error)
    if usage is None:
        return made
    if answer.model:
        made[names.RESPONSE_MODEL] = clean_again(answer.model)
        if names.LLM_FALLBACKS in made:
            made[names.MODEL_SHOWN] = made[names.RESPONSE_MODEL]
    if not trail.cached:
        return made | _paid(usage)
    # what a cache has was paid for when it was asked; before it, others may have been asked in vain
    return made | _known(usage) if requests else made


def _waits(trail: Trail) -> dict[str, AttributeValue]:
    """How often it was tried, and what it waited for."""
    counts = trail.counts or {}
    made: dict[str, AttributeValue] = {}
    if counts.get("retry"):
        made[names.LLM_ATTEMPTS] = counts["retry"] + 1
        made[names.LLM_RETRY_WAIT] = trail.wait
    if counts.get("rate_limit"):
        made[names.LLM_LIMIT_WAIT] = trail.limited
    if counts.get("fallback"):
        made[names.LLM_FALLBACKS] = counts["fallback"]
    return made


def _paid(usage: Any) -> dict[str, AttributeValue]:
    made = _known(usage)
    if usage.input_tokens is None and usage.output_tokens is None:
        made[names.USAGE_MISSING] = True
    return made


def _known(usage: Any) -> dict[str, AttributeValue]:
    """Tokens, and dollars where the price is known."""
    made: dict[str, AttributeValue] = {
        name: tokens for name, field in _TOKENS if (tokens := getattr(usage, field)) is not None
    }
    if usage.cost is not None:
        made[names.LLM_COST] = made[names.COST_SHOWN] = float(usage.cost)
    return made


def _failure(error: BaseException) -> dict[str, AttributeValue]:
    """What a server said of the request, beside the error's class and text."""
    made: dict[str, AttributeValue] = {}
    status, request_id = getattr(error, "status", None), getattr(error, "request_id", None)
    if isinstance(status, int):
        made[names.HTTP_STATUS] = status
    if isinstance(request_id, str) and request_id:
        made[names.LLM_REQUEST_ID] = clean(request_id, 256)
    return made
