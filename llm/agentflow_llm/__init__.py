"""Model and memory clients for agentflow."""

from .call import BaseChatModel
from .environment import Choice, default_model
from .errors import (
    ContextLengthError,
    LLMAuthenticationError,
    LLMConnectionError,
    LLMError,
    LLMNotFoundError,
    LLMRefusedError,
    LLMResponseError,
    LLMTimeoutError,
    LLMUnavailableError,
    QuotaError,
    RateLimitError,
)
from .memory import ChatMemory, Memory
from .messages import (
    ChatMessage,
    ReasoningPart,
    RefusalPart,
    Reply,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
    Usage,
)
from .model import ChatModel
from .offline import OfflineModel
from .openai import OpenAIChat
from .records import ChatCall, Passage, RetrievalCall
from .scripted import ScriptedModel

__all__ = [
    "BaseChatModel",
    "ChatCall",
    "ChatMemory",
    "ChatMessage",
    "ChatModel",
    "Choice",
    "ContextLengthError",
    "LLMAuthenticationError",
    "LLMConnectionError",
    "LLMError",
    "LLMNotFoundError",
    "LLMRefusedError",
    "LLMResponseError",
    "LLMTimeoutError",
    "LLMUnavailableError",
    "Memory",
    "OfflineModel",
    "OpenAIChat",
    "Passage",
    "QuotaError",
    "RateLimitError",
    "ReasoningPart",
    "RefusalPart",
    "Reply",
    "RetrievalCall",
    "ScriptedModel",
    "TextPart",
    "ToolCallPart",
    "ToolDefinition",
    "ToolResultPart",
    "Usage",
    "default_model",
]
