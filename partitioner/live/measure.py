"""A cut table without profiles: every head timed here, every tail in the cloud, as the cloud reports it.

Good enough to move a cut by when nobody has profiled the devices; loads of the moment are in the figures, and how
halves slow down under load is not known.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from edge_deploy.core.clock import Clock
from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.tensor import TensorInfo
from partitioner.cut_table import CutTable
from partitioner.live.exits import exit_share
from partitioner.live.halves import EdgeHalf, Whole
from partitioner.live.link_probe import zeros_for_boundary
from partitioner.live.stage import Open
from runtimes.calling import zeros_for
from runtimes.codecs import load_codec
from runtimes.serving.contracts import RemoteSegment
from runtimes.serving.errors import CloudRefused

__all__ = ["measure_table", "served"]

RUNS = 7
ENOUGH = 3
CALL_S = 10.0


def served(halves: Sequence[EdgeHalf], cuts: Sequence[str]) -> tuple[EdgeHalf, ...]:
    """Those that need no cloud, and those whose tails the server says it has; all, where it does not say."""
    return tuple(half for half in halves if not half.crosses or not cuts or half.cut in cuts)


def measure_table(
    whole: Whole,
    halves: Sequence[EdgeHalf],
    segment: RemoteSegment,
    open_half: Open,
    *,
    codec: str,
    clock: Clock,
    progress: Callable[[str], None] = lambda stage: None,
) -> CutTable:
    """Medians of a few runs on zeros, for every cut that the server answers.

    Raises:
        CloudError: The cloud does not answer.
        BadInput: A half cannot be loaded.
    """
    coder = load_codec(codec)
    rows: list[tuple[EdgeHalf, float, float]] = []
    given = zeros_for(whole.signature)
    for half in halves:
        progress(f"time cut {half.cut}")
        edge_s = _edge_seconds(half, given, open_half, clock)
        try:
            cloud_s = _cloud_seconds(half, segment, codec, clock) if half.crosses else 0.0
        except CloudRefused:
            continue  # a tail that this server does not have
        rows.append((half, edge_s, cloud_s))
    sizes = np.array([_bytes(half.up) for half, *_ in rows], dtype=np.int64)
    return CutTable(
        cuts=tuple(half.cut for half, *_ in rows),
        codec=codec,
        edge_s=np.array([edge_s for _, edge_s, _ in rows]),
        cloud_s=np.array([cloud_s for *_, cloud_s in rows]),
        encode_s=sizes * coder.encode_s_per_byte,
        decode_s=np.zeros(len(rows)),  # in what the cloud reports
        up_bytes=np.array([coder.encoded_bytes(_sized(half.up)) for half, *_ in rows], dtype=np.int64),
        down_bytes=np.array([_bytes(half.down) for half, *_ in rows], dtype=np.int64),
        edge_bytes=np.array([half.bytes for half, *_ in rows], dtype=np.int64),
        exit_share=np.array([exit_share(whole, half) for half, *_ in rows]),
        crosses=np.array([half.crosses for half, *_ in rows]),
        provenance="measured",
    )


def _edge_seconds(half: EdgeHalf, given: dict[str, np.ndarray], open_half: Open, clock: Clock) -> float:
    if half.head is None:
        return 0.0
    session = open_half(half)
    inputs = {info.name: given[info.name] for info in session.signature.inputs}
    taken = []
    for _ in range(RUNS):
        begun = clock.now_s()
        session.run(inputs)
        taken.append(clock.now_s() - begun)
    session.close()
    return statistics.median(taken)


def _cloud_seconds(half: EdgeHalf, segment: RemoteSegment, codec: str, clock: Clock) -> float:
    """As the server tells it; of one that does not, the shortest call, beyond what a small message takes."""
    zeros = zeros_for_boundary(half)
    told: list[float] = []
    taken: list[float] = []
    for number in range(RUNS):
        if number >= ENOUGH and min(told) >= 0:
            break  # told times do not waver with the link
        begun = clock.now_s()
        reply = segment.infer(zeros, deadline_s=CALL_S, cut=half.cut, codec=codec)
        taken.append(clock.now_s() - begun)
        told.append(reply.compute_s)
    if min(told) >= 0:
        return statistics.median(told)
    begun = clock.now_s()
    segment.is_ready(deadline_s=CALL_S)
    return max(min(taken) - (clock.now_s() - begun), 0.0)


def _sized(infos: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
    """With 1 in dynamic dimensions."""
    from dataclasses import replace

    return tuple(replace(info, shape=tuple(1 if size == -1 else size for size in info.shape)) for info in infos)


def _bytes(infos: Sequence[TensorInfo]) -> int:
    return sum(tensor_bytes(info) for info in _sized(infos))
