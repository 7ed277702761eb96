"""Runs are traced as soon as a tracer provider is set up, by whomever; before that, nothing is even imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from agentflow_instrumentation import discovery

WORKFLOW = """
import asyncio, json, sys
from agentflow import *

class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=1)

def run():
    return Chain().run_sync()

def sdk(**options):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter = InMemorySpanExporter()
    provider = TracerProvider(**options)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.names = lambda: sorted(span.name for span in exporter.get_finished_spans())
    return provider

def say(what):
    print(json.dumps(what))
"""
SPANS = ["event StartEvent", "invoke_workflow Chain", "step one"]


def program(code: str, **environ: str) -> Any:
    """Run a program that says one thing, where nothing is set but this."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_"))}
    command = [sys.executable, "-W", "error", "-c", WORKFLOW + dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean | environ, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def test_where_nobody_set_anything_up_nothing_of_opentelemetry_is_imported() -> None:
    told = program("""
        run()
        say([name for name in sys.modules if name.startswith(("opentelemetry", "agentflow_instrumentation"))])
    """)
    light = ["agentflow_instrumentation", "agentflow_instrumentation.discovery", "agentflow_instrumentation.identity"]
    assert sorted(told) == light


def test_where_the_api_alone_is_imported_nothing_more_is() -> None:
    told = program("""
        from opentelemetry import trace
        before = set(sys.modules)
        run()
        with trace.get_tracer("t").start_as_current_span("mine"):
            run()
        say([name for name in set(sys.modules) - before if name.startswith("opentelemetry")])
    """)
    assert told == []


def test_a_provider_that_the_host_has_set_is_used() -> None:
    told = program("""
        from opentelemetry import trace
        provider = sdk()
        trace.set_tracer_provider(provider)
        run()
        say(provider.names())
    """)
    assert told == SPANS


def test_a_provider_may_be_set_after_the_first_run() -> None:
    told = program("""
        from opentelemetry import trace
        run()
        provider = sdk()
        trace.set_tracer_provider(provider)
        run()
        say(provider.names())
    """)
    assert told == SPANS


def test_a_provider_that_replaces_another_is_used_from_then_on() -> None:
    told = program("""
        from opentelemetry import trace
        first, second = sdk(), sdk()
        for trace._TRACER_PROVIDER in (first, second, None, second):
            run()
        say([first.names(), second.names()])
    """)
    assert told == [SPANS, sorted(SPANS * 2)]


def test_a_provider_that_is_no_class_of_the_sdk_is_used_too() -> None:
    told = program("""
        from opentelemetry import trace
        inner = sdk()

        class Vendors(trace.TracerProvider):
            def get_tracer(self, *args, **more):
                return inner.get_tracer(*args, **more)

        trace.set_tracer_provider(Vendors())
        run()
        say(inner.names())
    """)
    assert told == SPANS


def test_a_provider_that_does_nothing_is_none() -> None:
    told = program("""
        from opentelemetry import trace
        trace.set_tracer_provider(trace.NoOpTracerProvider())
        from agentflow_instrumentation.discovery import observers
        run()
        say(observers())
    """)
    assert told is None


@pytest.mark.parametrize(
    "environ",
    [
        {"AGENTFLOW_TELEMETRY": "off"},
        {"OTEL_SDK_DISABLED": "true"},
        {"AGENTFLOW_TELEMETRY": "OFF "},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask, agentflow"},
    ],
)
def test_the_environment_turns_it_off(environ: dict[str, str]) -> None:
    told = program(
        """
        from opentelemetry import trace
        from agentflow_instrumentation import setup
        provider = sdk()
        trace.set_tracer_provider(provider)
        run()
        with setup("console") as telemetry:
            run()
        say([provider.names(), telemetry.tracer_provider, telemetry.flush()])
    """,
        **environ,
    )
    assert told == [[], None, []]


def test_a_provider_that_a_variable_names_is_loaded() -> None:
    told = program(
        """
        run()
        from opentelemetry import trace
        say(type(trace.get_tracer_provider()).__module__)
    """,
        OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider",
    )
    assert told == "opentelemetry.sdk.trace"


def test_a_run_that_still_waits_when_the_program_ends_is_a_span() -> None:
    told = program("""
        import atexit
        from opentelemetry import trace
        provider = sdk(shutdown_on_exit=False)
        atexit.register(lambda: say(provider.names()))
        trace.set_tracer_provider(provider)

        class Asks(Workflow):
            @step
            async def ask(self, ev: StartEvent) -> InputRequiredEvent:
                return InputRequiredEvent()

            @step
            async def end(self, ev: HumanResponseEvent) -> StopEvent:
                return StopEvent()

        async def main():
            global handler
            handler = Asks().run()
            await asyncio.sleep(0.01)

        asyncio.run(main())
    """)
    assert told == ["event InputRequiredEvent", "event StartEvent", "invoke_workflow Asks", "step ask"]


def test_the_package_is_light_and_its_names_are_there_when_asked_for() -> None:
    told = program("""
        import agentflow_instrumentation as package
        light = sorted(name for name in sys.modules if name.startswith("opentelemetry"))
        names = [getattr(package, name).__name__ for name in package.__all__]
        assert set(package.__all__) <= set(dir(package))
        try:
            package.nothing
        except AttributeError as error:
            say([light, names, str(error)])
    """)
    classes = ["ConsoleExporter", "FileExporter", "LogObserver", "MetricObserver", "OtelHandler", "SpanObserver"]
    classes += ["Telemetry", "TraceContextFilter"]
    functions = ["add_trace_context", "configure_logging", "continued", "extract", "inject", "pattern", "setup"]
    names = classes + functions
    assert told == [[], names, "module 'agentflow_instrumentation' has no attribute 'nothing'"]


def test_a_module_that_another_thread_is_importing_just_now_costs_no_run_its_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "agentflow_instrumentation.fields"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert discovery.observers() is None
