"""Prebuilt agents as agentflow workflows, and their tools."""

from .conversation import Conversation
from .errors import AgentConfigurationError, DocumentsError, ToolError
from .events import AgentInput, AgentResult, Finished, ToolCall, ToolResult, Turn
from .function_agent import AgentState, FunctionAgent
from .records import ToolExecution
from .search import DocumentIndex
from .tool import Tool, tool
from .toolbox import Toolbox

__all__ = [
    "AgentConfigurationError",
    "AgentInput",
    "AgentResult",
    "AgentState",
    "Conversation",
    "DocumentIndex",
    "DocumentsError",
    "Finished",
    "FunctionAgent",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolExecution",
    "ToolResult",
    "Toolbox",
    "Turn",
    "tool",
]
