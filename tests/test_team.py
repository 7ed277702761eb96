"""Teams: who hands over to whom, what each of them sees, and what a run spends, asks, remembers and leaves behind."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from agentflow import Context, Handler, WorkflowCancelledByUser
from agentflow.observe import add_observer
from agentflow.testing import record
from agentflow_agents import (
    Agent,
    AgentConfigurationError,
    AgentResult,
    Approval,
    ApprovalRequired,
    Budget,
    BudgetExceededError,
    FunctionAgent,
    TextDelta,
    ToolCall,
    tool,
)
from agentflow_agents.conversation import repaired
from agentflow_agents.rag_agent import RAGAgent
from agentflow_agents.rag_events import RAGResult
from agentflow_agents.react_agent import ReActAgent
from agentflow_agents.team import Team
from agentflow_instrumentation import SpanObserver
from agentflow_llm import ChatMemory, ChatMessage, Document, OfflineModel, ScriptedModel, ToolCallPart
from agentflow_llm.wire import render_messages
from test_integrity import check_messages


def call(call_id: str, name: str, **arguments: Any) -> ToolCallPart:
    return ToolCallPart(id=call_id, name=name, arguments=json.dumps(arguments))


def look() -> str:
    """Look around."""
    return "seen"


def over(to: str, message: str = "Please help.", call_id: str = "c1") -> ToolCallPart:
    return call(call_id, f"hand_over_to_{to}", message=message)


def agent(name: str, turns: Sequence[Any] | ScriptedModel, tools: Iterable[object] = (), **options: Any) -> Any:
    model = turns if isinstance(turns, ScriptedModel) else ScriptedModel(turns)
    return FunctionAgent(tools, model, name=name, description=f"For {name}.", system_prompt=name, **options)


def texts(messages: Iterable[ChatMessage]) -> list[str]:
    return [message.text or repr(message) for message in messages]


def offered(model: ScriptedModel, number: int = 0) -> list[str]:
    return [definition.name for definition in model.calls[number].tools]


FROM_TRIAGE = "Invoice 7 is wrong.\n\n(The conversation was handed over to you by triage.)"


# handing over


async def test_the_agent_that_is_handed_over_to_answers() -> None:
    triage, billing = ScriptedModel([over("billing", "Invoice 7 is wrong.")]), ScriptedModel(["It is corrected."])
    with triage, billing:
        result = await Team([agent("triage", triage), agent("billing", billing)]).run("My invoice is wrong.")
    assert (str(result), result.output, result.stopped_by, result.handoff) == (
        *["It is corrected."] * 2,
        "answer",
        None,
    )
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "user", "assistant"]
    assert result.messages[3].text == FROM_TRIAGE
    check_messages(render_messages(result.messages))
    assert (offered(triage), offered(billing)) == (["hand_over_to_billing"], ["hand_over_to_triage"])
    assert triage.calls[0].tools[0].description == "Hand the conversation over to billing: For billing."


async def test_a_team_runs_in_plain_code_and_step_by_step() -> None:
    team = Team([agent("triage", [over("billing")] * 2), agent("billing", ["Done."] * 2)])
    assert str(await asyncio.to_thread(team.run_sync, "x")) == "Done."
    handler = team.run("x", stepwise=True)
    while produced := await handler.run_step():
        for event in produced:
            handler.ctx.send_event(event)
    assert str(await handler) == "Done."


async def test_the_conversation_may_come_back() -> None:
    triage = ScriptedModel([over("billing"), "All is well."])
    team = Team([agent("triage", triage), agent("billing", [over("triage", "It is paid.")])])
    result = await team.run("x")
    assert (str(result), len(result.messages)) == ("All is well.", 8)
    check_messages(render_messages(triage.calls[1].messages))


async def test_who_may_hand_over_to_whom_can_be_said() -> None:
    models = [ScriptedModel([over("b")]), ScriptedModel([over("c")]), ScriptedModel(["c"])]
    agents = [agent(name, model) for name, model in zip("abc", models, strict=True)]
    assert str(await Team(agents, handoffs={"a": ["b"], "b": ["a", "c"]}).run("x")) == "c"
    assert [offered(model) for model in models] == [["hand_over_to_b"], ["hand_over_to_a", "hand_over_to_c"], []]


async def test_somebody_else_may_be_the_first() -> None:
    one, second = agent("one", []), agent("second", ["Here."] * 2)
    assert str(await Team([one, second], "second").run("x")) == "Here."
    assert str(await Team([one, second], second).run("x")) == "Here."


async def test_a_team_of_one_hands_over_to_nobody() -> None:
    model = ScriptedModel(["Alone."])
    assert str(await Team([FunctionAgent(llm=model)]).run("x")) == "Alone."
    assert offered(model) == []


class City(BaseModel):
    name: str


async def test_the_output_is_the_last_agents() -> None:
    triage = agent("triage", [over("billing")], output=City)
    result = await Team([triage, agent("billing", ["Graz."])]).run("x")
    assert result.output == "Graz."
    billing = agent("billing", [City(name="Graz")], output=City)
    result = await Team([agent("triage", [over("billing")]), billing]).run("x")
    assert result.output == City(name="Graz")


async def test_a_react_agent_hands_over_and_is_handed_over_to() -> None:
    asks = 'Thought: Not mine.\nAction: hand_over_to_billing\nAction Input: {"message": "Invoice 7 is wrong."}'
    triage = ReActAgent(llm=ScriptedModel([asks]), name="triage", description="x")
    billing = ReActAgent(llm=ScriptedModel(["Thought: Mine.\nAnswer: Done."]), name="billing", description="x")
    result = await Team([triage, billing]).run("x")
    assert str(result) == "Done."
    assert result.messages[3].text == FROM_TRIAGE
    check_messages(render_messages(result.messages))


async def test_an_agent_for_documents_is_handed_over_to_and_its_result_is_whole() -> None:
    documents = RAGAgent(
        [Document(id="cats.md", text="A cat sleeps sixteen hours a day.")],
        OfflineModel(),
        name="library",
        description="Knows the documents.",
    )
    triage = agent("triage", [over("library", "How many hours does a cat sleep?")])
    result = await Team([triage, documents], handoffs={"triage": ["library"]}, shared=False).run("cats?")
    assert isinstance(result, RAGResult)
    assert (result.found, "sixteen hours" in str(result), len(result.citations)) == (True, True, 1)
    check_messages(render_messages(result.messages))


# what each of them sees


async def test_agents_share_the_conversation() -> None:
    billing = ScriptedModel(["Done."])
    await Team([agent("triage", [over("billing", "Invoice 7 is wrong.")]), agent("billing", billing)]).run("Help!")
    sent = billing.calls[0].messages
    assert texts(sent)[:2] == ["billing", "Help!"]
    assert [message.role for message in sent] == ["system", "user", "assistant", "tool", "user"]
    assert sent[-1].text == FROM_TRIAGE


async def test_private_agents_see_only_what_they_were_told_and_said() -> None:
    triage = ScriptedModel([over("billing", "Invoice 7 is wrong."), "Bye."])
    billing = ScriptedModel([over("triage", "It is corrected.")])
    result = await Team([agent("triage", triage), agent("billing", billing)], shared=False).run("Help!")
    assert texts(billing.calls[0].messages) == ["billing", FROM_TRIAGE]
    second = triage.calls[1].messages
    assert [message.role for message in second] == ["system", "user", "assistant", "tool", "user"]
    assert (second[1].text, second[-1].text[:16]) == ("Help!", "It is corrected.")
    assert len(result.messages) == 8
    check_messages(render_messages(result.messages))


async def test_private_agents_have_their_own_memories() -> None:
    billing = ScriptedModel([over("triage"), "Again? Done."])
    memory = ChatMemory()
    members = [agent("triage", [over("billing", "One."), "Bye.", over("billing", "Two.")])]
    members.append(agent("billing", billing, memory=memory))
    team = Team(members, shared=False)
    await team.run("x")
    await team.run("y")
    assert [text.split("\n")[0] for text in texts(billing.calls[1].messages)][1::3] == ["One.", "Two."]
    assert [message.role for message in await memory.aget()] == ["user", "assistant", "tool", "user", "assistant"]


async def test_the_teams_memory_is_given_the_whole_conversation_and_the_next_run_goes_on_from_it() -> None:
    triage, memory = ScriptedModel([over("billing"), "Bye."]), ChatMemory()
    team = Team([agent("triage", triage), agent("billing", ["Done."])], memory=memory)
    first = await team.run("x")
    second = await team.run("y")
    assert await memory.aget() == [*first.messages, *second.messages]
    assert texts(triage.calls[1].messages)[-2:] == ["Done.", "y"]
    assert texts(second.messages) == ["y", "Bye."]


async def test_the_conversation_of_a_run_goes_on_with_its_context() -> None:
    triage = ScriptedModel([over("billing"), "Bye."])
    team = Team([agent("triage", triage), agent("billing", ["Done."])])
    handler = team.run("x")
    await handler
    assert texts((await team.run("y", ctx=handler.ctx)).messages) == ["y", "Bye."]
    assert texts(triage.calls[1].messages)[-2:] == ["Done.", "y"]


async def test_a_history_may_be_given() -> None:
    model = ScriptedModel(["Bye."])
    earlier = [ChatMessage(role="user", content="a"), ChatMessage(role="assistant", content="b")]
    result = await Team([agent("triage", model)], memory=ChatMemory()).run("y", history=earlier)
    assert texts(model.calls[0].messages) == ["triage", "a", "b", "y"]
    assert texts(result.messages) == ["y", "Bye."]


# limits


async def test_hops_are_bounded() -> None:
    team = Team([agent("a", [over("b")] * 2), agent("b", [["To a.", over("a", "Yours.")]])], hops=2)
    result = await team.run("x")
    assert (result.stopped_by, len(result.messages)) == ("hops", 9)
    assert result.handoff is not None
    assert (result.handoff.to, str(result)) == ("b", "")
    told = [(part.outcome, part.content) for message in result.messages for part in message.tool_results]
    assert told == [
        ("ok", "The conversation was handed over to b."),
        ("ok", "The conversation was handed over to a."),
        ("skipped", "The conversation was not handed over to b: the limit of hops was reached."),
    ]
    check_messages(render_messages(result.messages))


async def test_a_stored_run_of_a_team_that_lacks_a_member_says_so() -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        return "paid"

    team = Team([agent("a", [call("c1", "pay")], [pay]), agent("b", [])])
    handler = team.run("x")
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            break
    stored = handler.ctx.to_json()
    await handler.cancel_run()
    other = Team([agent("b", []), agent("c", [])])
    handler = other.run(ctx=Context.from_json(other, stored))
    [question] = other.approvals(handler.ctx)
    handler.ctx.send_event(question.approve())
    with pytest.raises(AgentConfigurationError, match="it is 'a''s turn in this stored run, and 'Team' has no such"):
        await handler


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(AgentConfigurationError, match=r"Team has no option 'hop'\. Did you mean hops=...\?"):
        Team([agent("a", []), agent("b", [])], hop=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] because it is refused


async def test_no_hop_at_all_is_a_bound_too() -> None:
    result = await Team([agent("a", [["I cannot.", over("b")]]), agent("b", [])], hops=0).run("x")
    assert (result.stopped_by, str(result)) == ("hops", "I cannot.")


async def test_all_spend_from_one_budget() -> None:
    busy = ScriptedModel([call(f"d{n}", "look") for n in range(9)])
    members = [agent("a", [call("c0", "look"), over("b")], [look]), agent("b", busy, [look])]
    result = await Team(members, budget=Budget(turns=4)).run("x")
    assert (result.stopped_by, len(busy.calls)) == ("turns", 2)
    check_messages(render_messages(result.messages))
    assert [part.outcome for m in result.messages for part in m.tool_results] == ["ok", "ok", "ok", "skipped"]


@pytest.mark.parametrize("whose", ["team", "agent"])
async def test_a_limit_raises_where_that_was_asked_for_with_all_that_was_said(whose: str) -> None:
    raising = Budget(turns=1, raises=True)
    options: dict[str, Any] = {"budget": raising} if whose == "agent" else {}
    members = [agent("a", [over("b")]), agent("b", [call("d", "look")], [look], **options)]
    budget = Budget(turns=2, raises=True) if whose == "team" else None
    with pytest.raises(BudgetExceededError) as caught:
        await Team(members, budget=budget).run("x")
    result = caught.value.result
    assert isinstance(result, AgentResult)
    assert (result.stopped_by, [message.role for message in result.messages]) == (
        "turns",
        ["user", "assistant", "tool", "user", "assistant", "tool"],
    )


# one trace, one stream, one cancellation


async def test_everything_is_in_one_trace() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider))
    await Team([agent("triage", [over("billing")]), agent("billing", ["Done."])], name="desk").run("x")
    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    by_id = {span.context.span_id: span.name for span in spans if span.context is not None}
    assert len({span.context.trace_id for span in spans if span.context is not None}) == 1
    assert [
        (span.name, span.parent and by_id[span.parent.span_id]) for span in spans if "invoke_agent" in span.name
    ] == [
        ("invoke_agent desk", None),
        ("invoke_agent triage", "step speak"),
        ("invoke_agent billing", "step speak"),
    ]


async def test_what_the_agents_say_is_on_the_teams_stream() -> None:
    handler = Team([agent("triage", [over("billing")]), agent("billing", ["Well done."])]).run("x")
    shown = [event async for event in handler.stream_events()]
    assert [(event.agent, event.name) for event in shown if isinstance(event, ToolCall)] == [
        ("triage", "hand_over_to_billing")
    ]
    said = [(event.agent, event.text) for event in shown if isinstance(event, TextDelta)]
    assert len(said) > 1
    assert "".join(text for _, text in said) == "Well done."


async def test_cancelling_a_team_ends_all_of_it() -> None:
    began = asyncio.Event()

    async def hang() -> None:
        """Hang."""
        began.set()
        await asyncio.Event().wait()

    before, memory = asyncio.all_tasks(), ChatMemory()
    team = Team([agent("a", [over("b"), "Bye."]), agent("b", [call("d", "hang")], [hang])], memory=memory)
    with record() as seen:
        handler = team.run("x")
        await began.wait()
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler
    assert asyncio.all_tasks() == before
    assert ([op.outcome for op in seen.find("run")], seen.open()) == (["cancelled", "ok", "cancelled"], [])
    assert [message.role for message in await memory.aget()] == ["user", "assistant", "tool"]
    result = await team.run("again")
    check_messages(render_messages(await memory.aget()))
    assert str(result) == "Bye."


async def test_an_agent_that_fails_ends_the_run_with_its_error() -> None:
    with pytest.raises(ValueError, match="no luck"):
        await Team([agent("a", [over("b")]), agent("b", [ValueError("no luck")])]).run("x")


# what they ask a person


class Till:
    """A tool that remembers what was paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []

    @tool(requires_approval=True)
    async def pay(self, amount: int) -> str:
        """Pay."""
        self.paid.append(amount)
        return "paid"


