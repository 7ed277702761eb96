"""The Responses API through the `openai` client."""

from __future__ import annotations

from contextlib import aclosing
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Unpack

from agentflow.retry import Retry

from .adapter import Adapter
from .chat import BaseChatModel
from .endpoint import Endpoint, drain
from .errors import ContentFilterError, LLMError, LLMResponseError
from .loose import as_dict
from .output import checked_mode
from .responses_events import ResponseReader, failure_in
from .responses_wire import check_parameters, read_reply, render_request
from .wire import check_extra, output_tool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from openai import AsyncOpenAI

    from .backoff import Policy
    from .messages import ChatMessage, Delta, Reply
    from .model import ModelOptions, RequestOptions
    from .output import OutputMode
    from .records import ChatCall

_PATH = "/responses"
_STATUS = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "vector_store_timeout": 504,
    "context_length_exceeded": 400,
    "data_residency_mismatch": 400,
    "empty_image_file": 400,
    "failed_to_download_image": 400,
}
"""The status that an answer of a kind would have, by the code of the error that came in its place."""
_WRONG = ("invalid_", "image_", "unsupported_")
"""How the codes of errors begin that the request itself is to blame for."""


class OpenAIResponses(Adapter, BaseChatModel):
    """A model behind a server that has the Responses API.

    - `store`: whether the server keeps the answers, as `extra={"previous_response_id": reply.id}` needs it. By default
      it keeps nothing: each call sends all of the conversation. The model's thoughts go with it, encrypted, where
      `reasoning=` is given.
    - All else, `output_mode` among it, is as with `OpenAI`; `stop` and `seed` raise `LLMBadRequestError`, for the API
      does not have them.

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
        store: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        endpoint = Endpoint(
            model, api_key=api_key, base_url=base_url, client=client, provider=provider, owner=type(self).__name__
        )
        super().__init__(model, endpoint.provider, retry=retry, timeout=timeout, **options)
        check_parameters({**self.defaults})
        check_extra(self.defaults.get("extra") or {})
        self.connect(endpoint)
        self.output_mode: OutputMode = checked_mode(output_mode)
        self.store = store

    def call_of(self, messages: Sequence[ChatMessage], options: RequestOptions) -> ChatCall:
        """The record of a call. Raises `LLMBadRequestError` where the options make no sense."""
        call = super().call_of(messages, options)
        check_parameters(call.parameters)
        return call

    def render_request(self, messages: Sequence[ChatMessage], **options: Unpack[RequestOptions]) -> dict[str, Any]:
        """The body that `chat` with these arguments would send; yours to change. `stream` adds `"stream": true`."""
        return deepcopy(self._render(self.call_of(messages, options)))

    def _render(self, call: ChatCall) -> dict[str, Any]:
        check_extra(call.extra)
        return render_request(call, store=self.store, output_mode=self.output_mode)

    async def answer(self, call: ChatCall) -> Reply:
        """One request. Raises `LLMError`."""
        body, headers = await self.endpoint.post(_PATH, self._render(call), progress=call.progress)
        return self._reply(as_dict(body), call, headers)

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """One request, answered in pieces. Raises `LLMError`."""
        reader = ResponseReader(output_tool(call, self.output_mode))
        body = {**self._render(call), "stream": True}
        async with aclosing(self.endpoint.stream(_PATH, body, progress=call.progress)) as reads:
            async for events in reads:
                for name, data in events:
                    for delta in reader.feed(name, as_dict(data)):
                        yield delta
                    if reader.failure is not None:
                        raise self._failed(reader.failure)
                if reader.response is not None:
                    yield self._reply(reader.response, call)
                    await drain(reads)
                    return
        raise self.endpoint.cut()

    def _reply(self, body: dict[str, Any], call: ChatCall, headers: Mapping[str, str] | None = None) -> Reply:
        failure = failure_in(body)
        if failure:
            raise self._failed(failure, headers)
        try:
            reply = read_reply(body, output_tool=output_tool(call, self.output_mode))
        except LLMResponseError as error:
            raise self.endpoint.no_reply(str(error), headers) from error
        if reply.finish_reason == "content_filter" and not (reply.text or reply.refusal or reply.tool_calls):
            raise self.endpoint.filtered()
        usage = self.endpoint.priced(reply.model or call.model, reply.usage)
        return reply.model_copy(update={"usage": usage})

    def _failed(self, failure: Any, headers: Mapping[str, str] | None = None) -> LLMError:
        """The error that the server tells of in place of an answer."""
        told = as_dict(failure)
        code = str(told.get("code"))
        if "policy" in code:
            reason = str(told.get("message") or code).rstrip(".")
            request_id = (headers or {}).get("x-request-id")
            error = ContentFilterError(
                f"The server stopped {self.endpoint.asked}: {reason}.", status=200, code=code, request_id=request_id
            )
            error.http_requests = 1
            return error
        status = _STATUS.get(code, 400 if code.startswith(_WRONG) else None)
        return self.endpoint.confessed(told if status is None else {**told, "status": status}, headers)
