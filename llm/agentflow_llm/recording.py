"""Requests and answers kept in a file, and played again without a network."""

from __future__ import annotations

import difflib
import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from .errors import LLMError, StorageError
from .loose import as_dict, as_list, parsed
from .redaction import answered_headers, clean_json, clean_text, clean_url, secrets, sent_headers

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from openai import AsyncOpenAI

Mode = Literal["replay", "record", "missing"]
MODES: tuple[Mode, ...] = ("replay", "record", "missing")
_APIS = ("/chat/completions", "/responses", "/embeddings", "/completions")
_WIDTH = 100
"""Characters of a line in a difference; a longer one is shown as several, so that a change in it can be seen."""
_NO_KEY = "no-key-needed"


class Recording:
    """Plays the answers that a file has, so that a test needs neither a network nor a key.

    ```
    with Recording("tests/recordings/joke.json") as recording:
        model = OpenAI("gpt-4o-mini", client=recording.client())
    ```

    - `mode`: "replay" only plays; "record" asks the real server each time, and appends to the file; "missing" plays
      what the file has, and asks and appends the rest.
    - `split`: bytes in each piece of a body that is played; by default it comes whole.
    - `all_used`: whether, when the block ends, each answer must have been played, unless something was recorded.

    A request gets the first answer that was not played yet to a request of the same method, path and JSON, where
    neither the order of fields counts, nor null, nor `"stream": false`, nor how JSON in a tool call's arguments is
    written. One that the file has not is answered with status 400, which no policy tries again; the end of the block
    then raises an `AssertionError` with the nearest request of the file, and what is different.

    The file has no keys, cookies, organisations and projects: headers of requests are left out but for a few, and
    what looks like a key is replaced in addresses and bodies. It is JSON, with `interactions`, each a `request`
    (`method`, `url`, `headers`, `json`) and its `response` (`status`, `headers`, `body`); all else in it is kept.
    Streams are kept whole, and played without waiting. Raises `StorageError` where the file cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "replay",
        split: int | None = None,
        all_used: bool = True,
    ) -> None:
        if mode not in MODES:
            raise LLMError(f"mode={mode!r} is none of {', '.join(map(repr, MODES))}.")
        if split is not None and split < 1:
            raise LLMError(f"split={split!r}: a piece has 1 byte or more.")
        self.path = Path(path)
        self.mode = mode
        self._split = split
        self._all_used = all_used
        self._file = self._read()
        self._known = [_Interaction(as_dict(item)) for item in as_list(self._file.get("interactions"))]
        self._recorded = 0
        self._misses: list[str] = []

    def __repr__(self) -> str:
        return f"Recording({str(self.path)!r}, mode={self.mode!r})"

    def remedy(self) -> str:
        """What makes it record an answer that the file has not, for messages."""
        return f'write Recording({str(self.path)!r}, mode="missing")'

    def client(self, **options: Any) -> AsyncOpenAI:
        """A client of the `openai` library whose requests go through this; `options` are those of `AsyncOpenAI`.

        Where only played, it needs no key, and its address is the recorded one.
        """
        from openai import AsyncOpenAI  # noqa: PLC0415 because it costs a second, and only who records needs it

        if self.mode == "replay":
            options.setdefault("api_key", _NO_KEY)
            options.setdefault("base_url", self._base_url())
        options.setdefault("max_retries", 0)
        return AsyncOpenAI(http_client=self.http_client(), **options)

    def http_client(self) -> Any:
        """An `AsyncClient` of the HTTP library that the `openai` library speaks through, for its other clients.

        `AsyncAzureOpenAI(..., http_client=recording.http_client())`.
        """
        http = _http()
        return http.AsyncClient(transport=http.MockTransport(self._answer))

    def _base_url(self) -> str | None:
        """The address that was recorded, without the API."""
        if not self._known:
            return None
        parts = urlsplit(self._known[0].url)
        path = next((parts.path.removesuffix(end) for end in _APIS if parts.path.endswith(end)), parts.path)
        return parts._replace(path=path, query="").geturl()

    async def _answer(self, request: Any) -> Any:
        """The answer to a request of the HTTP library."""
        known = secrets(request.headers.multi_items())
        url = clean_url(str(request.url), known)
        body = clean_json(parsed((await request.aread()).decode("utf-8", "replace")), known)
        asked = _Interaction({"request": {"method": request.method, "url": url, "json": body}})
        if self.mode != "record":
            for one in self._known:
                if not one.used and one.matches(asked):
                    one.used = True
                    return self._played(one.response)
            if self.mode == "replay":
                self._misses.append(self._miss(asked))
                told = f"{self.path.name} has no such request, or no more of them. {self._misses[-1].splitlines()[1]}"
                return _http().Response(400, json={"error": {"message": told, "code": "not_recorded"}})
        async with _http().AsyncClient(timeout=None) as real:
            response = await real.send(request)
        known += secrets(response.headers.multi_items())
        asked.request["headers"] = sent_headers(request.headers, known)
        asked.response = {
            "status": response.status_code,
            "headers": answered_headers(response.headers, known),
            "body": clean_text(response.text, known),
        }
        asked.used = True
        self._known.append(asked)
        self._recorded += 1
        return self._played({**asked.response, "body": response.text})

    def _played(self, response: dict[str, Any]) -> Any:
        body = str(response.get("body") or "").encode()
        headers = answered_headers({name: str(value) for name, value in as_dict(response.get("headers")).items()})
        content = body if self._split is None else _pieces(body, self._split)
        return _http().Response(int(response.get("status") or 200), headers=headers, content=content)

    def _miss(self, asked: _Interaction) -> str:
        """What is said of a request that the file has not."""
        said = f"{self.path} has no answer to this {asked}."
        how = f"To record it, {self.remedy()}."
        if not self._known:
            return f"{said}\nIt is empty. {how}"
        number, nearest = max(enumerate(self._known, start=1), key=lambda item: item[1].likeness(asked))
        where = f"interaction {number} of {len(self._known)}, {nearest}{', which was played already' * nearest.used}"
        difference = nearest.difference(asked)
        if not difference:
            return f"{said}\nIt has it only {self._times(asked)}: the same is {where}. {how}"
        return "\n".join([said, f"The nearest is {where}. {how}", *difference])

    def _times(self, asked: _Interaction) -> str:
        times = sum(one.matches(asked) for one in self._known)
        return "once" if times == 1 else f"{times} times"

    def _read(self) -> dict[str, Any]:
        file = repr(str(self.path))
        try:
            said: Any = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            if self.mode != "replay":
                return {"interactions": []}
            raise StorageError(f"There is no recording at {file}. To make it, {self.remedy()}.") from error
        except (OSError, ValueError) as error:
            raise StorageError(f"The recording {file} cannot be read: {error}.") from error
        if not isinstance(as_dict(said).get("interactions"), list):
            raise StorageError(f'{file} is no recording: it is no JSON object with "interactions".')
        return as_dict(said)

    def save(self) -> None:
        """Write the file. Raises `StorageError`."""
        self._file["interactions"] = [{"request": one.request, "response": one.response} for one in self._known]
        text = json.dumps(self._file, ensure_ascii=False, indent=1)
        beside = self.path.with_name(f"{self.path.name}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(f"{text}\n", encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            raise StorageError(f"The recording {str(self.path)!r} cannot be written: {error}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._recorded:
            self.save()
        if self._misses and isinstance(error, Exception | None):
            raise AssertionError("\n\n".join(self._misses)) from error
        unused = [f"{number}, {one}" for number, one in enumerate(self._known, start=1) if not one.used]
        if error is None and unused and self._all_used and not self._recorded and self.mode != "record":
            raise AssertionError(
                f"{self.path} has answers that nobody asked for: interaction {'; interaction '.join(unused)}. Ask for "
                "them, remove them from the file, or write Recording(..., all_used=False)."
            )


class _Interaction:
    """A request and its answer, as they stand in the file."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.request = as_dict(said.get("request"))
        self.response = as_dict(said.get("response"))
        self.url = str(self.request.get("url") or "")
        self.line = f"{self.request.get('method')} {urlsplit(self.url).path}"
        self.body = _essence(clean_json(self.request.get("json")))
        self.used = False

    def __str__(self) -> str:
        return self.line

    def matches(self, other: _Interaction) -> bool:
        """Whether they are the same request."""
        return self.line == other.line and self.body == other.body

    def likeness(self, other: _Interaction) -> tuple[bool, float]:
        """How near they are, the same path first."""
        own, others = ("\n".join(_lines(one.body)).split() for one in (self, other))
        return self.line == other.line, difflib.SequenceMatcher(None, own, others).ratio()

    def difference(self, sent: _Interaction) -> list[str]:
        """Line by line, what would have to change in this to become the one that was sent."""
        told = [f"- {self.line}", f"+ {sent.line}"] * (self.line != sent.line)
        found = difflib.unified_diff(_lines(self.body), _lines(sent.body), "recorded", "sent", lineterm="")
        return [*told, *found]


def _essence(value: Any) -> Any:
    """JSON without what servers take as not there, and with the JSON in arguments as what it says."""
    if isinstance(value, list):
        return [_essence(item) for item in as_list(value)]
    if not isinstance(value, dict):
        return value
    held = {
        name: item for name, item in as_dict(value).items() if item is not None and (name, item) != ("stream", False)
    }
    if isinstance(held.get("arguments"), str) and parsed(held["arguments"]) is not None:
        held["arguments"] = parsed(held["arguments"])
    return {name: _essence(item) for name, item in held.items()}


def _lines(value: Any) -> list[str]:
    lines = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).splitlines()
    return [line[at : at + _WIDTH] for line in lines for at in range(0, len(line), _WIDTH)]


async def _pieces(body: bytes, size: int) -> AsyncGenerator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def _http() -> Any:
    """The library that the client speaks through: httpx before openai 3, httpx2 since."""
    import openai  # noqa: PLC0415 because it costs a second, and only who records needs it

    return import_module("httpx2" if hasattr(openai, "DefaultAsyncHttpx2Client") else "httpx")
