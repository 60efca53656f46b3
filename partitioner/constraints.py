"""What a plan must keep: latency, memory, bytes, layers that must or must not be on the edge, accuracy of a codec."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import BadInput, NoFeasiblePlan
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.units import format_bytes, format_seconds
from partitioner.cut_table import CutTable
from runtimes.codecs import load_codec

__all__ = ["Constraints", "check_layers", "no_plan", "private_tensors", "ruled_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Limits; None stands for no limit.

    Attributes:
        max_latency_s: Of one request.
        max_edge_bytes: Weights and peak activations of the edge half.
        max_bytes: That cross in both directions, encoded.
        keep_on_edge: Layers that must run on the edge, e.g. because what they read is private.
        keep_off_edge: Layers that must run in the cloud.
        private: Inputs of the model that must not leave the edge, and no ids that are made of them either; what is
            computed of them in real numbers may (the vector that an id stands for, an activation).
        max_accuracy_drop: Of a lossy codec, in the metric's own points; cuts for which it was not measured are then
            refused.
        accuracy_drop: By cut id: what the codec was measured to cost at this cut.
    """

    max_latency_s: float | None = None
    max_edge_bytes: int | None = None
    max_bytes: int | None = None
    keep_on_edge: tuple[str, ...] = ()
    keep_off_edge: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    max_accuracy_drop: float | None = None
    accuracy_drop: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_latency_s", "max_edge_bytes", "max_bytes"):
            value = getattr(self, name)
            if value is not None and (not math.isfinite(value) or value < 0):
                raise BadInput(f"constraint {name} = {value}: must be finite and not negative.")
        both = sorted(set(self.keep_on_edge) & set(self.keep_off_edge))
        if both:
            raise BadInput(f"constraints: {', '.join(both)} must be on the edge and in the cloud at once; drop one.")


def check_layers(constraints: Constraints, graph: LayerGraph) -> None:
    """Refuse constraints on layers that the model lacks.

    Raises:
        BadInput: Names them, with close names.
    """
    import difflib

    known = [layer.name for layer in graph.layers]
    problems = []
    for name in (*constraints.keep_on_edge, *constraints.keep_off_edge):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]}?" if close else "`edge-deploy cuts` lists them."
            problems.append(f"constraint: no layer named {name} in the model; {hint}")
    inputs = [tensor.name for tensor in graph.inputs]
    problems += [
        f"constraint: no input named {name} in the model; it has {', '.join(inputs)}."
        for name in constraints.private
        if name not in inputs
    ]
    if problems:
        raise BadInput(*problems)


def ruled_out(
    constraints: Constraints, table: CutTable, cuts: Sequence[Cut], graph: LayerGraph | None = None
) -> tuple[str, ...]:
    """Of each cut of the table: which constraint rules it out under all conditions; empty where none does.

    Latency depends on conditions and is not looked at.

    Args:
        graph: Needed for private inputs alone.
    """
    private = private_tensors(constraints, graph) if graph is not None else frozenset(constraints.private)
    lossy = not load_codec(table.codec).lossless
    found = []
    for column, cut in enumerate(cuts):
        edge_bytes = int(table.edge_bytes[column])
        crossing = int(table.up_bytes[column] + table.down_bytes[column])
        found.append(
            _layers(constraints, cut)
            or _private(private, cut)
            or _limit("edge memory", edge_bytes, constraints.max_edge_bytes)
            or _limit("bytes", crossing, constraints.max_bytes)
            or (_accuracy(constraints, cut) if lossy and cut.up else "")
        )
    return tuple(found)


def no_plan(refusals: Sequence[str], cuts: Sequence[str]) -> NoFeasiblePlan:
    """The error that says which constraint rules out what.

    Args:
        refusals: One reason a cut, starting with the constraint and a colon.
        cuts: Ids, as long as `refusals`.
    """
    by_constraint: dict[str, list[str]] = {}
    for cut, refusal in zip(cuts, refusals, strict=True):
        by_constraint.setdefault(refusal.partition(":")[0], []).append(f"{cut} ({refusal.partition(': ')[2]})")
    lines = [f"no cut satisfies the constraints ({len(cuts)} were weighed); loosen one of these:"]
    for constraint, ruled in by_constraint.items():
        shown = "; ".join(ruled[:3]) + (f"; and {len(ruled) - 3} more" if len(ruled) > 3 else "")
        lines.append(f"{constraint} rules out {len(ruled)}: {shown}.")
    return NoFeasiblePlan(*lines)


def too_slow(seconds: float, limit_s: float | None) -> str:
    """The refusal of a latency above the limit; empty within it. A link that is down is its own reason."""
    if not math.isfinite(seconds):
        return "link: it is down and something has to cross"
    if limit_s is not None and seconds > limit_s:
        return f"latency: {format_seconds(seconds)}, at most {format_seconds(limit_s)}"
    return ""


def _layers(constraints: Constraints, cut: Cut) -> str:
    if not (constraints.keep_on_edge or constraints.keep_off_edge):
        return ""
    edge = frozenset(cut.edge_layers)
    away = [name for name in constraints.keep_on_edge if name not in edge]
    if away:
        return f"keep on edge: {', '.join(away)} would run in the cloud"
    here = [name for name in constraints.keep_off_edge if name in edge]
    return f"keep off edge: {', '.join(here)} would run on the edge" if here else ""


def private_tensors(constraints: Constraints, graph: LayerGraph) -> frozenset[str]:
    """Names of the tensors that must not cross: private inputs, and integers without a scale made of them."""
    found = set(constraints.private)
    if found:
        for layer in graph.layers:
            if found.intersection(layer.inputs):
                found.update(one.name for one in layer.outputs if not (one.dtype.startswith("float") or one.scale))
    return frozenset(found)


def _private(private: frozenset[str], cut: Cut) -> str:
    leaving = [tensor.name for tensor in cut.up if tensor.name in private]
    return f"private: {', '.join(leaving)} would leave the edge" if leaving else ""


def _limit(name: str, found: int, most: int | None) -> str:
    return "" if most is None or found <= most else f"{name}: {format_bytes(found)}, at most {format_bytes(most)}"


def _accuracy(constraints: Constraints, cut: Cut) -> str:
    if constraints.max_accuracy_drop is None:
        return ""
    drop = constraints.accuracy_drop.get(cut.id)
    if drop is None:
        return "accuracy: not measured with this codec at this cut"
    if drop > constraints.max_accuracy_drop:
        return f"accuracy: drops by {drop:.4g}, at most {constraints.max_accuracy_drop:.4g}"
    return ""
