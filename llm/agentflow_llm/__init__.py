"""Model, embedding, memory and vector clients for agentflow."""

from .chat import BaseChatModel
from .completion import Completion
from .embedding import BaseEmbedder
from .environment import Choice, default_model
from .errors import (
    ContentFilterError,
    ContextLengthError,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMNotFoundError,
    LLMOutputError,
    LLMRefusedError,
    LLMResponseError,
    LLMServerError,
    LLMTimeoutError,
    LLMUnavailableError,
    MissingExtraError,
    QuotaError,
    RateLimitError,
    StorageError,
)
from .memory import ChatMemory, Memory
from .messages import (
    ChatMessage,
    Delta,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    Reply,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
    Usage,
)
from .model import ChatModel, ChatOptions, Embedder, Embeddings, RequestOptions, Reranker
from .offline import OfflineModel
from .openai import OpenAI
from .records import ChatCall, EmbeddingsCall, MemoryCall, Passage, RerankCall, RetrievalCall
from .scripted import ScriptedModel
from .stream import ReplyStream

__all__ = [
    "BaseChatModel",
    "BaseEmbedder",
    "ChatCall",
    "ChatMemory",
    "ChatMessage",
    "ChatModel",
    "ChatOptions",
    "Choice",
    "Completion",
    "ContentFilterError",
    "ContextLengthError",
    "Delta",
    "Embedder",
    "Embeddings",
    "EmbeddingsCall",
    "ImagePart",
    "LLMAuthenticationError",
    "LLMBadRequestError",
    "LLMConnectionError",
    "LLMError",
    "LLMNotFoundError",
    "LLMOutputError",
    "LLMRefusedError",
    "LLMResponseError",
    "LLMServerError",
    "LLMTimeoutError",
    "LLMUnavailableError",
    "Memory",
    "MemoryCall",
    "MissingExtraError",
    "OfflineModel",
    "OpenAI",
    "Passage",
    "QuotaError",
    "RateLimitError",
    "ReasoningPart",
    "RefusalPart",
    "Reply",
    "ReplyStream",
    "RequestOptions",
    "RerankCall",
    "Reranker",
    "RetrievalCall",
    "ScriptedModel",
    "StorageError",
    "TextPart",
    "ToolCallPart",
    "ToolDefinition",
    "ToolResultPart",
    "Usage",
    "default_model",
]
