"""The one logger of the project: structlog over the standard library's logger "agentflow".

It configures nothing: level, handlers and format belong to the application. Key-value pairs arrive
there as `extra` fields of the log record. structlog is imported at the first line that is logged.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger


@cache
def logger() -> BoundLogger:
    """The project's logger."""
    import structlog  # noqa: PLC0415 because it costs more than the engine, and most processes never log

    bound: BoundLogger = structlog.wrap_logger(
        logging.getLogger("agentflow"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return bound
