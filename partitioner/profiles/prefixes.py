"""A profile from timed prefixes: what each further layer adds to the time of the model up to there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile
from partitioner.profiles.events import Subject, told_if_off
from partitioner.profiles.isotonic import isotonic_means

__all__ = ["TimedPrefix", "choose_prefixes", "profile_from_prefixes"]

# What a layer without multiply-accumulates weighs when layers that were timed together share their time: one
# multiply-accumulate for each byte that it writes is about the ratio of arithmetic to memory on small cores.
MACS_PER_BYTE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedPrefix:
    """The model up to some layer.

    Attributes:
        layers: How many of the graph's layers, from the first on.
        seconds: One value for each round, measured in turns with the other prefixes and the whole.
        rest_s: The same of the rest of the model, where it was timed; a cut costs the overhead of one call more.
    """

    layers: int
    seconds: tuple[float, ...]
    rest_s: tuple[float, ...] = ()


def choose_prefixes(graph: LayerGraph, legal: Sequence[int], most: int) -> tuple[int, ...]:
    """At most `most` of the legal prefix lengths, spread evenly over the model's work."""
    wanted = sorted({count for count in legal if 0 < count < len(graph.layers)})
    if len(wanted) <= most:
        return tuple(wanted)
    work = np.cumsum([_work(layer) for layer in graph.layers])
    ends = np.array([work[count - 1] for count in wanted])
    targets = np.linspace(0, float(work[-1]), most + 2)[1:-1]
    chosen = {int(np.abs(ends - target).argmin()) for target in targets}
    return tuple(wanted[index] for index in sorted(chosen))


def profile_from_prefixes(
    graph: LayerGraph,
    prefixes: Sequence[TimedPrefix],
    whole_s: Sequence[float],
    subject: Subject,
    *,
    notes: Sequence[str] = (),
) -> ModelProfile:
    """Seconds by layer from differences of neighbouring prefixes, made to grow by an isotonic fit.

    Layers between two prefixes share their difference in proportion to multiply-accumulates and bytes written; the
    notes say where that was needed.

    Args:
        prefixes: At least one, in any order.
        whole_s: Seconds of the whole, one value for each round.

    Raises:
        BadInput: No prefix, or one that the graph does not have.
    """
    ordered = sorted(prefixes, key=lambda prefix: prefix.layers)
    total = len(graph.layers)
    if not ordered or ordered[0].layers < 1 or ordered[-1].layers >= total:
        raise BadInput(f"profile of {subject.artifact}: needs prefixes of 1 to {total - 1} layers.")
    whole = float(np.median(np.asarray(whole_s)))
    extra = [
        float(np.median(np.asarray(prefix.seconds) + np.asarray(prefix.rest_s))) - whole
        for prefix in ordered
        if prefix.rest_s
    ]
    medians = [float(np.median(np.asarray(prefix.seconds))) for prefix in ordered]
    overhead = min(max(float(np.median(extra)), 0.0), min(medians)) if extra else 0.0
    grown = isotonic_means([*medians, whole]) - overhead
    layer_s: dict[str, float] = {}
    begin, before, shared = 0, 0.0, 0
    for end, until in zip([*(prefix.layers for prefix in ordered), total], grown, strict=True):
        group = graph.layers[begin:end]
        work = np.array([_work(layer) for layer in group])
        shares = work / work.sum() if work.sum() else np.full(len(group), 1 / len(group))
        gained = max(0.0, float(until) - before)
        layer_s.update({layer.name: gained * float(share) for layer, share in zip(group, shares, strict=True)})
        shared += len(group) if len(group) > 1 else 0
        begin, before = end, max(before, float(until))
    said = [f"timed {len(ordered)} prefixes in turns with the whole"]
    if shared:
        said.append(f"{shared} of {total} layers were timed together with others; they share the time by their work")
    profile = ModelProfile(
        artifact=subject.artifact,
        sha256=subject.sha256,
        device=subject.device,
        kernels=subject.kernels,
        provenance=subject.provenance,
        source="timed prefixes",
        layer_s=layer_s,
        overhead_s=overhead,
        whole_s=whole,
        threads=subject.threads,
        batch=subject.batch,
        notes=(*notes, *said),
    )
    return told_if_off(profile, "prefixes took other times than they do within the whole: measure on an idle machine")


def _work(layer: Layer) -> float:
    written = sum(4 * float(np.prod([max(size, 1) for size in tensor.shape])) for tensor in layer.outputs)
    return layer.macs + MACS_PER_BYTE * written + 1.0
