"""What keeps the instrumentors of others from telling of a model's call a second time.

Most of them wrap methods that agentflow's own clients never call. Those of OpenInference and Logfire wrap what every
request goes through; and a model of the user's own may call any vendor's client. Each kind is told in its own way.
"""

from __future__ import annotations

from sys import modules
from typing import Any, Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import Context

_SUPPRESS_MODELS: Final = "suppress_language_model_instrumentation"
_INFERENCE: Final = "opentelemetry.genai.client.inference.context"
_OF_REQUESTS: Final = frozenset(
    {
        "logfire._internal.integrations.llm_providers.llm_provider",  # it is imported where a client is instrumented
        "openinference.instrumentation.anthropic",
        "openinference.instrumentation.bedrock",
        "openinference.instrumentation.google_genai",
        "openinference.instrumentation.groq",
        "openinference.instrumentation.litellm",
        "openinference.instrumentation.mistralai",
        "openinference.instrumentation.openai",
        "openinference.instrumentation.vertexai",
    }
)
KEYS: Final = frozenset({SUPPRESS, _SUPPRESS_MODELS, _INFERENCE})
"""The keys that a context may have below a model's call and not above it."""


def below(span: Context) -> Context:
    """The context below the span of a model's call, in which nobody else tells of it; as it is, where nobody would."""
    loaded = modules.keys()
    of_requests = not loaded.isdisjoint(_OF_REQUESTS)
    official: Any = modules.get("opentelemetry.util.genai.invocation")
    if not of_requests and official is None and "opentelemetry.semconv_ai" not in loaded:
        return span
    made: dict[str, object] = {**span, _SUPPRESS_MODELS: True}  # OpenLLMetry's
    data = getattr(official, "InferenceData", None)  # OpenTelemetry's own put into it what they would tell
    if data is not None:
        made[_INFERENCE] = data()
    if of_requests:  # it silences the instrumentors of HTTP clients as well, so only where nothing else helps
        made[SUPPRESS] = True
    return Context(made)