async def until_asked(handler: Handler[AgentResult]) -> ApprovalRequired:
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            return event
    raise AssertionError("nothing was asked")


async def test_the_question_of_an_agent_is_answered_through_the_team_also_when_that_was_put_away() -> None:
    till = Till()
    first, second = ScriptedModel([over("billing")]), ScriptedModel([call("p", "pay", amount=3), "Paid."])

    def make() -> Team:
        return Team([agent("triage", first), agent("billing", second, [till.pay])], name="desk")

    with first, second:
        handler = make().run("x")
        question = await until_asked(handler)
        assert (question.agent, question.tool, question.arguments) == ("billing", "pay", {"amount": 3})
        await handler.until_asked()
        text = handler.ctx.to_json()
        await handler.cancel_run()
        team = make()
        handler = team.run(ctx=Context.from_json(team, text))
        handler.ctx.send_event(question.approve())
        result = await handler
    assert (till.paid, str(result), len(result.messages)) == ([3], "Paid.", 7)
    check_messages(render_messages(result.messages))


async def test_a_team_step_by_step_hands_out_the_question() -> None:
    till = Till()
    members = [agent("a", [over("b")]), agent("b", [call("p", "pay", amount=1), "Paid."], [till.pay])]
    handler = Team(members).run("x", stepwise=True)
    while produced := await handler.run_step():
        for event in produced:
            handler.ctx.send_event(event)
            if isinstance(event, ApprovalRequired):
                handler.ctx.send_event(event.approve())
    assert (str(await handler), till.paid) == ("Paid.", [1])


