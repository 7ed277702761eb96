"""What calls cost, in US dollars, as far as the library genai-prices knows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentflow.clock import current_clock

if TYPE_CHECKING:
    from .messages import Usage

_PROVIDERS = {
    "anthropic": "anthropic",
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "groq": "groq",
    "mistral_ai": "mistral",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "x_ai": "x-ai",
}
"""The library's names of providers, by OpenTelemetry's. Who is not here, such as one's own server, has no price."""
_MILLION = 1_000_000


def load() -> None:
    """Load the library, where it is installed. The first time takes half a second: `prepare` does it in a thread."""
    _library()


async def prepare() -> None:
    """Load the library without holding up the event loop, so that `priced` has nothing to wait for."""
    if not _library.cache_info().currsize:
        await asyncio.to_thread(load)


def priced(provider: str, model: str, usage: Usage) -> Usage:
    """The usage of one answer with its `cost`.

    It is unchanged, with the price unknown, where the library (`pip install 'agentflow-otel[prices]'`) is missing or
    does not know the model of that provider (by its OpenTelemetry name), or where tokens were not told. An embedder
    tells 0 output tokens.
    """
    found = cost(provider, model, usage)
    return usage if found is None else usage.model_copy(update={"cost": found})


def cost(provider: str, model: str, usage: Usage) -> float | None:
    """What one answer costs, in US dollars; None where that is unknown, as `priced` has it."""
    known = _model(provider, model)
    if known is None or usage.input_tokens is None:
        return None
    # a price may depend on the time of day
    price: object = known.get_prices(datetime.fromtimestamp(current_clock().time(), UTC))
    said = vars(price)  # asking for a price that is not there takes the library long
    whole = usage.input_tokens
    fresh, each = whole, said.get("input_mtok")
    output = said.get("output_mtok")
    if each is None or (output is not None and usage.output_tokens is None):
        return None
    total = 0.0 if output is None else _rate(output, whole) * (usage.output_tokens or 0)
    for name, tokens in (("cache_read_mtok", usage.cached_tokens), ("cache_write_mtok", usage.cache_write_tokens)):
        special = said.get(name)
        if tokens and special is not None:
            total += _rate(special, whole) * tokens
            fresh -= tokens
    return (total + _rate(each, whole) * max(0, fresh)) / _MILLION


def _rate(price: Any, input_tokens: int) -> float:
    """Dollars for a million tokens; a longer input may make all of them dearer."""
    tiers = getattr(price, "tiers", None)
    if tiers is None:
        return float(price)
    dearer = [tier.price for tier in tiers if input_tokens > tier.start]
    return float(dearer[-1] if dearer else price.base)


@cache
def _library() -> Any:
    """The library, or None."""
    try:
        library: Any = import_module("genai_prices")
    except ImportError:
        return None
    _find(library, "openai", "gpt-4o")  # the prices themselves are loaded when one is first asked for
    return library


@lru_cache(maxsize=1000)
def _model(provider: str, model: str) -> Any:
    """What the library knows of a model, or None; kept, because it takes long to find out."""
    name = _PROVIDERS.get(provider)
    library = None if name is None else _library()
    return None if library is None else _find(library, name, model)


def _find(library: Any, provider: str | None, model: str) -> Any:
    try:
        return library.calc_price(library.Usage(), model, provider_id=provider).model
    except (LookupError, ValueError):  # the library raises the second for prices that it cannot use
        return None
