"""What calls cost: as the library has it, and unknown where it is unknown."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import use_clock
from agentflow.testing import FakeClock
from agentflow_llm import Usage
from agentflow_llm.prices import cost, prepare, priced

SPENT = Usage(input_tokens=1000, output_tokens=100, http_requests=2)
OURS = {"openai": "openai", "google": "gcp.gemini", "mistral": "mistral_ai", "deepseek": "deepseek", "x-ai": "x_ai"}


def test_cost_is_in_dollars_and_the_rest_stays() -> None:
    assert priced("openai", "gpt-4o", SPENT) == SPENT.model_copy(update={"cost": pytest.approx(0.0035)})


def test_cached_tokens_have_their_own_price() -> None:
    half = SPENT.model_copy(update={"cached_tokens": 500})
    assert cost("openai", "gpt-4o", half) == pytest.approx(0.0035 - 500 * 1.25e-6)


def test_tokens_written_to_a_cache_have_their_own_price() -> None:
    dear = SPENT.model_copy(update={"cache_write_tokens": 1000})
    whole, plain = cost("anthropic", "claude-sonnet-4-5", dear), cost("anthropic", "claude-sonnet-4-5", SPENT)
    assert whole is not None
    assert plain is not None
    assert whole > plain


@pytest.mark.parametrize("model", ["gpt-4o-2024-08-06", "gpt-4o-2024-11-20"])
def test_model_with_a_date_costs_what_the_model_costs(model: str) -> None:
    assert cost("openai", model, SPENT) == cost("openai", "gpt-4o", SPENT)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("azure.ai.openai", "gpt-4o"),
        ("gcp.gemini", "gemini-2.5-flash"),
        ("mistral_ai", "mistral-large-latest"),
        ("deepseek", "deepseek-chat"),
        ("groq", "llama-3.3-70b-versatile"),
        ("x_ai", "grok-3"),
        ("perplexity", "sonar"),
        ("openrouter", "openai/gpt-4o"),
    ],
)
def test_providers_have_the_names_of_opentelemetry(provider: str, model: str) -> None:
    assert (cost(provider, model, SPENT) or 0) > 0


@pytest.mark.parametrize(
    ("provider", "model", "usage"),
    [
        ("ollama", "gpt-4o", SPENT),
        ("offline", "offline", SPENT),
        ("openai", "no-such-model", SPENT),
        ("openai", "gpt-4o", Usage(http_requests=1)),
        ("openai", "gpt-4o", Usage(input_tokens=10)),
        ("openai", "gpt-4o", Usage(output_tokens=10)),
    ],
)
def test_unknown_price_is_unknown_and_never_nothing(provider: str, model: str, usage: Usage) -> None:
    assert priced(provider, model, usage) is usage


def test_embedding_has_no_output_to_pay() -> None:
    for model, each in ("text-embedding-3-small", 0.02), ("text-embedding-3-large", 0.13):
        assert cost("openai", model, Usage(input_tokens=1000)) == pytest.approx(each / 1000)
    assert cost("mistral_ai", "mistral-embed", Usage(input_tokens=1000, output_tokens=0)) == pytest.approx(0.0001)


@given(data=st.data(), cached=st.integers(0, 150_000), written=st.integers(0, 150_000), fresh=st.integers(0, 150_000))
def test_cost_is_what_the_library_says(data: st.DataObject, cached: int, written: int, fresh: int) -> None:
    providers = [provider for provider in get_snapshot().providers if provider.id in OURS]
    provider = data.draw(st.sampled_from(providers))
    model = data.draw(st.sampled_from(provider.models))
    whole = cached + written + fresh
    usage = Usage(input_tokens=whole, output_tokens=70, cached_tokens=cached, cache_write_tokens=written)
    with use_clock(FakeClock(1_790_000_000)):
        ours = cost(OURS[provider.id], model.id, usage)
    if ours is not None:
        assert ours == pytest.approx(_theirs(provider.id, model.id, whole, cached, written))


def _theirs(provider: str, model: str, whole: int, cached: int, written: int) -> float:
    counted: Any = genai_prices.Usage(
        input_tokens=whole, output_tokens=70, cache_read_tokens=cached, cache_write_tokens=written
    )
    when = datetime.fromtimestamp(1_790_000_000, UTC)
    found = genai_prices.calc_price(counted, model, provider_id=provider, genai_request_timestamp=when)
    return float(found.total_price)


_PROGRAM = """
import asyncio, sys
{before}
from agentflow_llm.messages import Usage
from agentflow_llm import prices
assert "genai_prices" not in sys.modules or {hidden}
asyncio.run(prices.prepare())
print(prices.priced("openai", "gpt-4o", Usage(input_tokens=1_000_000, output_tokens=0)).cost)
"""


@pytest.mark.parametrize(("before", "told"), [("", "2.5"), ("sys.modules['genai_prices'] = None", "None")])
def test_library_is_imported_at_first_use_and_may_be_missing(before: str, told: str) -> None:
    program = _PROGRAM.format(before=before, hidden=bool(before))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == told


async def test_preparing_twice_is_cheap_and_allowed() -> None:
    await prepare()
    await prepare()
    assert priced("openai", "gpt-4o", SPENT).cost is not None
