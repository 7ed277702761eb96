"""How many of the traces are recorded."""

from __future__ import annotations

from typing import Any


def check_share(sampling: object) -> None:
    """Raise `ValueError` for what is no share."""
    if sampling is None:
        return
    if isinstance(sampling, bool) or not isinstance(sampling, int | float) or not 0 <= sampling <= 1:
        meant = ""
        if isinstance(sampling, int | float) and not isinstance(sampling, bool) and 1 < sampling <= 100:  # noqa: PLR2004 because it is per cent
            meant = f" For {sampling:g} %, write: sampling={sampling / 100:g}"
        msg = f"setup(sampling={sampling!r}): a share of the traces is needed, from 0 for none to 1 for all.{meant}" + (
            "" if meant else " Write: sampling=0.1"
        )
        raise ValueError(msg)


def sampler_of(share: float) -> Any:
    """Keeps that share of the traces that begin here, and of others what was decided where they began."""
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415 because the SDK is heavy

    return ParentBased(TraceIdRatioBased(share))


def refuse(share: float, provider: object) -> None:
    """Raise `ValueError`: whoever has set up the provider has chosen its sampler."""
    name = type(provider).__name__
    msg = (
        f"setup(sampling={share:g}): a {name} is set up already, and its sampler stays. Call setup() before whatever "
        f"sets it, or sample there: {name}(sampler=ParentBased(TraceIdRatioBased({share:g}))), or by the variables "
        f"OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG={share:g}"
    )
    raise ValueError(msg)
