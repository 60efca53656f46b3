"""The fixed cells of the policy matrix: models between pairs of devices, and classes of traces.

Models and devices are those of the Scission tables: seconds of every block of a Keras net, measured on five machines,
and the bytes between blocks. Times are those of float nets; boundaries travel as INT8 (a fourth of the bytes, the
codec's own time added), the input as the 8-bit image. How the edge slows down under load is an assumption, labelled so:
with load L a request takes 1 + L times as long, what a fair scheduler gives a thread beside a busy one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.profile import Slowdown
from edge_deploy.core.tensor import TensorInfo
from partitioner.cut_table import CutTable
from partitioner.study.scission import read_blocks
from partitioner.trace_part import part_of
from partitioner.traces.generate import generate
from partitioner.traces.merge import merge
from partitioner.traces.read import read_recorded, read_trace, trace_members
from runtimes.codecs import load_codec

__all__ = ["CELLS", "PARTS", "Split", "cut_table", "traces_of_class"]

MODELS = (
    "vgg16", "vgg19", "mobilenet", "mobilenetv2", "resnet50", "resnet50v2", "densenet121", "inception_v3", "xception",
)  # fmt: skip
PAIRS = (
    ("raspi4", "6700k(GPU)"),
    ("raspi4", "vm2Core"),
    ("2500", "6700k(GPU)"),
    ("vm2Core", "6700k(GPU)"),
)
# Nets and pairs that no choice was made on, for the last look.
FRESH_MODELS = (
    "densenet169", "densenet201", "inceptionresnet_v2", "nasnetlarge", "nasnetmobile", "resnet101", "resnet101v2",
    "resnet152", "resnet152v2",
)  # fmt: skip
FRESH_PAIRS = (
    ("raspi4", "6700k(NoGPU)"),
    ("raspi4", "2500"),
    ("2500", "6700k(NoGPU)"),
    ("vm2Core", "6700k(NoGPU)"),
)
CLASSES = (
    "mahimahi", "hsdpa-3g", "ghent-4g", "fcc", "4g-datacenter-load", "markov-bursts", "markov-outages", "markov-fast",
)  # fmt: skip
CODEC = "requantize:int8"
IMAGE_BYTES = 224 * 224 * 3
ANSWER_BYTES = 4000
HEADER_BYTES = 128
# Traces of a class and seconds of each that are looked at, on either side.
MOST_TRACES, MOST_SECONDS = 12, 400.0
STRETCH_S = 120.0
FCC_EVERY = 20
GENERATED = {
    "markov-bursts": "markov-link+rtt-process+bursts",
    "markov-outages": "markov-link:low_mbit_s=1,high_mbit_s=20+outages:up_s=60,down_s=6+diurnal-load:period_s=900",
    "markov-fast": "markov-link:dwell_s=2,scatter=0.4+rtt-process",
}
# `dev` is what choices are made on, `scored` the published matrix, `fresh` other nets, pairs and (mostly) traces.
PARTS = ("dev", "scored", "fresh")
CELLS = {"dev": (MODELS, PAIRS), "scored": (MODELS, PAIRS), "fresh": (FRESH_MODELS, FRESH_PAIRS)}
_LOADED = Slowdown(at=(0.0, 1.0), factor=(1.0, 2.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Traces of one class: to learn from, and to score."""

    train: tuple[Trace, ...]
    score: tuple[Trace, ...]


