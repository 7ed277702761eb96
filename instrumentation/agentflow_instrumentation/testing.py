"""For tests: what a trace has to have, and a receiver of OTLP in this process.

```python
with recorded_trace() as trace:
    await workflow.run()
trace.has("step", name="greet", outcome="ok")

with OtlpReceiver() as receiver, setup("otlp", endpoint=receiver.http_endpoint):
    await workflow.run()
    receiver.wait_for(3)
assert_trace(receiver).has("step", name="greet")
```
"""

from .assertions import Trace, assert_trace, recorded_trace
from .conventions import check, check_trace
from .received import EventRecord, Exemplar, LinkRecord, LogRecord, MetricPoint, SpanRecord, record_of
from .receiver import OtlpReceiver

__all__ = [
    "EventRecord",
    "Exemplar",
    "LinkRecord",
    "LogRecord",
    "MetricPoint",
    "OtlpReceiver",
    "SpanRecord",
    "Trace",
    "assert_trace",
    "check",
    "check_trace",
    "record_of",
    "recorded_trace",
]
