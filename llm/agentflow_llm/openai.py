"""Chat Completions through the `openai` client: OpenAI, Azure, and all servers that speak like them.

The client's own `post` is the way in: it keeps its transport, its authentication and its errors, and leaves
out what costs most, the transformation of the whole history on every call.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from copy import deepcopy
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack
from urllib.parse import SplitResult, urlsplit

from agentflow.retry import Retry

from . import failures
from .chat import BaseChatModel
from .errors import LLMAuthenticationError, LLMError, LLMResponseError
from .failures import Asked
from .loose import as_dict, excerpt, first
from .wire import read_reply, render_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from types import TracebackType

    from openai import AsyncOpenAI

    from agentflow.retry import RetryPolicy

    from .messages import ChatMessage, Reply
    from .model import RequestOptions
    from .records import ChatCall

OPENAI = "https://api.openai.com/v1"
_NO_KEY = "no-key-needed"
_PROVIDERS = {
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "api.mistral.ai": "mistral_ai",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.x.ai": "x_ai",
    "api.perplexity.ai": "perplexity",
    "openrouter.ai": "openrouter",
}
"""By the end of the host's name, as OpenTelemetry names providers. Who is not here, speaks as `openai`."""
_OLLAMA_PORT = 11434


class _Open(NamedTuple):
    """A client, its type of responses, and what closes it."""

    client: AsyncOpenAI
    response_type: type[Any]
    until_closed: AsyncGenerator[None]


async def _until_closed(client: AsyncOpenAI | None) -> AsyncGenerator[None]:
    """Closes the client when the event loop ends, as loops do with generators that were begun in them, or sooner."""
    try:
        yield
    finally:
        if client is not None:
            await client.close()


