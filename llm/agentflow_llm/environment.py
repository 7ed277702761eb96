"""Which model to use where nobody says: the one that the environment names, else a local one, else none at all."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import LLMConnectionError, LLMError, LLMNotFoundError
from .failures import Asked, answered, no_connection
from .loose import as_dict, as_list, first
from .offline import OfflineModel
from .openai import OPENAI, OpenAIChat

if TYPE_CHECKING:
    from .model import ChatModel

_OPENAI_MODEL = "gpt-4o-mini"
_OLLAMA = "127.0.0.1:11434"
_OLLAMA_PATIENCE = 0.3
_PATIENCE = 10.0
_OTHERWISE = (
    "To choose another, set OPENAI_API_KEY, or OPENAI_BASE_URL to a server's address, and AGENTFLOW_MODEL to a model."
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
        return Choice(OfflineModel(), f"Using no language model, as AGENTFLOW_MODEL says. {_OTHERWISE}")
    address = os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/")
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if address and address != OPENAI:
        return await _at(address, key, name)
    if key or address:
        why = "as AGENTFLOW_MODEL says" if name else "because OPENAI_API_KEY is set and AGENTFLOW_MODEL is not"
        chosen = OpenAIChat(name or _OPENAI_MODEL, base_url=OPENAI)
        return Choice(chosen, f"Using {chosen.model!r} of OpenAI, {why}. {_OTHERWISE}")
    return await _local(name)


async def _at(address: str, key: str, name: str) -> Choice:
    """A model of the server at an address."""
    if name:
        why = "as OPENAI_BASE_URL and AGENTFLOW_MODEL say"
    else:
        OpenAIChat("", base_url=address)  # what is no address is refused here, not by the look-up
        body = await _look_up(f"{address}/models", key, _PATIENCE, Asked("the list of models", address))
        listed = as_dict(first(as_dict(body).get("data"))).get("id")
        if not isinstance(listed, str):
            raise LLMNotFoundError(f"The server at {address} lists no models. Set AGENTFLOW_MODEL to one that it has.")
        name, why = listed, "the first in the list of the server that OPENAI_BASE_URL names"
    return Choice(OpenAIChat(name, base_url=address), f"Using {name!r} at {address}, {why}. {_OTHERWISE}")


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
        chosen = OpenAIChat(name or str(models[0]), base_url=f"http://{host}/v1", provider="ollama")
        why = "as AGENTFLOW_MODEL says" if name else "its first model"
        return Choice(chosen, f"Using {chosen.model!r} of the Ollama at {host}, {why}. {_OTHERWISE}")
    if name:
        raise LLMConnectionError(
            f"AGENTFLOW_MODEL={name!r} names a model, but no server: OPENAI_API_KEY and OPENAI_BASE_URL are not set, "
            f"and {missing}. Set one of them, or AGENTFLOW_MODEL=offline to go without a language model."
        )
    why = f"OPENAI_API_KEY and OPENAI_BASE_URL are not set, and {missing}"
    return Choice(OfflineModel(), f"Using no language model, only quotations: {why}. {_OTHERWISE}")


def _ollama() -> str:
    """Host and port of the Ollama to look for. As a client has it: a server listens on 0.0.0.0, nobody calls there."""
    said = os.environ.get("OLLAMA_HOST", "").strip().rpartition("//")[2].rstrip("/")
    host, _, port = said.partition(":") if said.count(":") <= 1 else (said, "", "")
    host = "127.0.0.1" if host in {"", "0.0.0.0"} else host  # noqa: S104 because nothing is bound here
    return f"{host}:{port or _OLLAMA.partition(':')[2]}"


async def _look_up(url: str, key: str, patience: float, asked: Asked) -> Any:
    """The JSON at an address; None where it is none. Raises `LLMError`."""
    return await asyncio.to_thread(_get, url, key, patience, asked)


def _get(url: str, key: str, patience: float, asked: Asked) -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 because OpenAIChat lets only http and https pass
    try:
        with urllib.request.urlopen(request, timeout=patience) as answer:  # noqa: S310 because as above
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            found = {name.lower(): value for name, value in error.headers.items()}
            raise answered(asked, error.code, found, error.read().decode("utf-8", "replace")) from error
    except (OSError, http.client.HTTPException) as error:
        raise no_connection(asked, error) from error
    except ValueError:
        return None