async def test_an_answer_that_comes_too_late_is_not_taken_for_another_question(
    caplog: pytest.LogCaptureFixture,
) -> None:
    till = Till()
    members = [
        agent("a", [[over("b", call_id="c0"), call("p", "pay", amount=1)]], [till.pay]),
        agent("b", [call("p", "pay", amount=2), "Done."], [till.pay]),
    ]
    with caplog.at_level(logging.WARNING):
        handler = Team(members, shared=False).run("x")
        first = await until_asked(handler)
        handler.ctx.send_event(first.refuse())
        second = await until_asked(handler)
        handler.ctx.send_event(first.approve())
        await handler.until_asked()
        assert not handler.is_done()
        handler.ctx.send_event(second.refuse())
        await handler
    assert till.paid == []
    assert f"an Approval of {first.call_id!r} was ignored" in caplog.text
    assert f"Waiting: {second.call_id!r}" in caplog.text


async def test_an_answer_to_nobody_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    came, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        """Work."""
        came.set()
        await go_on.wait()

    with caplog.at_level(logging.WARNING):
        handler = Team([agent("a", [call("c", "work"), "Done."], [work])]).run("x")
        await came.wait()
        handler.ctx.send_event(Approval(call_id="c", approved=True))
        await asyncio.sleep(0)
        go_on.set()
        assert str(await handler) == "Done."
    assert "an Approval of 'c' was ignored" in caplog.text
    assert "Waiting: none" in caplog.text


