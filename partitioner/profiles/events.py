"""A profile from what the runtime's own profiler says: its seconds by name, put under the layers of the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.benchmark import BenchmarkReport, Provenance, run_seconds
from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.profile import ModelProfile

__all__ = ["Subject", "io_bytes", "profile_from_events", "profile_from_report", "tells_layers_apart", "told_if_off"]

# A call of a session costs so much at most, beside the copies of inputs and outputs (`make bench-models`: 2 to 10 us
# on an idle desktop, more on a phone); what is missing beyond it is time that nobody accounts for.
MOST_CALL_S = 50e-6
# Inputs and outputs are copied at no less than this.
LEAST_COPY_BYTES_PER_S = 2e9
# Of the layers with multiply-accumulates, so many must have a time, or the profiler saw a delegate as one node.
LEAST_SHARE_SEEN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was measured, and where."""

    artifact: str
    sha256: str
    device: str
    kernels: str
    provenance: Provenance = "measured"
    threads: int = 1
    batch: int = 1


def profile_from_events(
    graph: LayerGraph,
    event_s: Mapping[str, float],
    whole_s: Sequence[float],
    subject: Subject,
    *,
    notes: Sequence[str] = (),
) -> ModelProfile:
    """Seconds by layer; events that bear no layer's name, such as conversions, are overhead.

    What the events leave of the whole is overhead too, as far as calling the session and copying inputs and outputs
    can explain it. The rest stays unexplained: the profile then does not add up, and a note says by how much.

    Args:
        event_s: Seconds by name as the runtime's profiler gives them.
        whole_s: Seconds of the whole model, one value for each round.
    """
    layers = {layer.name: float(event_s.get(layer.name, 0.0)) for layer in graph.layers}
    others = sum(seconds for name, seconds in event_s.items() if name not in layers)
    whole = float(np.median(np.asarray(whole_s)))
    rest = whole - sum(layers.values()) - others
    overhead = others + min(max(rest, 0.0), MOST_CALL_S + io_bytes(graph) / LEAST_COPY_BYTES_PER_S)
    profile = ModelProfile(
        artifact=subject.artifact,
        sha256=subject.sha256,
        device=subject.device,
        kernels=subject.kernels,
        provenance=subject.provenance,
        source="runtime profiler",
        layer_s=layers,
        overhead_s=overhead,
        whole_s=whole,
        threads=subject.threads,
        batch=subject.batch,
        notes=tuple(notes),
    )
    return told_if_off(profile, "time under the profiler is not that of a plain run")


def io_bytes(graph: LayerGraph) -> int:
    """Bytes of all inputs and outputs, which a call copies; a dynamic dimension counts once."""
    made = {tensor.name: tensor for layer in graph.layers for tensor in layer.outputs}
    tensors = [*graph.inputs, *(made[name] for name in graph.outputs if name in made)]
    fixed = (dataclasses.replace(tensor, shape=tuple(max(size, 1) for size in tensor.shape)) for tensor in tensors)
    return sum(tensor_bytes(tensor) for tensor in fixed)


def tells_layers_apart(graph: LayerGraph, event_s: Mapping[str, float]) -> bool:
    """Whether the profiler saw the layers, and not a delegate as one node."""
    working = [layer.name for layer in graph.layers if layer.macs] or [layer.name for layer in graph.layers]
    seen = sum(event_s.get(name, 0.0) > 0 for name in working)
    return seen >= LEAST_SHARE_SEEN * len(working)


def profile_from_report(report: BenchmarkReport, graph: LayerGraph) -> ModelProfile:
    """The profile that a benchmark with times per layer holds.

    Raises:
        BadInput: It has no times per layer, or the profiler did not tell the layers apart.
    """
    if not report.layer_s or not tells_layers_apart(graph, report.layer_s):
        raise BadInput(
            f"benchmark of {report.artifact}: has no seconds per layer; `edge-deploy profile` can time prefixes."
        )
    subject = Subject(
        artifact=report.artifact,
        sha256=report.sha256,
        device=report.device.name,
        kernels=report.conditions.kernels,
        provenance=report.provenance,
        threads=report.conditions.threads,
        batch=report.conditions.batch,
    )
    return profile_from_events(graph, report.layer_s, run_seconds(report).tolist(), subject)


def told_if_off(profile: ModelProfile, why: str) -> ModelProfile:
    """The profile, with a note where its layers do not add up to the whole."""
    if profile.adds_up:
        return profile
    off = profile.sum_s / profile.whole_s - 1 if profile.whole_s else 0.0
    note = (
        f"does not add up: layers and overhead are {abs(off):.0%} {'more' if off > 0 else 'less'} than the whole; {why}"
    )
    return dataclasses.replace(profile, notes=(*profile.notes, note))
