"""agentflow itself."""

PACKAGES = ["pydantic", "openai", "opentelemetry-sdk"]