class OpenAI(BaseChatModel):
    """A model behind a Chat Completions server.

    - `api_key`: by default `OPENAI_API_KEY`. Servers other than OpenAI's may need none.
    - `base_url`: by default `OPENAI_BASE_URL`, else OpenAI's; usually ends in `/v1`.
    - `client`: an `AsyncOpenAI` or `AsyncAzureOpenAI` of yours, used as it is but for its retries, which are
      switched off: there is one layer of retries, this one. It stays yours to close.
    - `provider`: who runs the model, for traces; by default known from the address.
    - `retry`: asks again while the server cannot answer, three attempts by default; a `Retry-After` is obeyed up
      to 60 s. None asks once.
    - `timeout`: seconds for all attempts of a call together, 60 by default; None for no limit.

    The client is made at the first call, one for each event loop, and closed with it, or by `aclose()`.
    Raises `LLMError`, as all models do.
    """

    def __init__(  # noqa: PLR0913 because a server has this many sides
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: AsyncOpenAI | None = None,
        provider: str | None = None,
        retry: RetryPolicy | None = Retry(attempts=3),  # noqa: B008 because a policy is frozen
        timeout: float | None = 60.0,
    ) -> None:
        if client is not None:
            _check_client(client, api_key, base_url)
            base_url = str(client.base_url)
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        url = read_address(self.base_url, "base_url" if base_url else "OPENAI_BASE_URL")
        super().__init__(model, provider or _provider(url.hostname or "", url.port), retry=retry, timeout=timeout)
        self.server_address = url.hostname
        self.server_port = url.port or (443 if url.scheme == "https" else 80)
        self._api_key = api_key
        self._given = client
        self._open: dict[asyncio.AbstractEventLoop, _Open] = {}
        where = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()
        self._asked = Asked(model, where)
        self._max_tokens_as = "max_completion_tokens" if url.hostname == urlsplit(OPENAI).hostname else "max_tokens"

    def __repr__(self) -> str:
        return f"OpenAI({self.model!r}, base_url={self._asked.server!r})"

    @property
    def place(self) -> str:
        """Behind the model's name."""
        return f" at {self._asked.server}"

    def render_request(self, messages: Sequence[ChatMessage], **options: Unpack[RequestOptions]) -> dict[str, Any]:
        """The body that `chat` with these arguments would send; yours to change."""
        return deepcopy(self._render(self.call_of(messages, options)))

    def _render(self, call: ChatCall) -> dict[str, Any]:
        return render_request(call, max_tokens_as=self._max_tokens_as)

    async def prepare(self) -> None:
        """Import the client, which takes half a second and more, in a thread: the loop would stand still."""
        if "openai" not in sys.modules:
            await asyncio.to_thread(import_module, "openai")

    async def answer(self, call: ChatCall) -> Reply:
        """One request. Raises `LLMError`."""
        try:
            return await self._post(call)
        except LLMError as error:
            error.http_requests = 1
            raise

    async def _post(self, call: ChatCall) -> Reply:
        known = await self._client()
        import openai  # noqa: PLC0415 because it costs a second, and only who calls needs it

        try:
            # without `security`, an admin key in the environment would be sent instead of ours
            response = await known.client.post(
                "/chat/completions",
                body=self._render(call),
                cast_to=known.response_type,
                options={"security": {"bearer_auth": True}},
            )
        except openai.APIStatusError as error:
            answer = error.response
            raise failures.answered(self._asked, answer.status_code, answer.headers, answer.text) from error
        except openai.APITimeoutError as error:
            raise failures.no_answer(self._asked) from error
        except openai.APIConnectionError as error:
            raise failures.no_connection(self._asked, error) from error
        except openai.OpenAIError as error:
            raise LLMError(f"The client for {self._asked} failed: {error}") from error
        except (TypeError, ValueError) as error:  # what stands in a header or in `extra` may be no bytes, or no JSON
            raise failures.not_sent(self._asked, error) from error
        return self._read(response)

    def _read(self, response: Any) -> Reply:
        headers: Mapping[str, str] = response.headers
        try:
            body = json.loads(response.content)
        except ValueError as error:
            reason = f"it is no JSON: {excerpt(response.text)}"
            raise failures.no_reply(self._asked, reason, response.status_code, headers) from error
        said = _confession(body)
        if said:
            raise failures.confessed(self._asked, said, headers)
        try:
            return read_reply(body)
        except LLMResponseError as error:
            raise failures.no_reply(self._asked, str(error), response.status_code, headers) from error

    async def _client(self) -> _Open:
        """The client of the running event loop: its connections belong to that loop."""
        loop = asyncio.get_running_loop()
        known = self._open.get(loop)
        if known is None:
            await self.prepare()
            if loop in self._open:  # another call was faster
                return self._open[loop]
            for other in [other for other in self._open if other.is_closed()]:
                del self._open[other]
            known = self._open[loop] = self._connect()
            await anext(known.until_closed)
        return known

    def _connect(self) -> _Open:
        if self._given is not None:
            client = self._given.with_options(max_retries=0)
            self._check_key(client.api_key)
        else:
            from openai import AsyncOpenAI  # noqa: PLC0415 because it costs a second, and only who calls needs it

            client = AsyncOpenAI(api_key=self._key(), base_url=self.base_url, max_retries=0)
        # openai < 3 speaks httpx, later ones httpx2; either's URL tells
        http = import_module(type(client.base_url).__module__.partition(".")[0])
        return _Open(client, http.Response, _until_closed(client if self._given is None else None))

    def _key(self) -> str:
        key = (self._api_key or os.environ.get("OPENAI_API_KEY") or "").strip()  # files end in a newline
        if key:
            self._check_key(key)
            return key
        if self.base_url == OPENAI:
            raise LLMAuthenticationError(
                f"There is no API key for {self._asked}. Set OPENAI_API_KEY, or pass OpenAI(..., api_key=...); for "
                "another server set OPENAI_BASE_URL, or pass base_url=."
            )
        return _NO_KEY

    def _check_key(self, key: str) -> None:
        unfit = failures.unfit_key(self._asked, key)
        if unfit is not None:
            raise unfit

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a client that was given stays open."""
        known = self._open.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known.until_closed.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()


def read_address(address: str, called: str) -> SplitResult:
    """The parts of a server's address. Raises `LLMError`, which calls it as it was called where it was set."""
    try:
        url = urlsplit(address)
        fit = address.isprintable() and " " not in address
        if fit and url.scheme in {"http", "https"} and url.hostname and url.port != 0:
            return url
    except ValueError:  # brackets that are not closed, or a port that is none
        url = None
    meant = "http://127.0.0.1:8000/v1" if url is None or "://" in address else f"http://{address}"
    raise LLMError(f"{called}={address!r} is no address. Write {called}={meant!r}.")


def _check_client(client: Any, api_key: str | None, base_url: str | None) -> None:
    if api_key is not None or base_url is not None:
        raise LLMError("OpenAI(client=...) has its key and address from the client. Leave out api_key and base_url.")
    if not inspect.iscoroutinefunction(getattr(client, "post", None)):
        raise LLMError(f"client={client!r} is no asynchronous client. Write client=openai.AsyncOpenAI(...).")


def _confession(body: Any) -> Any:
    """The error in a body whose status says that all is well, unless the body holds a reply as well."""
    choice = as_dict(first(as_dict(body).get("choices")))
    return None if choice.get("message") else choice.get("error") or as_dict(body).get("error")


def _provider(host: str, port: int | None) -> str:
    if port == _OLLAMA_PORT:
        return "ollama"
    return next((name for end, name in _PROVIDERS.items() if host == end or host.endswith(f".{end}")), "openai")
