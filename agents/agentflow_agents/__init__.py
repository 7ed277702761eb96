"""Prebuilt agents as agentflow workflows, and their tools."""

from .agent import Agent
from .budget import Budget, Spending
from .citations import Citation, citations_in
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
    Withdrawn,
)
from .function_agent import FunctionAgent
from .ingest import Ingest, IngestProgress, IngestResult
from .library import PassageFinder
from .mcp import MCPOptions, MCPTools
from .mcp_connection import MCPServerError
from .rag_agent import RAGAgent
from .rag_events import RAGResult
from .react_agent import ReActAgent
from .records import ToolExecution
from .search import DocumentIndex
from .state import AgentState, state_of
from .team import Team
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
    "Citation",
    "Conversation",
    "DocumentIndex",
    "DocumentsError",
    "Finished",
    "FunctionAgent",
    "Handoff",
    "Ingest",
    "IngestProgress",
    "IngestResult",
    "MCPOptions",
    "MCPServerError",
    "MCPTools",
    "PassageFinder",
    "RAGAgent",
    "RAGResult",
    "ReActAgent",
    "Spending",
    "Team",
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
    "Withdrawn",
    "citations_in",
    "state_of",
    "tool",
]
