"""Prebuilt agents as agentflow workflows, and their tools."""

from .agent import Agent
from .budget import Budget, Spending
from .conversation import Conversation, Handoff
from .errors import AgentConfigurationError, BudgetExceededError, DocumentsError, ToolError, UnreadableReplyError
from .events import (
    AgentInput,
    AgentResult,
    Approval,
    ApprovalRequired,
    Finished,
    TextDelta,
    Thought,
    ToolCall,
    ToolResult,
    Turn,
)
from .function_agent import AgentState, FunctionAgent
from .mcp import MCPOptions, MCPTools
from .mcp_connection import MCPServerError
from .records import ToolExecution
from .search import DocumentIndex
from .tool import Tool, tool
from .toolbox import Toolbox

__all__ = [
    "Agent",
    "AgentConfigurationError",
    "AgentInput",
    "AgentResult",
    "AgentState",
    "Approval",
    "ApprovalRequired",
    "Budget",
    "BudgetExceededError",
    "Conversation",
    "DocumentIndex",
    "DocumentsError",
    "Finished",
    "FunctionAgent",
    "Handoff",
    "MCPOptions",
    "MCPServerError",
    "MCPTools",
    "Spending",
    "TextDelta",
    "Thought",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolExecution",
    "ToolResult",
    "Toolbox",
    "Turn",
    "UnreadableReplyError",
    "tool",
]
