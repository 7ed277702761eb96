"""The cases, each defined once. A peer brings the workload; a case runs it, measures it and checks its answer."""

from . import agents, clients, engine, traces, vectors
from .case import Case, Metrics

__all__ = ["CASES", "Case", "Metrics"]

CASES: dict[str, type[Case]] = {
    case.name: case
    for case in (
        engine.Chain,
        engine.ChainTimeout,
        engine.ChainGrowth,
        engine.Loop,
        engine.LoopGrowth,
        engine.LoopMemory,
        engine.Fanout,
        engine.FanoutList,
        engine.FanoutGrowth,
        engine.FanoutWaiting,
        engine.Concurrent,
        engine.Paused,
        engine.PutAway,
        engine.Stream,
        engine.StreamGrowth,
        engine.Checkpoint,
        traces.NotConfigured,
        traces.SampledOut,
        traces.Traced,
        traces.TracedMemory,
        traces.Measured,
        traces.TracedMeasured,
        traces.SampledMeasured,
        agents.Agent,
        agents.AgentLong,
        agents.AgentTraced,
        agents.AgentSpanned,
        agents.AgentServed,
        agents.AgentsAtOnce,
        agents.AgentTurns,
        agents.AgentTurnsMemory,
        agents.AgentStreamed,
        agents.TraceTurns,
        vectors.Ingest,
        vectors.IngestGrowth,
        vectors.QueryFew,
        vectors.Query,
        vectors.QueryMany,
        clients.Call,
        clients.CallGrowth,
        clients.CallTraced,
        clients.CallSpanned,
        clients.Streamed,
        clients.StreamedThroughStep,
        engine.Import,
    )
}
