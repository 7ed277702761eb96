"""A memory that keeps a summary of what no longer fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .digesting import DigestingMemory, shortened
from .errors import LLMResponseError
from .memory import MemoryInputError
from .messages import ChatMessage
from .prompt import check_model, check_prompt, filled
from .window import Window, window_back

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .model import ChatModel
    from .tokens import TokenCounter
    from .transcript import Digest, View

SUMMARISE = """\
Below are a summary of the beginning of a conversation, and what was said next. Write one summary of both, for \
somebody who will go on with the conversation and can read nothing else of it.

Keep what was asked for and decided, names, numbers, what tools found, and what is still open. Leave out greetings and \
repetitions. Write at most {words} words, in the language of the conversation, and nothing but the summary.

<summary>
{summary}
</summary>

<conversation>
{messages}
</conversation>"""
"""What the model is asked. A prompt of one's own has the same names in braces; `{words}` may be left out."""

INTRODUCTION = "This is a summary of our conversation so far:\n\n"

_SHARE = 4
"""The part of the limit that a summary is to take: a fourth."""
_FEWEST_WORDS = 30
_SUMMARY = "summary"


class SummaryMemory(DigestingMemory):
    """A conversation, kept whole, of which models are sent a summary of the old part and the newest part as it is.

    - `llm`: writes the summary, with `prompt`, by extending the one that it wrote before. See `SUMMARISE`.
    - `token_limit`: of what `aget` gives, summary included.
    - The others are those of `ChatMemory`.

    The summary stands behind the messages of the system, as a message of the user: some servers refuse a second
    message of the system, or one that is not the first. It is written within `aput`, when what is not in it no longer
    fits, and takes up the older half of that; so it is written again only when as much has been said anew. Where the
    model fails, nothing is lost, and the next `aput` tries again. Raises `MemoryInputError`, `StorageError`.
    """

    verb = "summarise"

    def __init__(  # noqa: PLR0913 because all but the model have names
        self,
        llm: ChatModel,
        messages: Iterable[ChatMessage] = (),
        *,
        session: str = "default",
        token_limit: int,
        counter: TokenCounter | None = None,
        file: str | Path | None = None,
        prompt: str = SUMMARISE,
    ) -> None:
        check_model("SummaryMemory", llm, MemoryInputError)
        check_prompt("SummaryMemory", prompt, ("summary", "messages"), MemoryInputError)
        super().__init__(messages, session=session, token_limit=token_limit, counter=counter, file=file)
        if self.token_limit is None:
            raise MemoryInputError("SummaryMemory(token_limit=None): nothing would ever be summarised. Use ChatMemory.")
        self.llm = llm
        self.prompt = prompt

    def prompts(self) -> dict[str, str]:
        """Every text of its own that a model is sent."""
        return {"summarise": self.prompt, "introduction": INTRODUCTION}

    async def digest(self, before: str, messages: list[ChatMessage]) -> str:
        """The summary `before`, extended by messages. Raises `LLMError`."""
        values = {
            "summary": before or "(nothing yet)",
            "messages": self.written(messages),
            "words": str(max(_FEWEST_WORDS, (self.token_limit or 0) // _SHARE // 2)),
        }
        text = filled(self.prompt, values)
        reply = await self.llm.chat([ChatMessage(role="user", content=text)])
        summary = reply.text.strip()
        if not summary:
            raise LLMResponseError(f"{self.llm.model!r} wrote no summary: {reply.message!r}.")
        tokens = self.counter.count([ChatMessage(role="user", content=summary, id=_SUMMARY)])
        return shortened(summary, tokens, (self.token_limit or 0) // 2)

    def reserved(self, digest: Digest) -> int:
        """What the summary takes."""
        return self.counter.count(self._summary(digest))

    def _window(self, view: View) -> tuple[Window, int]:
        digest = view.digest(self.verb)
        summary = self._summary(digest)
        limit, reserved = self.token_limit or 0, self.counter.count(summary)
        found = window_back(view.newest_first(digest.upto), view.systems(), limit - reserved, self.counter)
        tokens = found.tokens + reserved
        left_out = view.length - digest.upto - found.reach
        return Window([*found.front, *summary], found.rest, found.reach, tokens, tokens > limit), left_out

    def _summary(self, digest: Digest) -> list[ChatMessage]:
        if not digest.text:
            return []
        # the same as long as it says the same
        ident = f"{_SUMMARY}_{digest.upto}_{self.session}"
        return [ChatMessage(role="user", content=INTRODUCTION + digest.text, id=ident)]
