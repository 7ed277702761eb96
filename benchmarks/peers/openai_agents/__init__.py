"""openai-agents: its Agent and its Runner, over Chat Completions."""

PACKAGES = ["openai-agents"]
