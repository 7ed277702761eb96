"""What a model says of all its requests, in its constructor, and what becomes of it in a call that says more."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from agentflow.errors import shown

from .errors import LLMBadRequestError
from .model import ChatOptions, ModelOptions

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_OF_A_MODEL = ModelOptions.__required_keys__ | ModelOptions.__optional_keys__
OF_A_CALL = ChatOptions.__required_keys__ | ChatOptions.__optional_keys__
_WORDS = {
    "additional_kwargs": "extra",
    "api_base": "base_url",
    "extra_body": "extra",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_retries": "retry",
    "model_kwargs": "extra",
    "model_name": "model",
    "openai_api_base": "base_url",
    "openai_api_key": "api_key",
    "reasoning_effort": "reasoning",
    "request_timeout": "timeout",
    "stop_sequences": "stop",
}
"""What servers and other frameworks call our options."""
_ALIKE = 0.7
"""From here on names are alike; `top_p` is not `stop`."""


def checked_defaults(options: ModelOptions, owner: type[object]) -> ModelOptions:
    """What the constructor of a class was given, without what is None; the caller may change his own afterwards.

    Raises `LLMBadRequestError`.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    unknown = options.keys() - _OF_A_MODEL
    if unknown:
        raise _not_of_a_model(min(unknown), owner)
    if "extra" in given:
        given["extra"] = {**checked_extra(given["extra"])}
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    return cast("ModelOptions", given)


def checked_extra(extra: Any) -> Mapping[str, Any]:
    """Further fields of a request. Raises `LLMBadRequestError` where they are none."""
    if isinstance(extra, Mapping):
        return cast("Mapping[str, Any]", extra)
    raise LLMBadRequestError(f"extra={shown(extra)} is no mapping. Write extra={{'name of a field': ...}}.")


def merged(
    defaults: ModelOptions, parameters: Mapping[str, Any], extra: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The parameters and further fields of a call, with those of its model where it says nothing of its own.

    A field that has the meaning of a parameter, such as `reasoning_effort`, says the same as that. One that is a
    mapping adds to it, as the `reasoning` of the Responses API does.
    """
    fields = {_meaning(name) for name, value in extra.items() if not isinstance(value, Mapping)}
    said = parameters.keys() | fields
    usual = {name: value for name, value in defaults.items() if name != "extra" and name not in said}
    further = dict(defaults.get("extra") or {})
    for name in [name for name, value in further.items() if _meaning(name) in said and not isinstance(value, Mapping)]:
        del further[name]
    return {**usual, **parameters}, {**further, **extra}


def unknown_option(name: str) -> LLMBadRequestError:
    """The error of a call that says what calls cannot say."""
    return LLMBadRequestError(f"{name}= is no option of a call.{_meant(name, OF_A_CALL)}")


def _not_of_a_model(name: str, owner: type[object]) -> LLMBadRequestError:
    called = owner.__name__
    if name in OF_A_CALL:
        return LLMBadRequestError(f"{called}({name}=...): each call says that. Write chat(messages, {name}=...).")
    own = [
        parameter.name
        for parameter in [*inspect.signature(owner.__init__).parameters.values()][1:]
        if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
    ]
    return LLMBadRequestError(f"{called} has no option {name}=.{_meant(name, {*own, *_OF_A_MODEL})}")


def _meant(name: str, known: AbstractSet[str]) -> str:
    """What was meant, where that is known, and what there is; each sentence with a space before it."""
    meant = _meaning(name)
    near = [meant] if meant in known else get_close_matches(name, known, n=1, cutoff=_ALIKE)
    there = f"There are {', '.join(sorted(known))}"
    if near:
        return f" Did you mean {near[0]}=? {there}."
    return f" {there}; a further field of the request goes into extra={{{name!r}: ...}}."


def _meaning(name: str) -> str:
    return _WORDS.get(name, name)
