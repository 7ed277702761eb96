"""Every error that the agents raise by themselves, and the one that a tool raises on purpose.

```
AgentflowError
├── AgentConfigurationError    an agent or a tool is set up wrongly
├── DocumentsError             a folder of documents cannot be searched
└── ToolError                  raised by a tool: its text is for the model
```
"""

from __future__ import annotations

from agentflow import AgentflowError


class AgentConfigurationError(AgentflowError):
    """An agent or a tool is set up in a way that cannot work: the message has the corrected line."""


class DocumentsError(AgentflowError):
    """A folder of documents is missing, empty, or no folder."""


class ToolError(AgentflowError):
    """Raise it in a tool to tell the model, word for word, what went wrong and what to do instead.

    Of other exceptions the model is told the class and the first line.
    """
