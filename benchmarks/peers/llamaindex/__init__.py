"""llama-index: its workflows, the agent in its core, and its own integration of OpenTelemetry."""

PACKAGES = ["llama-index-workflows", "llama-index-core"]
