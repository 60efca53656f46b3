"""What a request of an otherwise idle system really takes, cut by cut, when it comes at a given moment of a trace.

The cost model multiplies with the conditions of one moment; here rates change while bytes travel. Policies learn from
this on training traces; bounds look at it on the trace that is scored; a live policy never sees it.
"""

from __future__ import annotations

import math

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.link import transfer_end
from partitioner.cost import slowdowns
from partitioner.cut_table import CutTable
from partitioner.setting import Setting, finish_on_edge_s, queueing_s

__all__ = ["realised_by_tick", "realised_s"]


def realised_s(table: CutTable, trace: Trace, arrival_s: np.ndarray, setting: Setting) -> np.ndarray:
    """Seconds of a request that arrives at each moment, for every cut, averaged over early exits.

    With `setting.rate_hz` the mean waits for the edge and the uplink are added.

    Returns:
        Shape (n, C); infinite where the link never comes back and there is no fallback.
    """
    on_edge, on_cloud = slowdowns(table, trace.values)
    start = np.asarray(arrival_s, dtype=float).reshape(-1, 1)
    slow = on_edge[trace.index(start)]
    half = slow * table.edge_s
    encoded = slow * table.encode_s
    sent = start + half + encoded
    # One bit at least: a cut that sends nothing still needs the link for its request.
    up = np.maximum(table.up_bytes, 0.125) * np.ones_like(sent)
    arrived = transfer_end(trace.time_s, trace.values["uplink_bps"], sent, up)
    known = np.where(np.isfinite(arrived), arrived, trace.end_s)
    # The round trip that holds while the last bits leave, as in the simulator.
    last = np.maximum(np.searchsorted(trace.time_s, known, side="left") - 1, trace.index(sent))
    round_trip = trace.values["rtt_s"][last]
    came = known + round_trip / 2
    begin = came + trace.values["cloud_queue_s"][trace.index(came)]
    done = begin + on_cloud[trace.index(begin)] * (table.cloud_s + table.decode_s)
    down = table.down_bytes * np.ones_like(done)
    back = transfer_end(trace.time_s, trace.values["downlink_bps"], done, down) + round_trip / 2
    answer = np.where(np.isfinite(arrived), back, np.inf) - sent
    rest = finish_on_edge_s(table)
    if rest is not None and math.isfinite(setting.fallback_after_s):
        late = np.minimum(sent + setting.fallback_after_s, trace.end_s)
        local = setting.fallback_after_s + on_edge[trace.index(late)] * rest
        answer = np.where(answer > setting.fallback_after_s, local, answer)
    pays = np.where(table.crosses, 1.0 - table.exit_share, 0.0)
    total = half + np.where(pays > 0, pays * (encoded + np.where(pays > 0, answer, 0.0)), 0.0)
    if setting.rate_hz:
        sending = np.where(table.crosses, np.minimum(arrived - sent, setting.fallback_after_s), 0.0)
        total = total + queueing_s(half + encoded, setting.rate_hz) + queueing_s(sending, setting.rate_hz)
    return np.asarray(total)


def realised_by_tick(
    table: CutTable, trace: Trace, ticks: np.ndarray, setting: Setting, *, phases: int = 4
) -> np.ndarray:
    """Mean over requests that arrive during each tick; shape (ticks, C)."""
    total = np.zeros((len(ticks), len(table.cuts)))
    for phase in range(phases):
        total += realised_s(table, trace, ticks + (phase + 0.5) / phases * setting.tick_s, setting)
    return total / phases
