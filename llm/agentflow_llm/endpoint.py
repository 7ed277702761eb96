"""A server that speaks as OpenAI's does, through the `openai` client: its connections, its key, and its errors.

The client's own `post` is the way in: it keeps its transport, its authentication and its addresses, and leaves
out what costs most, the transformation of all messages on every call and the models of a stream's chunks.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from contextlib import aclosing, contextmanager, suppress
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from agentflow.clock import current_clock

from . import failures, prices
from .closing import Closing
from .errors import LLMAuthenticationError, LLMError
from .failures import Asked
from .loose import as_dict, excerpt, first
from .records import Progress
from .sse import EventReader, decoded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator, Mapping

    from openai import AsyncOpenAI

    from .messages import Usage

OPENAI = "https://api.openai.com/v1"
_NO_KEY = "no-key-needed"
_PROVIDERS = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "googleapis.com": "gcp.vertex_ai",
    "api.mistral.ai": "mistral_ai",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.x.ai": "x_ai",
    "api.perplexity.ai": "perplexity",
    "openrouter.ai": "openrouter",
}
"""By the end of the host's name, as OpenTelemetry names providers."""
_OLLAMA_PORT = 11434
_HTTP = {"httpx", "httpx2"}
"""The libraries that the client speaks through: one before openai 3, the other since."""
_OPTIONS: dict[str, Any] = {"security": {"bearer_auth": True}}
"""Without this an admin key in the environment would be sent instead of ours."""
_PATIENCE_AT_THE_END = 0.1
"""Seconds for the end of an answer whose last event has come; only then the connection can be used again."""


class Answer(NamedTuple):
    """The body of an answer, decoded, and its headers, names in lower case."""

    body: Any
    headers: Mapping[str, str]


class _Open(NamedTuple):
    """A client, its type of responses, and what closes it."""

    client: Any  # its own types do not say what all of its versions take
    response_type: type[Any]
    until_closed: AsyncGenerator[None]


async def _until_closed(client: AsyncOpenAI | None) -> AsyncGenerator[None]:
    """Closes the client when the event loop ends, as loops do with generators that were begun in them, or sooner."""
    try:
        yield
    finally:
        if client is not None:
            await client.close()


def _begin(generator: AsyncGenerator[None]) -> None:
    """Run it to its first `yield`. The loop calls this itself: what a stream begins is kept from it (`unseen`)."""
    with suppress(StopIteration, StopAsyncIteration):  # the latter where it is closed already
        generator.asend(None).send(None)


