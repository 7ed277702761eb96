"""Chat Completions: OpenAI, Azure, and all servers that speak like them."""

from __future__ import annotations

from contextlib import aclosing
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Unpack

from agentflow.retry import Retry

from .accumulator import Accumulator
from .adapter import Adapter
from .call import counting
from .chat import BaseChatModel
from .endpoint import Endpoint
from .errors import LLMBadRequestError, LLMError, LLMResponseError
from .output import checked_mode
from .wire import check_extra, ignored_choices, output_tool, read_reply, render_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from openai import AsyncOpenAI

    from .backoff import Policy
    from .messages import ChatMessage, Delta, Reply
    from .model import ModelOptions, RequestOptions
    from .output import OutputMode
    from .records import ChatCall

_PATH = "/chat/completions"


class OpenAI(Adapter, BaseChatModel):
    """A model behind a Chat Completions server.

    - `api_key`: by default `OPENAI_API_KEY`. Servers other than OpenAI's may need none.
    - `base_url`: by default `OPENAI_BASE_URL`, else OpenAI's; usually ends in `/v1`.
    - `client`: an `AsyncOpenAI` or `AsyncAzureOpenAI` of yours, used as it is but for its retries, which are
      switched off: there is one layer of retries, this one. It stays yours to close.
    - `provider`: who runs the model, for traces; by default known from the address.
    - `retry`: asks again while the server cannot answer, three attempts by default; a `Retry-After` is obeyed up
      to 60 s. None asks once.
    - `timeout`: seconds for all attempts of a call together, 60 by default; None for no limit.
    - `output_mode`: how `output=` is asked for. "native": by `response_format`, strictly where the schema can be made
      strict. "tool": as the arguments of a tool that the model has to call. "prompt": in words, for servers that
      know neither.
    - `temperature`, `max_tokens`, `stop`, `seed`, `reasoning`, `extra`: of all calls, where a call does not say its
      own; see `ModelOptions`.

    The client is made at the first call, one for each event loop, and closed with it, or by `aclose()`.
    Raises `LLMError`, as all models do.
    """

    def __init__(  # noqa: PLR0913 because a server has this many sides
        self,
        model: str = "gpt-4o-mini",
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: AsyncOpenAI | None = None,
        provider: str | None = None,
        retry: Policy | None = Retry(attempts=3),  # noqa: B008 because a policy is frozen
        timeout: float | None = 60.0,
        output_mode: OutputMode = "native",
        **options: Unpack[ModelOptions],
    ) -> None:
        endpoint = Endpoint(model, api_key=api_key, base_url=base_url, client=client, provider=provider)
        super().__init__(model, endpoint.provider, retry=retry, timeout=timeout, **options)
        check_extra(self.defaults.get("extra") or {})
        self.connect(endpoint)
        self.output_mode: OutputMode = checked_mode(output_mode)
        self._max_tokens_as = "max_completion_tokens" if endpoint.is_openai else "max_tokens"
        self._usage_in_streams = True

    def render_request(self, messages: Sequence[ChatMessage], **options: Unpack[RequestOptions]) -> dict[str, Any]:
        """The body that `chat` with these arguments would send; yours to change.

        `stream` sends `"stream": true` with it, and `"stream_options": {"include_usage": true}` unless `extra` has
        such options of its own, or the server has refused them.
        """
        return deepcopy(self._render(self.call_of(messages, options)))

    def _render(self, call: ChatCall) -> dict[str, Any]:
        check_extra(call.extra)
        return render_request(call, max_tokens_as=self._max_tokens_as, output_mode=self.output_mode)

    async def answer(self, call: ChatCall) -> Reply:
        """One request. Raises `LLMError`."""
        answer = await self.endpoint.post(_PATH, self._render(call), progress=call.progress)
        try:
            reply = read_reply(answer.body, output_tool=output_tool(call, self.output_mode))
        except LLMResponseError as error:
            raise self.endpoint.no_reply(str(error), answer.headers) from error
        return self._finished(call, reply, ignored_choices(answer.body))

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """One request, or a second where the server does not know `stream_options`. Raises `LLMError`."""
        body = {**self._render(call), "stream": True}
        asking = self._usage_in_streams and "stream_options" not in body
        if asking:
            body["stream_options"] = {"include_usage": True}
        refused = 0
        while True:
            chunks = Accumulator(output_tool(call, self.output_mode))
            begun = False
            headers: dict[str, str] = {}
            try:
                async with aclosing(
                    self.endpoint.stream(_PATH, body, done=True, headers=headers, progress=call.progress)
                ) as reads:
                    async for events in reads:
                        for delta in chunks.feed(events):
                            begun = True
                            yield delta
                        if chunks.error is not None:
                            raise self.endpoint.confessed(chunks.error, headers)
                break
            except LLMError as error:
                if begun or not asking or not _refuses_stream_options(error):
                    error.http_requests += refused
                    raise
                self._usage_in_streams = asking = False
                del body["stream_options"]
                refused = error.http_requests
        ends, reply = self._put_together(call, chunks, headers)
        for delta in ends:
            yield delta
        yield counting(reply, refused)

    def _put_together(
        self, call: ChatCall, chunks: Accumulator, headers: Mapping[str, str]
    ) -> tuple[list[Delta], Reply]:
        """The last deltas of a stream, and the reply that it makes."""
        if not chunks.ended:
            raise self.endpoint.cut()
        try:
            ends, reply = chunks.end(), chunks.reply()
        except LLMResponseError as error:
            raise self.endpoint.no_reply(str(error), headers) from error
        return ends, self._finished(call, reply, chunks.ignored)

    def _finished(self, call: ChatCall, reply: Reply, ignored: int) -> Reply:
        """The reply with its price. Raises `ContentFilterError` where a filter left nothing of it."""
        if reply.finish_reason == "content_filter" and not (reply.text or reply.refusal or reply.tool_calls):
            raise self.endpoint.filtered()
        if ignored and call.noting is not None:
            call.noting("choices_ignored", {"ignored": ignored})
        usage = self.endpoint.priced(reply.model or self.model, reply.usage)
        return reply if usage is reply.usage else reply.model_copy(update={"usage": usage})


def _refuses_stream_options(error: LLMError) -> bool:
    return isinstance(error, LLMBadRequestError) and "stream_options" in str(error)
