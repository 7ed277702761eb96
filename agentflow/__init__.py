"""agentflow: event-driven workflows that can be watched, trusted and embedded.

The way in, from declaration to events out:

- `events`, `steps`, `resource`, `retry`: what a workflow is written with.
- `compiler`, `checks`, `graph`: from the declarations to what a run trusts.
- `workflow`, `run`, `context`, `handler`, `stream`: running it.
- `checkpoint`, `draw`, `verbose`, `testing`: looking at it.
- `observe`: the one seam through which everything is seen.
"""

from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import WorkflowCheckpointer as WorkflowCheckpointer
from .context import Context as Context
from .draw import draw_all_possible_flows as draw_all_possible_flows
from .draw import draw_most_recent_execution as draw_most_recent_execution
from .errors import AgentflowError as AgentflowError
from .errors import ContextSerdeError as ContextSerdeError
from .errors import StateKeyError as StateKeyError
from .errors import WorkflowCancelledByUser as WorkflowCancelledByUser
from .errors import WorkflowConfigurationError as WorkflowConfigurationError
from .errors import WorkflowRuntimeError as WorkflowRuntimeError
from .errors import WorkflowStalledError as WorkflowStalledError
from .errors import WorkflowTimeoutError as WorkflowTimeoutError
from .errors import WorkflowValidationError as WorkflowValidationError
from .events import Event as Event
from .events import HumanResponseEvent as HumanResponseEvent
from .events import InputRequiredEvent as InputRequiredEvent
from .events import StartEvent as StartEvent
from .events import StopEvent as StopEvent
from .events import StreamGap as StreamGap
from .events import WorkflowCancelledEvent as WorkflowCancelledEvent
from .events import WorkflowFailedEvent as WorkflowFailedEvent
from .events import WorkflowTimedOutEvent as WorkflowTimedOutEvent
from .handler import Handler as Handler
from .observe import Observer as Observer
from .observe import add_observer as add_observer
from .observe import remove_observer as remove_observer
from .resource import Resource as Resource
from .retry import ConstantDelayRetryPolicy as ConstantDelayRetryPolicy
from .retry import ExponentialBackoffRetryPolicy as ExponentialBackoffRetryPolicy
from .retry import Retry as Retry
from .retry import RetryPolicy as RetryPolicy
from .sessions import session as session
from .steps import step as step
from .workflow import Workflow as Workflow

__all__ = [
    "AgentflowError",
    "Checkpoint",
    "ConstantDelayRetryPolicy",
    "Context",
    "ContextSerdeError",
    "Event",
    "ExponentialBackoffRetryPolicy",
    "Handler",
    "HumanResponseEvent",
    "InputRequiredEvent",
    "Observer",
    "Resource",
    "Retry",
    "RetryPolicy",
    "StartEvent",
    "StateKeyError",
    "StopEvent",
    "StreamGap",
    "Workflow",
    "WorkflowCancelledByUser",
    "WorkflowCancelledEvent",
    "WorkflowCheckpointer",
    "WorkflowConfigurationError",
    "WorkflowFailedEvent",
    "WorkflowRuntimeError",
    "WorkflowStalledError",
    "WorkflowTimedOutEvent",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
    "add_observer",
    "draw_all_possible_flows",
    "draw_most_recent_execution",
    "remove_observer",
    "session",
    "step",
]