class Endpoint(Closing):
    """Where a model is asked: `post` a request, or `stream` its answer.

    - `api_key`: by default `OPENAI_API_KEY`. Servers other than OpenAI's may need none.
    - `base_url`: by default `OPENAI_BASE_URL`, else OpenAI's.
    - `client`: an `AsyncOpenAI` or `AsyncAzureOpenAI` of the caller's, used as it is but for its retries, which are
      switched off. It stays the caller's to close.
    - `provider`: who runs the model; by default known from the address.
    - `owner`: the class that errors are to name.

    `address` and `port` are the server's. The client is made at the first request, one for each event loop, and
    closed with it, or by `aclose()`. All errors are `LLMError`s, with `http_requests` 1 where a request was sent.
    """

    def __init__(  # noqa: PLR0913 because a server has this many sides
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: AsyncOpenAI | None = None,
        provider: str | None = None,
        owner: str = "OpenAI",
    ) -> None:
        _check_text("api_key", api_key, "'sk-...'")
        _check_text("base_url", base_url, "'http://127.0.0.1:8000/v1'")
        if client is not None:
            _check_client(client, api_key, base_url, owner)
            base_url = str(client.base_url)
        address = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI
        url = read_address(address, "base_url" if base_url else "OPENAI_BASE_URL")
        self.base_url = address.rstrip("/")
        known = _provider(url.hostname or "", url.port)
        self.provider = provider or known or "openai"
        self._billed_by = provider or known
        self.address = url.hostname
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self.is_openai = known == "openai"
        where = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()
        self.asked = Asked(model, where)
        self._owner = owner
        self._api_key = api_key
        self._given = client
        key: object = (api_key or os.environ.get("OPENAI_API_KEY")) if client is None else client.api_key
        self.account = (
            sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12] if isinstance(key, str) and key else None
        )
        """Tells the keys of one server apart, without telling the key."""
        self._open: dict[asyncio.AbstractEventLoop, _Open] = {}

    def __repr__(self) -> str:
        return f"Endpoint({self.asked.model!r}, base_url={self.asked.server!r})"

    async def prepare(self) -> None:
        """Import the client, which takes half a second and more, in a thread: the loop would stand still."""
        if "openai" not in sys.modules:
            await asyncio.to_thread(import_module, "openai")
        if self._billed_by is not None:
            await prices.prepare()

    async def post(self, path: str, body: Mapping[str, Any], *, progress: Progress | None = None) -> Answer:
        """The answer to a request, which is counted in `progress`.

        Raises `LLMError`, also for an error that comes with status 200.
        """
        known = await self._client()
        with self._errors(progress):
            response = await known.client.post(path, body=body, cast_to=known.response_type, options=_OPTIONS)
            return Answer(self._read(response), response.headers)

    async def stream(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        done: bool = False,
        headers: dict[str, str] | None = None,
        progress: Progress | None = None,
    ) -> AsyncGenerator[list[tuple[str, dict[str, Any]]]]:
        """The events of a streamed answer: for each read from the network a list of names ("" mostly) and data.

        `[DONE]` is left out, unless `done`: it is then an event of this name without data. An answer that is no
        stream but plain JSON is given as one event. `headers` is filled with those of the answer, before its events.
        The request is counted in `progress`. Raises `LLMError`; the connection is closed on every path.
        """
        known = await self._client()
        from openai import AsyncStream  # noqa: PLC0415 because it costs a second, and only who calls needs it

        with self._errors(progress):
            streamed = await known.client.post(
                path, body=body, cast_to=object, options=_OPTIONS, stream=True, stream_cls=AsyncStream[object]
            )
            response = streamed.response
            if headers is not None:
                headers.update(response.headers)
            reader = EventReader()
            try:
                async with aclosing(_bytes_of(response)) as reads:
                    async for read in reads:
                        events = reader.feed(read)
                        if events:
                            yield events
                        if reader.done or reader.broken is not None:
                            break
                    for events in self._last(reader, response, done=done):
                        yield events
                    if reader.done:
                        await drain(reads)
            finally:
                await response.aclose()  # httpx, before httpx2, leaves it open when its reading is given up

    def _last(self, reader: EventReader, response: Any, *, done: bool) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        events = reader.end()
        if events:
            yield events
        if reader.broken is not None:
            raise self._no_json(reader.broken.decode("utf-8", "replace"), response)
        if reader.plain:
            yield [("", as_dict(self._body(reader.text.encode(), response)))]
        if reader.done and done:
            yield [("[DONE]", {})]

    def priced(self, model: str, usage: Usage) -> Usage:
        """The usage with its cost, where it is known who runs the model. What only speaks like OpenAI has no price."""
        return usage if self._billed_by is None else prices.priced(self._billed_by, model, usage)

    def confessed(self, said: Any, headers: Mapping[str, str] | None = None) -> LLMError:
        """The error that a server tells in the midst of an answer whose status says that all is well."""
        return _sent(failures.confessed(self.asked, said, headers or {}))

    def no_reply(self, reason: str, headers: Mapping[str, str] | None = None) -> LLMError:
        """The error of an answer that is no reply."""
        return _sent(failures.no_reply(self.asked, reason, 200, headers or {}))

    def cut(self) -> LLMError:
        """The error of a streamed answer that ended before its end."""
        return _sent(failures.cut(self.asked))

    def filtered(self) -> LLMError:
        """The error of an answer of which a content filter left nothing."""
        return _sent(failures.filtered(self.asked))

    def _read(self, response: Any) -> Any:
        return self._body(response.content, response)

    def _body(self, content: bytes, response: Any) -> Any:
        try:
            body = decoded(content)
        except ValueError as error:
            raise self._no_json(content.decode("utf-8", "replace"), response) from error
        said = _confession(body)
        if said:
            raise failures.confessed(self.asked, said, response.headers)
        return body

    def _no_json(self, text: str, response: Any) -> LLMError:
        reason = f"it is no JSON: {excerpt(text)}"
        return failures.no_reply(self.asked, reason, response.status_code, response.headers)

    @contextmanager
    def _errors(self, progress: Progress | None) -> Generator[None]:
        """Makes errors of ours of whatever the client and its transport raise, for a request that was sent."""
        import openai  # noqa: PLC0415 because it costs a second, and only who calls needs it

        progress = progress or Progress()
        progress.http_requests += 1
        try:
            yield
        except LLMError as error:
            _sent(error)
            raise
        except openai.APIStatusError as error:
            answer = error.response
            raise _sent(failures.answered(self.asked, answer.status_code, answer.headers, answer.text)) from error
        except openai.APITimeoutError as error:
            raise _sent(failures.no_answer(self.asked)) from error
        except openai.APIConnectionError as error:
            raise _sent(failures.no_connection(self.asked, error)) from error
        except openai.OpenAIError as error:
            progress.http_requests -= 1
            raise LLMError(f"The client for {self.asked} failed: {error}") from error
        except (TypeError, ValueError) as error:  # what stands in a header or in `extra` may be no bytes, or no JSON
            progress.http_requests -= 1
            raise failures.not_sent(self.asked, error) from error
        except Exception as error:
            # the client lets through what its transport raises in the midst of a stream
            kinds = [kind for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in _HTTP]
            if not kinds:
                raise
            late = any(kind.__name__ == "TimeoutException" for kind in kinds)
            mapped = failures.no_answer(self.asked) if late else failures.cut(self.asked, error)
            raise _sent(mapped) from error

    async def _client(self) -> _Open:
        """The client of the running event loop: its connections belong to that loop."""
        loop = asyncio.get_running_loop()
        known = self._open.get(loop)
        if known is None:
            await self.prepare()
            if loop in self._open:  # another call was faster
                return self._open[loop]
            for other in list(self._open):
                if other.is_closed():
                    self._open.pop(other, None)  # a call in another thread may have been faster
            known = self._open[loop] = self._connect()
            loop.call_soon(_begin, known.until_closed)
        return known

    def _connect(self) -> _Open:
        if self._given is not None:
            client = self._given.with_options(max_retries=0)
            self._check_key(client.api_key)
        else:
            from openai import AsyncOpenAI  # noqa: PLC0415 because it costs a second, and only who calls needs it

            client = AsyncOpenAI(api_key=self._key(), base_url=self.base_url, max_retries=0)
        # either's URL tells which of them it is
        http = import_module(type(client.base_url).__module__.partition(".")[0])
        return _Open(client, http.Response, _until_closed(client if self._given is None else None))

    def _key(self) -> str:
        key = (self._api_key or os.environ.get("OPENAI_API_KEY") or "").strip()  # files end in a newline
        if key:
            self._check_key(key)
            return key
        if self.base_url == OPENAI:
            raise LLMAuthenticationError(
                f"There is no API key for {self.asked}. Set OPENAI_API_KEY, or pass {self._owner}(..., api_key=...); "
                "for another server set OPENAI_BASE_URL, or pass base_url=."
            )
        return _NO_KEY

    def _check_key(self, key: str) -> None:
        unfit = failures.unfit_key(self.asked, key)
        if unfit is not None:
            raise unfit

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a client that was given stays open."""
        known = self._open.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known.until_closed.aclose()


def _bytes_of(response: Any) -> Any:
    """What comes of a response, as it comes; taken bare where it can be, which is faster by half."""
    bare = not response.is_stream_consumed and "content-encoding" not in response.headers
    return response.aiter_raw() if bare else response.aiter_bytes()


async def drain(reads: AsyncGenerator[Any]) -> None:
    """Read what is left of an answer whose last event has come, so that the connection can be used again."""
    with suppress(Exception):  # what matters has come
        async with current_clock().timeout(_PATIENCE_AT_THE_END):
            async for _ in reads:
                pass


def _sent(error: LLMError) -> LLMError:
    """The error, with the one request that was sent for it."""
    error.http_requests = 1
    return error


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


def _check_text(name: str, given: object, meant: str) -> None:
    if given is not None and not isinstance(given, str):  # what it is instead may be a secret
        raise LLMError(f"{name}= is a text, not of type {type(given).__name__}. Write {name}={meant}.")


def _check_client(client: Any, api_key: str | None, base_url: str | None, owner: str) -> None:
    if api_key is not None or base_url is not None:
        raise LLMError(f"{owner}(client=...) has its key and address from the client. Leave out api_key and base_url.")
    if isinstance(client, type) or not inspect.iscoroutinefunction(getattr(client, "post", None)):
        raise LLMError(f"client={client!r} is no asynchronous client. Write client=openai.AsyncOpenAI(...).")


def _confession(body: Any) -> Any:
    """The error in a body whose status says that all is well, unless the body holds a reply as well."""
    whole = as_dict(first(body) or body)  # Google has it in a list
    choice = as_dict(first(whole.get("choices")))
    if choice.get("message") or "output" in whole:
        return None
    return choice.get("error") or whole.get("error") or (whole if whole.get("object") == "error" else None)


def _provider(host: str, port: int | None) -> str | None:
    if port == _OLLAMA_PORT:
        return "ollama"
    return next((name for end, name in _PROVIDERS.items() if host == end or host.endswith(f".{end}")), None)
