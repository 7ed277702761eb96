"""pydantic-ai: its model client, without an agent; its agent where events are streamed."""

PACKAGES = ["pydantic-ai-slim"]
