"""Every error that the agents raise by themselves, and the one that a tool raises on purpose.

```
AgentflowError
├── AgentConfigurationError    an agent or a tool is set up wrongly
├── BudgetExceededError        a limit was reached, where an error was asked for
├── DocumentsError             a folder of documents cannot be searched
├── ToolError                  raised by a tool: its text is for the model
└── UnreadableReplyError       what a model said cannot be read: it is told so
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow import AgentflowError

if TYPE_CHECKING:
    from agentflow_llm import Reply


class AgentConfigurationError(AgentflowError):
    """An agent or a tool is set up in a way that cannot work: the message has the corrected line."""


class BudgetExceededError(AgentflowError):
    """A limit of `Budget(..., raises=True)` was reached. `result` is the `AgentResult` that there is so far."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class DocumentsError(AgentflowError):
    """A folder of documents is missing, empty, or no folder."""


class ToolError(AgentflowError):
    """Raise it in a tool to tell the model, word for word, what went wrong and what to do instead.

    Of other exceptions the model is told the class and the first line.
    """

    says_all = True
    """No trace needs its stack."""


class UnreadableReplyError(AgentflowError):
    """What the model said is not in the form that was asked for. The text tells the model what to write instead."""

    def __init__(self, message: str, reply: Reply) -> None:
        super().__init__(message)
        self.reply = reply
