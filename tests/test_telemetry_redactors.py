"""Secrets that can be recognised, and what redactors of the user's find, go out from nowhere."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow import StartEvent, StopEvent, Workflow, step
from agentflow.observe import add_observer
from agentflow_agents import FunctionAgent, tool
from agentflow_instrumentation import SpanObserver, tally
from agentflow_instrumentation.bridge import OtelHandler
from agentflow_instrumentation.cutting import Cutter, clean
from agentflow_instrumentation.logs import LogObserver
from agentflow_instrumentation.redactors import HIDDEN, Redactor, masked, pattern
from agentflow_llm import ScriptedModel, ToolCallPart

Spans = Callable[[], Sequence[ReadableSpan]]


def watch(*redactors: Redactor) -> Spans:
    """Make spans with all content from now on; returns those that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider, content="full", redactors=redactors))
    return exporter.get_finished_spans


def whole(spans: Sequence[ReadableSpan]) -> str:
    """All that went out."""
    return "\n".join(str(span.to_json()) for span in spans)


# what is always on

KEYS = [
    "gsk_abcdefghijklmnopqrstuvwxyz0123",
    "xai-abcdefghijklmnopqrst1234",
    "nvapi-abcdefghijklmnop-1234",
    "pplx-abcdefghijklmnop1234",
    "tvly-abcdefghijklmnop1234",
    "npm_abcdefghijklmnopqrst12345678",
    "lsv2_pt_abcdefghijklmnopqrst12345678",
    "whsec_abcdefghijklmnopqrstuvwx",
    "ASIAIOSFODNN7EXAMPLE",
    "ghs_abcdefghijklmnopqrstuvwxyz0123456789",
    "xapp-1-A0123-456789-abcdef0123456789",
    "gldt-abcdefghijklmnopqrst",
    "GOCSPX-abcdefghijklmnopqrstuvwx",
    "pypi-AgEIcHlwaS5vcmcCJDabcdefghijk",
    "dckr_pat_abcdefghijklmnopqrstuvwxyz",
    "SG.abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyz",
    "hvs.CAESIabcdefghijklmnopqrstuv",
    "ya29.a0AfH6SMBabcdefghijklmnop",
    "eyJhbGciOiJkaXIifQ..abcdefghijkl.abcdefgh.abcdef",
]
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize("secret", [*KEYS, PEM, "ann.example+x@mail.example.com", "jürgen@müller.example"])
def test_what_is_secret_by_its_form_is_masked(secret: str) -> None:
    assert masked(f"use {secret}, please") == f"use {HIDDEN}, please"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgres://ann:hunter2@db/x", f"postgres://{HIDDEN}@db/x"),
        ("https://ann:p@ss@host.example/x?a=1", f"https://{HIDDEN}@host.example/x?a=1"),
        ("https://x.example/?a=1&token=abcd&b=2", f"https://x.example/?a=1&token={HIDDEN}&b=2"),
        ("https://x.example/?key=abcd#top", f"https://x.example/?key={HIDDEN}#top"),
        ("https://b.example/o?X-Amz-Signature=0a1b2c", f"https://b.example/o?X-Amz-Signature={HIDDEN}"),
        ("https://b.example/o?sv=1&sig=a%2Fb%3D", f"https://b.example/o?sv=1&sig={HIDDEN}"),
        (r'{"arguments": "{\"password\": \"hunter2\"}"}', rf'{{"arguments": "{{\"password\": \"{HIDDEN}\"}}"}}'),
        (r'{"password": "a \"b\" c", "n": 1}', f'{{"password": "{HIDDEN}", "n": 1}}'),
        ('password = "correct horse, battery" # x', f'password = "{HIDDEN}" # x'),
        ("MY_SERVICE_TOKEN=abcdefghijklmnop1", f"MY_SERVICE_TOKEN={HIDDEN}"),
        ("authorization': 'bearer abcdefghijkl'", f"authorization': 'bearer {HIDDEN}'"),
        ("Bearer abcdefgh1234", f"Bearer {HIDDEN}"),
        ("Authorization: Basic YW5uOmh1bnRlcjI=", f"Authorization: Basic {HIDDEN}"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", HIDDEN),
        ("sk-proj-\u200babcdefghij\u2060klmnop", HIDDEN),
        ("card 4111 1111 1111 1111.", f"card {HIDDEN}."),
        ("card 378282246310005", f"card {HIDDEN}"),
        ("card 3530111333300000", f"card {HIDDEN}"),
        ("Authorization: Token abcdefgh1234\nAccept: x", f"Authorization: {HIDDEN}\nAccept: x"),
        ('{"Authorization": "ApiKey abcdefgh1234", "n": 1}', f'{{"Authorization": "{HIDDEN}", "n": 1}}'),
        ('Authorization: Digest username="ann", response="6629fae4"\nx', f"Authorization: {HIDDEN}\nx"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=a/b, Signature=fe5f80", f"Authorization: {HIDDEN}"),
        ("set-cookie: sid=abcdef123456; Path=/", f"set-cookie: {HIDDEN}"),
        ('{"Cookie": "a=1; sid=abcdef123456", "n": 1}', f'{{"Cookie": "{HIDDEN}", "n": 1}}'),
        ("SECRET_KEY = 'django-insecure-abc'", f"SECRET_KEY = '{HIDDEN}'"),
        ("AccountName=x;AccountKey=abcdEFGH1234+/==;E=f", f"AccountName=x;AccountKey={HIDDEN};E=f"),
        ("API key: abcd1234efgh", f"API key: {HIDDEN}"),
        ("Uid=u;Pwd=hunter2;", f"Uid=u;Pwd={HIDDEN};"),
        ("password = b'hunter2'", f"password = '{HIDDEN}'"),
        ("tool --db-password hunter2 --x 1", f"tool --db-password {HIDDEN} --x 1"),
        ("tool --token abcdefgh1234", f"tool --token {HIDDEN}"),
        ("https://hooks.slack.com/services/T0/B0/XXXX", f"https://hooks.slack.com/{HIDDEN}"),
        ("https://discord.com/api/webhooks/12/ab-c", f"https://discord.com/api/webhooks/{HIDDEN}"),
        ("sr=x&sig=abcdefgh%3D&se=1", f"sr=x&sig={HIDDEN}&se=1"),
    ],
)
def test_what_is_secret_by_what_stands_around_it_is_masked(text: str, told: str) -> None:
    assert masked(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "npm install react@18.2.0 @types/node@20.1.0 lodash@4.17.21 next@1.0.0-beta.rc",
        '@app.route("/x")\n@functools.cache\ndef f(): ...',
        "y = a @ b.T + W@self.weight",
        "git clone git@github.com:example/example.git",
        "550e8400-e29b-41d4-a716-446655440000",
        "order 1234567812345678 of 2026-11-21T10:11:12.123456",
        "4111 1111 1111 1112 is no number of a card",
        "max_tokens=100 tokens: 812, pad_token: <pad>",
        "https://x.example/search?q=cats&page=2",
        "the secretary: Ann; the risk-management-department; basic things; a bearer of news",
        "a basic understanding of Bearer instruments and Basic Understanding",
        "| --- | --- |\n--- a/tokens.py\n+++ b/tokens.py\n--token=<token> --password -p, --secret",
        "Cookie: two eggs, sugar. pypi-publish, the key to it is: patience; primary key: id; hvs. SG.",
        "sorted(names, key=lambda name: name.casefold())",
        "my_function_with_a_long_name(keyboard=1)",
        "👩\u200d👩\u200d👧 and a\u200cb",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert masked(text) == text


@given(
    before=st.integers(0, 200),
    secret=st.sampled_from([*KEYS, PEM, "ann.example@mail.example.com", "postgres://ann:hunter2hunter2@db/x"]),
    fill=st.sampled_from(["x ", "password=hunter2 ", "é ", "4111111111111111 "]),
    limit=st.integers(8, 1500),
)
def test_no_cut_shows_a_part_of_a_secret(before: int, secret: str, fill: str, limit: int) -> None:
    text = fill * before + secret + fill * 3000
    core = "hunter2hunter2" if "://" in secret else secret
    for told in (clean(text, limit), Cutter().clean_end(text, limit)):
        assert len(told.encode()) <= limit
        for start in range(0, len(core) - 8, 8):
            assert core[start : start + 9] not in told


ENDLESS = [
    *("a", "-", "_", "@", ":", "=", "?", " ", "4", "A", '"', "\\", "eyJ"),
    *(
        "sk-",
        "-----BEGIN PRIVATE KEY-----",
        "://",
        "://a:",
        "a@",
        "@a.",
        "a.",
        "@a.a",
        "password",
        "password=",
        'password="',
    ),
    *(
        "password" + " " * 20,
        "token:\\",
        "bearer ",
        "&key=",
        "eyJa.",
        "4111 ",
        "411111111111111",
        "A\u200b",
        "gh",
        "ghp_",
    ),
    *("--", "--a-", "--token ", "cookie:", "cookie: a=", "SG.aaaaaaaaaaaaaaaaa.", "password: digest ", 'password: b"'),
    *('password=\\"', "secret: '", "basic  ", "xox", "_aaaaaaaaaaaaaaaa", "key" * 3 + "="),
]


@pytest.mark.parametrize("unit", ENDLESS)
def test_no_text_takes_long(unit: str) -> None:
    text = (unit * (100_000 // len(unit) + 1))[:100_000]
    begun = time.process_time()
    masked(text)
    assert time.process_time() - begun < 1.0  # it takes a hundredth of that; what backtracks takes minutes


# redactors of the user's own


async def talk(name: str = "Zaphod") -> None:
    """An agent and a workflow that say a name wherever a name can be said."""

    @tool
    async def look(name: str, more: dict[str, Any]) -> dict[str, Any]:
        """Look for someone."""
        return {"found": name, "more": more}

    @tool
    async def fail(name: str) -> str:
        """Fail."""
        raise ValueError(f"no {name}")

    arguments = json.dumps({"name": name, "more": {"deep": [name], name: 1}})
    calls = [
        ToolCallPart(id="1", name="look", arguments=arguments),
        ToolCallPart(id="2", name="fail", arguments=json.dumps({"name": name})),
        ToolCallPart(id="3", name="look", arguments=f"no JSON: {name}"),
        ToolCallPart(id="4", name=name, arguments="{}"),
    ]
    await FunctionAgent([look, fail], ScriptedModel([calls, f"It is {name}."])).run(f"Who is {name}?")

    class Failing(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            raise RuntimeError(f"with {ev.who}") from LookupError(f"about {name}")

    with pytest.raises(RuntimeError):
        await Failing().run(start_event=StartEvent(who=name, **{f"key {name}": [name]}))


async def test_a_redactor_finds_what_it_looks_for_wherever_it_stands() -> None:
    spans = watch(pattern("Zaphod", "<name>"))
    await talk()
    assert "<name>" in whole(spans())
    assert "Zaphod" not in whole(spans())


async def test_a_redactor_is_told_where_a_text_stands() -> None:
    places: set[str] = set()

    def note(text: str, where: str) -> str:
        places.add(where)
        return text

    spans = watch(note)
    await talk()
    assert {
        "input.value.who",
        "gen_ai.input.messages.parts.content",
        "gen_ai.input.messages.parts.response",
        "gen_ai.output.messages.parts.arguments.more.deep",
        "gen_ai.tool.call.arguments.name",
        "gen_ai.tool.call.result",
        "gen_ai.tool.definitions.description",
        "exception.message",
        "exception.stacktrace",
    } <= places
    assert "Zaphod" in whole(spans())


class Kept:
    """A processor of log records that keeps all that goes out."""

    def __init__(self) -> None:
        self.told = ""

    def on_emit(self, log_record: Any) -> None:
        one = log_record.log_record
        self.told += f"{one.body} {dict(one.attributes or {})}\n"

    def shutdown(self) -> None:
        """Nothing to do."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return timeout_millis >= 0


async def test_log_records_are_redacted_as_spans_are() -> None:
    kept = Kept()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(kept)  # type: ignore[arg-type]  # because it has all that is asked of it
    names = pattern("Zaphod", "<name>")
    add_observer(LogObserver(provider, content="full", redactors=[names]))
    handler = OtelHandler(provider, redactors=[names])
    record = logging.LogRecord("mine", logging.INFO, __file__, 1, "Zaphod sk-proj-abcdefghijkl", (), None)
    record.who = {"name": "Zaphod"}
    handler.emit(record)
    await talk()
    assert "<name> **********" in kept.told
    assert "with <name>" in kept.told
    assert "Zaphod" not in kept.told


async def test_redactors_come_one_after_the_other_and_the_built_in_ones_have_the_last_word() -> None:
    spans = watch(pattern("Zaphod", "Beeblebrox"), pattern("Beeblebrox", "ann@mail.example.com"))
    await talk()
    told = whole(spans())
    assert "Zaphod" not in told
    assert "Beeblebrox" not in told
    assert "@mail" not in told


def broken(text: str, where: str) -> str:
    raise LookupError(text + where)


def silent(text: str, where: str) -> Any:
    return None if text and where else ""


@pytest.mark.parametrize(("redactor", "error"), [(broken, "LookupError"), (silent, "TypeError")])
async def test_where_a_redactor_fails_the_text_does_not_go_out_and_the_run_goes_on(
    redactor: Redactor, error: str
) -> None:
    before = tally.CONTENT.read().get(("redaction_error",), 0)
    spans = watch(redactor)
    await talk()
    told = whole(spans())
    assert "Zaphod" not in told
    assert "[dropped]" in told
    (chat, *_) = [span for span in spans() if span.name.startswith("chat")]
    assert (chat.attributes or {})["agentflow.content.redaction_error"] == error
    assert tally.CONTENT.read()[("redaction_error",)] > before
    json.loads(str((chat.attributes or {})["gen_ai.input.messages"]))


@pytest.mark.parametrize("wrong", [lambda text: text, "secret", None, 3])
def test_what_is_no_redactor_is_named(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a redactor takes a text and where it stands"):
        SpanObserver(redactors=[wrong])


def test_one_redactor_is_no_list_of_them() -> None:
    with pytest.raises(TypeError, match=r"Write redactors=\[...\]"):
        SpanObserver(redactors=broken)  # type: ignore[arg-type]  # because that is what is tested


def test_a_redactor_that_would_have_to_be_awaited_is_refused() -> None:
    async def redact(text: str, where: str) -> str:
        return text

    with pytest.raises(TypeError, match=r"can't be async. Write: def redact\(text, where\)"):
        SpanObserver(redactors=[redact])  # type: ignore[list-item]  # because that is the mistake