def cut_table(tables: Path, model: str, edge: str, cloud: str) -> CutTable:
    """The cuts between the blocks of a model, all-cloud first."""
    blocks = read_blocks(tables / "layers.csv")[model]
    on_edge, on_cloud = (np.array(blocks.seconds[machine]) for machine in (edge, cloud))
    count = len(on_edge)
    coder = load_codec(CODEC)
    # The tables hold files of 32-bit numbers with a header; the image crosses as it is, the answer comes back so.
    sizes = [max(1, (size - HEADER_BYTES) // 4) for size in blocks.bytes[:-1]]
    tensors = [(TensorInfo(name=f"block{i}", shape=(size,), dtype="float32"),) for i, size in enumerate(sizes)]
    # In bytes of 32-bit numbers, as the codec counts.
    coded = np.array([0.0, *(4.0 * size for size in sizes), 0.0])
    crosses = np.arange(count + 1) < count
    return CutTable(
        cuts=(ALL_CLOUD, *(f"{i:03d}" for i in range(1, count)), ALL_EDGE),
        codec=CODEC,
        edge_s=np.concatenate(([0.0], np.cumsum(on_edge))),
        cloud_s=np.concatenate((np.cumsum(on_cloud[::-1])[::-1], [0.0])),
        encode_s=coded * coder.encode_s_per_byte,
        decode_s=coded * coder.decode_s_per_byte,
        up_bytes=np.array([IMAGE_BYTES, *(coder.encoded_bytes(each) for each in tensors), 0]),
        down_bytes=np.where(crosses, ANSWER_BYTES, 0),
        edge_bytes=np.zeros(count + 1),
        exit_share=np.zeros(count + 1),
        crosses=crosses,
        edge_cpu=_LOADED,
        cloud_cpu=_LOADED,
        provenance="estimated",
    )


# Reading hundreds of files from archives takes longer than simulating on them.
@lru_cache(maxsize=2 * len(CLASSES))
def traces_of_class(data: Path, name: str, part: str) -> Split:
    """The traces of a class; every second one trains, of the others those are scored that no choice has ever seen.

    Args:
        data: The development data.
        name: One of CLASSES.
        part: `dev` leaves the scored traces alone: half of the training traces train, the other half is scored. `fresh`
            scores traces that `scored` does not know, where there are any.
    """
    traces = _generated(name, first_seed=0) if name in GENERATED else _recorded(data / "traces", name)
    train, held = traces[0::2], traces[1::2]
    if part == "dev":
        return Split(train=_shortened(train[0::2]), score=_shortened(train[1::2]))
    # A first dozen was looked at while the policies were still being changed: it never counts. Where there are no
    # more, what was the downlink is the uplink now.
    seen = set(_spread(len(held)))
    left = [trace for place, trace in enumerate(held) if place not in seen] or [_exchanged(trace) for trace in held]
    scored = _shortened(left)
    if part == "fresh":
        return Split(train=_shortened(train), score=_fresh(data, name, left) or scored)
    return Split(train=_shortened(train), score=scored)


def _fresh(data: Path, name: str, left: Sequence[Trace]) -> tuple[Trace, ...]:
    """Traces that neither trained nor were scored; none where a class has no more."""
    if name in GENERATED:
        return _shortened(_generated(name, first_seed=1000))
    if name == "fcc":
        return _shortened(_recorded(data / "traces", name, first=FCC_EVERY // 2))
    scored = set(_spread(len(left)))
    others = [trace for place, trace in enumerate(left) if place not in scored]
    return _shortened(others) if len(others) >= MOST_TRACES else ()


def _shortened(traces: Sequence[Trace]) -> tuple[Trace, ...]:
    """A dozen spread over all, the first minutes of each."""
    picked = [traces[place] for place in _spread(len(traces))]
    return tuple(part_of(trace, 0.0, min(trace.end_s, MOST_SECONDS)) for trace in picked)


def _exchanged(trace: Trace) -> Trace:
    values = trace.values | {"uplink_bps": trace.values["downlink_bps"], "downlink_bps": trace.values["uplink_bps"]}
    return replace(trace, values=values, source=f"{trace.source}, directions exchanged")


def _spread(count: int) -> list[int]:
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, MOST_TRACES))})


def _generated(name: str, *, first_seed: int) -> list[Trace]:
    seeds = range(first_seed, first_seed + 4 * MOST_TRACES)
    return [generate(GENERATED[name], seed=seed, seconds=MOST_SECONDS) for seed in seeds]


def _recorded(traces: Path, name: str, *, first: int = 0) -> list[Trace]:
    if name == "mahimahi":
        found = [read_trace(path, step_s=0.5) for path in sorted((traces / "mahimahi_cellular").glob("*.up.xz"))]
        return [
            part_of(trace, at * STRETCH_S, (at + 1) * STRETCH_S)
            for trace in found
            for at in range(math.floor(trace.end_s / STRETCH_S))
        ]
    if name == "hsdpa-3g":
        return _members(traces / "hsdpa_3g_norway" / "3Glogs.tar.gz")
    if name == "fcc":
        return _members(traces / "fcc_broadband_sd" / "sd_fs.tar.gz", first=first, every=FCC_EVERY)
    found = _members(traces / "ghent_4g_lte" / "4Glogs.tar.gz")
    if name == "4g-datacenter-load":
        days = traces / "cpu_mem_datacenter" / "alibaba2018_days1-4.tar.xz"
        loads = [read_recorded(days, member=day, interval_s=10.0) for day in trace_members(days)]
        return [merge(trace, loads[number % len(loads)], fields=("edge_load",)) for number, trace in enumerate(found)]
    return found


def _members(archive: Path, *, first: int = 0, every: int = 1) -> list[Trace]:
    return [read_trace(archive, member=member) for member in trace_members(archive)[first::every]]