# what cannot work


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Team([]), r"it takes a list of agents\. Write Team\(\[triage, billing\]\)"),
        (lambda: Team(agent("a", [])), "it takes a list of agents"),
        (lambda: Team([agent("a", []), cast("Any", "b")]), r"Team\('b'\): it takes a list of agents"),
        (lambda: Team([agent("a", []), agent("a", [])]), r"called 'a' and 'a'.*FunctionAgent\(\.\.\., name=\"a_2\"\)"),
        (lambda: Team([agent("a b", []), agent("a.b", [])]), "called 'a b' and 'a.b', which models cannot tell apart"),
        (lambda: Team([agent("a", []), FunctionAgent(name="b")]), r"'b' has no description.*name='b', description="),
        (lambda: Team([agent("a", [])], "b"), r"Team\(first='b'\): there is no such agent\. There are 'a'\."),
        (lambda: Team([agent("a", [])], agent("a", [])), "there is no such agent"),
        (lambda: Team([agent("a", [])], handoffs={"b": ["a"]}), "names 'b', and there is no such agent. There are 'a'"),
        (lambda: Team([agent("a", [])], handoffs={"a": ["b"]}), "names 'b', and there is no such agent"),
        (lambda: Team([agent("a", [])], handoffs={"a": ["a"]}), "lets 'a' hand over to itself"),
        (lambda: Team([agent("a", [])], handoffs={"a": "b"}), r"Write handoffs=\{\"triage\": \[\"billing\"\]\}"),
        (
            lambda: Team([agent("a", [])], handoffs=cast("Any", ["a"])),
            r"Write handoffs=\{\"triage\": \[\"billing\"\]\}",
        ),
        (lambda: Team([agent("a", [])], hops=-1), r"Team\(hops=-1\): it must be a whole number of 0 or more"),
        (lambda: Team([agent("a", [])], hops=True), "a whole number"),
        (
            lambda: Team([agent("a", [])], llm=OfflineModel()),  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] because it is refused
            r"a team has no model of its own\. Give llm= to its agents",
        ),
        (lambda: Team([agent("a", [])], output=City), "Give output= to its agents"),  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] because it is refused
        (lambda: Team([agent("a", [])], budget=Budget(last_answer=True)), "no model of its own that could be asked"),
    ],
)
def test_what_cannot_work_is_refused(make: Callable[[], Team], said: str) -> None:
    with pytest.raises(AgentConfigurationError, match=said):
        make()


