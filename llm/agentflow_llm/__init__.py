"""Model, embedding, memory and vector clients for agentflow. Nothing is built here yet."""

__all__: list[str] = []
