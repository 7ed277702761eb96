"""OpenTelemetry traces, metrics and logs of what agentflow does. Nothing is built here yet."""

__all__: list[str] = []