def test_an_agent_that_cannot_hand_over_is_not_to() -> None:
    library = RAGAgent(Document("Cats sleep.", "cats"), OfflineModel(), name="library", description="x")
    with pytest.raises(AgentConfigurationError, match="lets 'library' hand over, and a RAGAgent cannot"):
        Team([agent("a", []), library], handoffs={"library": ["a"]})


def test_who_is_never_handed_over_to_needs_no_description() -> None:
    triage = FunctionAgent(name="triage")
    assert Team([triage, agent("b", [])], handoffs={"triage": ["b"]}).roster.first == "triage"


def test_the_text_of_a_handover_can_be_changed() -> None:
    texts_of_it = {"handed_over": "{name} says: {message}"}
    assert Team([agent("a", [])], prompts=texts_of_it).prompts()["handed_over"] == texts_of_it["handed_over"]


# whatever models say

turns = st.lists(
    st.lists(
        st.sampled_from(["a", "b", "c", "d", "work", "pay", "nobody"]) | st.just("Let me see."), min_size=1, max_size=3
    ),
    max_size=8,
)

chances = st.integers(0, 10**6).map(Random)
"""All that is left to chance while a run goes on: hypothesis must not break that off."""


async def ended(handler: Handler[AgentResult], team: Team, chance: Random) -> Handler[AgentResult]:
    """Let the run end, with a person who answers anything, sometimes when it was put away."""
    while not handler.is_done():
        for question in await handler.until_asked():
            assert isinstance(question, ApprovalRequired)
            if chance.random() < 0.5:
                stored = json.dumps(handler.put_away())
                handler = team.run(ctx=Context.from_json(team, stored))
            handler.ctx.send_event(question.approve() if chance.random() < 0.5 else question.refuse())
    return handler


