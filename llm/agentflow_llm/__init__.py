"""Model, embedding, memory and vector clients for agentflow."""

from .cache import Cached
from .chat import BaseChatModel
from .completion import Completion
from .documents import Chunk, Document, DocumentError, VectorStore
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
from .fallback import Fallback
from .hash_embedder import HashEmbedder
from .index import Retriever, VectorStoreIndex
from .long_term_memory import LongTermMemory
from .memory import ChatMemory, Memory, MemoryInputError
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
from .model import ChatModel, ChatOptions, Embedder, Embeddings, ModelOptions, RequestOptions, Reranker
from .offline import OfflineModel
from .openai import OpenAI
from .openai_embedder import OpenAIEmbedder
from .rate_limit import RateLimited
from .records import ChatCall, EmbeddingsCall, MemoryCall, Passage, RerankCall, RetrievalCall
from .rerank import BaseReranker, ModelReranker
from .responses import OpenAIResponses
from .retrying import Retrying
from .scripted import ScriptedModel
from .stream import ReplyStream
from .summary_memory import SummaryMemory
from .tokens import TiktokenCounter, TokenCounter, TokenEstimator
from .vector_store import SqliteVectorStore

__all__ = [
    "BaseChatModel",
    "BaseEmbedder",
    "BaseReranker",
    "Cached",
    "ChatCall",
    "ChatMemory",
    "ChatMessage",
    "ChatModel",
    "ChatOptions",
    "Choice",
    "Chunk",
    "Completion",
    "ContentFilterError",
    "ContextLengthError",
    "Delta",
    "Document",
    "DocumentError",
    "Embedder",
    "Embeddings",
    "EmbeddingsCall",
    "Fallback",
    "HashEmbedder",
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
    "LongTermMemory",
    "Memory",
    "MemoryCall",
    "MemoryInputError",
    "MissingExtraError",
    "ModelOptions",
    "ModelReranker",
    "OfflineModel",
    "OpenAI",
    "OpenAIEmbedder",
    "OpenAIResponses",
    "Passage",
    "QuotaError",
    "RateLimitError",
    "RateLimited",
    "ReasoningPart",
    "RefusalPart",
    "Reply",
    "ReplyStream",
    "RequestOptions",
    "RerankCall",
    "Reranker",
    "RetrievalCall",
    "Retriever",
    "Retrying",
    "ScriptedModel",
    "SqliteVectorStore",
    "StorageError",
    "SummaryMemory",
    "TextPart",
    "TiktokenCounter",
    "TokenCounter",
    "TokenEstimator",
    "ToolCallPart",
    "ToolDefinition",
    "ToolResultPart",
    "Usage",
    "VectorStore",
    "VectorStoreIndex",
    "default_model",
]
