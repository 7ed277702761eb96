"""Prebuilt agents as agentflow workflows, and their tools. Nothing is built here yet."""

__all__: list[str] = []