class Staff:
    """Four members, who say what is planned, whoever is asked; one of them is a team."""

    def __init__(self, planned: list[list[str]], *, shared: bool, hops: int) -> None:
        async def work() -> str:
            """Work."""
            await asyncio.sleep(0)
            return "ok"

        @tool(requires_approval=True)
        async def pay() -> str:
            """Pay."""
            return "paid"

        script = [[self._said(piece, place) for place, piece in enumerate(turn)] for turn in planned]
        self.model = model = ScriptedModel([*script, *["Done."] * 20])
        self.memory, self.own = ChatMemory(), ChatMemory()
        members: list[Agent[Any]] = [
            agent("a", model, [work, pay], memory=self.own),
            agent("b", model, [work, pay]),
            agent("c", model),
            Team([agent("x", model, [pay])], name="d", description="A team."),
        ]
        self.team = Team(members, shared=shared, hops=hops, memory=self.memory)

    def _said(self, piece: str, place: int) -> Any:
        if piece.endswith("."):
            return piece
        return over(piece, call_id=f"c{place}") if len(piece) == 1 else call(f"c{place}", piece)

    async def check(self, result: AgentResult) -> None:
        check_messages(render_messages(result.messages))
        check_messages(render_messages(await self.memory.aget()))
        check_messages(render_messages(repaired(await self.own.aget())))
        for request in self.model.calls:
            check_messages(render_messages(request.messages))


@settings(max_examples=100)
@given(
    turns, st.fixed_dictionaries({"shared": st.booleans(), "hops": st.integers(0, 4)}), st.integers(-20, 60), chances
)
def test_every_conversation_is_whole_however_a_run_goes_and_ends(
    planned: list[list[str]], options: dict[str, Any], stop_at: int, chance: Random
) -> None:
    async def scenario() -> None:
        staff = Staff(planned, **options)
        handler = staff.team.run("question")
        if stop_at >= 0:
            for _ in range(stop_at):
                await asyncio.sleep(0)
            await handler.cancel_run()
        handler = await ended(handler, staff.team, chance)
        if handler.exception() is None:
            await staff.check(await handler)
        again = await ended(staff.team.run("again", ctx=handler.ctx), staff.team, chance)
        await staff.check(await again)

    asyncio.run(scenario())


class Stuck(ChatMemory):
    """Never has what it is given at the `last` time."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.left = last
        self.reached = asyncio.Event()

    async def put(self, messages: Sequence[ChatMessage]) -> None:
        self.left -= 1
        if not self.left:
            self.reached.set()
            await asyncio.Event().wait()
        await super().put(messages)


@pytest.mark.parametrize("nested", [False, True])
async def test_a_team_that_is_stored_while_its_memory_is_given_a_turn_does_nothing_twice(nested: bool) -> None:  # noqa: FBT001 because it is a parameter of the test
    looked = 0

    def look() -> str:
        """Look around."""
        nonlocal looked
        looked += 1
        return "seen"

    def team(memory: ChatMemory) -> Team:
        one = agent("one", [call("c1", "look"), over("two")], [look])
        two = agent("two", [call("c2", "look"), City(name="Graz")], [look], output=City)
        last = Team([two], name="two", description="Two.") if nested else two
        return Team([one, last], memory=memory)

    stored = ""
    for last in (1, 2):
        memory = Stuck(last)
        going = team(memory)
        handler = going.run("x") if not stored else going.run(ctx=Context.from_json(going, stored))
        await memory.reached.wait()
        stored = handler.ctx.to_json()
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler
    whole = ChatMemory()
    going = team(whole)
    result = await going.run(ctx=Context.from_json(going, stored))
    assert (looked, result.output) == (2, City(name="Graz"))
    assert (await whole.aget())[-len(result.messages) :] == result.messages[-len(await whole.aget()) :]
