"""A recorded run in the simulator's terms: the trace it ran on, the table it believed in, and what it gave.

The trace is what the probes told, tick by tick; between two ticks it is taken as constant. Cloud and edge load are in
it as far as they were measured.
"""

from __future__ import annotations

import statistics
from collections import Counter

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from edge_deploy.core.errors import BadInput
from partitioner.cut_table import CutTable
from partitioner.live.decide import Decide
from partitioner.live.exits import EXIT
from partitioner.live.happened import BY_CLOUD, FELL_BACK, LOST, ON_EDGE
from partitioner.live.record import Believed, Run
from partitioner.simulator.compare import Outcome

__all__ = ["believed", "cuts_in_force", "recorded_outcome", "recorded_table", "recorded_trace"]

LAST_TICK_S = 1.0


def recorded_trace(run: Run) -> Trace:
    """The conditions of the run.

    Raises:
        BadInput: The record has no ticks.
    """
    if not run.ticks:
        raise BadInput(f"record of {run.start.artifact}: has no line of kind tick; the run ended before its first.")
    kept = [run.ticks[0]]
    kept += [tick for before, tick in zip(run.ticks, run.ticks[1:], strict=False) if tick.at_s > before.at_s]
    times = np.array([tick.at_s for tick in kept])
    times = times - times[0]
    values = {name: np.array([getattr(tick.conditions, name) for tick in kept], float) for name in CONDITION_FIELDS}
    end_s = max(run.end_s, float(times[-1]) + LAST_TICK_S)
    return Trace(time_s=times, end_s=end_s, values=values, source=f"recorded {run.start.began}".strip())


def recorded_table(run: Run) -> CutTable:
    """What the policy believed; where none decided, medians of the requests, for the cuts that had any.

    Raises:
        BadInput: Nothing decided, and no request was answered.
    """
    if run.start.table is not None:
        return _table(run.start.codec, run.start.table)
    start = run.start
    edge: dict[int, list[float]] = {}
    cloud: dict[int, list[float]] = {}
    encode: dict[int, list[float]] = {}
    sent: dict[int, tuple[int, int]] = {}
    ended: Counter[int] = Counter()
    for one in run.requests:
        if one.how == BY_CLOUD:
            cloud.setdefault(one.cut, []).append(max(one.cloud_s, 0.0))
            encode.setdefault(one.cut, []).append(max(one.encoded_s - one.headed_s, 0.0))
            sent[one.cut] = (one.up_bytes, one.down_bytes)
        if one.how == ON_EDGE and one.reason.startswith(EXIT):
            ended[one.cut] += 1
        if one.how not in (LOST, FELL_BACK):
            edge.setdefault(one.cut, []).append(one.headed_s - one.begun_s)
    used = sorted(edge)
    if not used:
        raise BadInput(f"record of {start.artifact}: no request was answered by a cut; there is nothing to compare.")

    def medians(found: dict[int, list[float]]) -> tuple[float, ...]:
        return tuple(statistics.median(found[cut]) if cut in found else 0.0 for cut in used)

    return _table(
        start.codec,
        Believed(
            cuts=tuple(start.cuts[cut] for cut in used),
            edge_s=medians(edge),
            cloud_s=medians(cloud),
            encode_s=medians(encode),
            decode_s=(0.0,) * len(used),
            up_bytes=tuple(sent.get(cut, (0, 0))[0] for cut in used),
            down_bytes=tuple(sent.get(cut, (0, 0))[1] for cut in used),
            edge_bytes=(0,) * len(used),
            crosses=tuple(cut in cloud for cut in used),
            provenance="measured",
            exit_share=tuple(ended[cut] / len(edge[cut]) for cut in used),
        ),
    )


def recorded_outcome(run: Run, trace: Trace, name: str) -> Outcome:
    """What the run gave, to be compared with simulations on `trace`; requests in the order of their arrival."""
    ordered = sorted(run.requests, key=lambda one: one.arrived_s)
    latency = [one.latency_s if one.how != LOST else np.inf for one in ordered]
    return Outcome(
        name=name,
        trace=id(trace),
        end_s=trace.end_s,
        arrival_s=np.array([max(one.arrived_s, 0.0) for one in ordered]),
        latency_s=np.array(latency),
        switches=len(run.switches),
        fallbacks=sum(one.how == FELL_BACK for one in ordered),
        lost=sum(one.how == LOST for one in ordered),
    )


def cuts_in_force(run: Run, table: CutTable) -> tuple[np.ndarray, np.ndarray]:
    """Moments, and the index in `table` of the cut from each on; cuts that are not in it are left out."""
    cuts = [run.start.cuts[tick.cut] for tick in run.ticks]
    known = [(tick.at_s, table.cuts.index(cut)) for tick, cut in zip(run.ticks, cuts, strict=True) if cut in table.cuts]
    if not known:
        return np.zeros(1), np.zeros(1, dtype=np.int64)
    moments, indices = zip(*known, strict=True)
    return np.array(moments), np.array(indices, dtype=np.int64)


def believed(decide: Decide | None) -> Believed | None:
    """The table of a session's policy for its record."""
    if decide is None:
        return None
    table = decide.table
    return Believed(
        cuts=table.cuts,
        edge_s=tuple(table.edge_s.tolist()),
        cloud_s=tuple(table.cloud_s.tolist()),
        encode_s=tuple(table.encode_s.tolist()),
        decode_s=tuple(table.decode_s.tolist()),
        up_bytes=tuple(int(count) for count in table.up_bytes),
        down_bytes=tuple(int(count) for count in table.down_bytes),
        edge_bytes=tuple(int(count) for count in table.edge_bytes),
        crosses=tuple(bool(crosses) for crosses in table.crosses),
        provenance=table.provenance,
        edge_cpu=table.edge_cpu,
        edge_memory=table.edge_memory,
        exit_share=tuple(table.exit_share.tolist()),
    )


def _table(codec: str, told: Believed) -> CutTable:
    return CutTable(
        cuts=told.cuts,
        codec=codec,
        edge_s=np.array(told.edge_s),
        cloud_s=np.array(told.cloud_s),
        encode_s=np.array(told.encode_s),
        decode_s=np.array(told.decode_s),
        up_bytes=np.array(told.up_bytes, dtype=np.int64),
        down_bytes=np.array(told.down_bytes, dtype=np.int64),
        edge_bytes=np.array(told.edge_bytes, dtype=np.int64),
        exit_share=np.array(told.exit_share or (0.0,) * len(told.cuts)),
        crosses=np.array(told.crosses, dtype=bool),
        edge_cpu=told.edge_cpu,
        edge_memory=told.edge_memory,
        provenance=told.provenance,
    )
