"""A stretch of a trace as a trace of its own, e.g. the half that policies learn from and the half that is scored."""

from __future__ import annotations

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.errors import BadInput

__all__ = ["part_of"]


def part_of(trace: Trace, begin_s: float, end_s: float) -> Trace:
    """The conditions from `begin_s` to `end_s`, starting at 0.

    Raises:
        BadInput: The stretch is empty or reaches beyond the trace.
    """
    if not 0 <= begin_s < end_s <= trace.end_s:
        raise BadInput(
            f"trace {trace.source}: has no stretch from {begin_s:g} to {end_s:g} s; it ends at {trace.end_s:g}."
        )
    first = int(trace.index(begin_s))
    last = int(np.searchsorted(trace.time_s, end_s, side="left"))
    times = np.maximum(trace.time_s[first:last] - begin_s, 0.0)
    return Trace(
        time_s=times,
        end_s=end_s - begin_s,
        values={name: values[first:last] for name, values in trace.values.items()},
        source=f"{trace.source}, {begin_s:g} to {end_s:g} s",
        filled=trace.filled,
        repairs=trace.repairs,
    )
