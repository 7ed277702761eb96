"""The chain as it is: observers attach themselves."""

from peers.agentflow.engine import chain

SPANS_LIKE_OURS = True

chain_unwatched = chain
chain_traced = chain
chain_measured = chain
chain_traced_measured = chain
