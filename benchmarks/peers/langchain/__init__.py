"""langchain-openai's client, and langchain's agent, which is a graph, where events are streamed."""

PACKAGES = ["langchain", "langgraph", "langchain-openai"]
