"""Which model to use where nobody says: the one that the environment names, else a local one, else none at all."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

from .endpoint import OPENAI, read_address
from .errors import LLMConnectionError, LLMError, LLMNotFoundError, LLMTimeoutError
from .failures import Asked, answered, no_connection, no_reply, not_sent, unfit_key
from .loose import as_dict, as_list, excerpt, first
from .offline import OfflineModel
from .openai import OpenAI

if TYPE_CHECKING:
    from .model import ChatModel

_OPENAI_MODEL = "gpt-4o-mini"
_OLLAMA = "127.0.0.1:11434"
_OLLAMA_PATIENCE = 0.3
_PATIENCE = 10.0
_OTHERWISE = (
    "To choose another, set OPENAI_API_KEY, or OPENAI_BASE_URL to a server's address, and AGENTFLOW_MODEL to a model."
)
_NOT_OFFLINE = (
    "To choose another, unset AGENTFLOW_MODEL or set it to a model, and set OPENAI_API_KEY, or OPENAI_BASE_URL to a "
    "server's address."
)


class Choice(NamedTuple):
    """A model, and in a sentence or two why it and no other."""

    model: ChatModel
    reason: str


async def default_model() -> Choice:
    """The model that the environment names, else the first of a local Ollama, else an `OfflineModel`.

    - `OPENAI_BASE_URL`: the server; `OPENAI_API_KEY`: its key, or OpenAI's where there is no address.
    - `AGENTFLOW_MODEL`: the model; without it the first in the server's list, from OpenAI gpt-4o-mini.
      "offline" is `OfflineModel`, whatever else is set.
    - `OLLAMA_HOST`: where an Ollama is looked for, for 0.3 s, when the first two are not set.

    A model or server that is named is never replaced: where it cannot be had, raises `LLMError`.
    """
    name = os.environ.get("AGENTFLOW_MODEL", "").strip()
    if name == "offline":
        return Choice(OfflineModel(), f"Using no language model, as AGENTFLOW_MODEL says. {_NOT_OFFLINE}")
    address = os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/")
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if address and address != OPENAI:
        return await _at(address, key, name)
    if key or address:
        why = "as AGENTFLOW_MODEL says" if name else "because OPENAI_API_KEY is set and AGENTFLOW_MODEL is not"
        chosen = OpenAI(name or _OPENAI_MODEL, base_url=OPENAI)
        return Choice(chosen, f"Using {chosen.model!r} of OpenAI, {why}. {_OTHERWISE}")
    return await _local(name)


async def _at(address: str, key: str, name: str) -> Choice:
    """A model of the server at an address."""
    read_address(address, "OPENAI_BASE_URL")
    if name:
        why = "as OPENAI_BASE_URL and AGENTFLOW_MODEL say"
    else:
        try:
            body = await _look_up(f"{address}/models", key, _PATIENCE, Asked("the list of models", address))
        except LLMNotFoundError as error:
            raise _no_list(address, error.status) from error
        listed = as_dict(first(as_dict(body).get("data"))).get("id")
        if not isinstance(listed, str):
            raise LLMNotFoundError(f"The server at {address} lists no models. Set AGENTFLOW_MODEL to one that it has.")
        name, why = listed, "the first in the list of the server that OPENAI_BASE_URL names"
    return Choice(OpenAI(name, base_url=address), f"Using {name!r} at {address}, {why}. {_OTHERWISE}")


async def _local(name: str) -> Choice:
    """A model of a local Ollama, if there is one."""
    host = _ollama()
    asked = Asked("the list of models", host)
    try:
        body = await _look_up(f"http://{host}/api/tags", "", _OLLAMA_PATIENCE, asked)
        models = [
            model for model in (as_dict(item).get("name") for item in as_list(as_dict(body).get("models"))) if model
        ]
        missing = f"the Ollama at {host} has no models"
    except LLMError:
        models, missing = [], f"no Ollama answers at {host}"
    if models and models[0]:
        chosen = OpenAI(name or str(models[0]), base_url=f"http://{host}/v1", provider="ollama")
        why = "as AGENTFLOW_MODEL says" if name else "its first model"
        return Choice(chosen, f"Using {chosen.model!r} of the Ollama at {host}, {why}. {_OTHERWISE}")
    if name:
        raise LLMConnectionError(
            f"AGENTFLOW_MODEL={name!r} names a model, but no server: OPENAI_API_KEY and OPENAI_BASE_URL are not set, "
            f"and {missing}. Set one of them, or AGENTFLOW_MODEL=offline to go without a language model."
        )
    why = f"OPENAI_API_KEY and OPENAI_BASE_URL are not set, and {missing}"
    return Choice(OfflineModel(), f"Using no language model, only quotations: {why}. {_OTHERWISE}")


def _no_list(address: str, status: int | None) -> LLMNotFoundError:
    meant = (
        "Check OPENAI_BASE_URL."
        if address.endswith("/v1")
        else f"The address usually ends in /v1: set OPENAI_BASE_URL={address}/v1."
    )
    return LLMNotFoundError(
        f"There is nothing at {address}/models, where OPENAI_BASE_URL lets the list of models be looked for (status "
        f"{status}). {meant} To go without the list, set AGENTFLOW_MODEL to a model.",
        status=status,
    )


def _ollama() -> str:
    """Host and port of the Ollama to look for. As a client has it: a server listens on 0.0.0.0, nobody calls there."""
    said = os.environ.get("OLLAMA_HOST", "").strip().rpartition("//")[2].partition("/")[0]
    if said.startswith("["):
        host, _, port = said.removeprefix("[").partition("]")
    else:
        host, _, port = said.partition(":") if said.count(":") <= 1 else (said, "", "")
    # nothing is bound here: these are the addresses of servers that listen everywhere
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 because as above
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port.removeprefix(':') or _OLLAMA.partition(':')[2]}"


async def _look_up(url: str, key: str, patience: float, asked: Asked) -> Any:
    """The JSON at an address. Raises `LLMError`."""
    unfit = unfit_key(asked, key)
    if unfit is not None:
        raise unfit
    return await asyncio.to_thread(_get, url, key, patience, asked)


def _get(url: str, key: str, patience: float, asked: Asked) -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 because OpenAI lets only http and https pass
    try:
        with urllib.request.urlopen(request, timeout=patience) as answer:  # noqa: S310 because as above
            status, text = answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            found = {name.lower(): value for name, value in error.headers.items()}
            raise answered(asked, error.code, found, error.read().decode("utf-8", "replace")) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
            raise LLMTimeoutError(
                f"{asked.server} did not answer in {patience:g} s when asked for {asked.model}. Does the server hang, "
                "or is its address (OPENAI_BASE_URL) wrong? To go without the list, set AGENTFLOW_MODEL to a model."
            ) from error
        raise no_connection(asked, error) from error
    except ValueError as error:  # an address may have characters that no request can carry
        raise not_sent(asked, error) from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise no_reply(asked, f"it is no JSON: {excerpt(text)}", status, {}) from error
