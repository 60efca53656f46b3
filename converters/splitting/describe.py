"""The manifest of a half: what the parent's says of the layers, inputs and outputs that the half has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from converters.splitting.contracts import Half, Parent, WrittenCut
from converters.splitting.parent import real
from edge_deploy.core.artifact import Artifact, LayerFacts, LayerOutcome, SplitOrigin, Verification
from edge_deploy.core.cut import Cut
from edge_deploy.core.tensor import TensorInfo

__all__ = ["half_artifact", "whole_artifact"]


def half_artifact(parent: Parent, written: WrittenCut, half: Half) -> Artifact:
    """The manifest of one half, before it was compared with the whole."""
    artifact = parent.artifact
    head_outcomes, tail_outcomes = _shared_out(artifact.outcomes, written)
    first = half.signatures[0]
    return replace(
        artifact,
        name=f"{artifact.name}.{written.cut.id}.{half.side}",
        files=half.files,
        source_inputs=tuple(_source(artifact, info, "inputs") for info in first.inputs),
        source_outputs=tuple(_source(artifact, info, "outputs") for info in first.outputs),
        signatures=half.signatures,
        graph=half.graph,
        outcomes=head_outcomes if half.side == "head" else tail_outcomes,
        warnings=(*artifact.warnings, *half.notes),
        verification=Verification(),
        split=_origin(parent, written, half),
    )


def whole_artifact(parent: Parent, cut: Cut) -> Artifact:
    """The manifest of the parent itself, where the other half is empty."""
    origin = SplitOrigin(parent=parent.artifact.name, parent_digest=parent.digest, cut=cut.id, half="whole")
    return replace(parent.artifact, split=origin)


def _origin(parent: Parent, written: WrittenCut, half: Half) -> SplitOrigin:
    up = () if written.tail is None else tuple(info.name for info in written.tail.signatures[0].inputs)
    return SplitOrigin(
        parent=parent.artifact.name, parent_digest=parent.digest, cut=written.cut.id, half=half.side, up=up
    )


def _source(artifact: Artifact, info: TensorInfo, side: str) -> TensorInfo:
    """A half's input or output in the terms samples come in: the source model's own, or the real values that cross."""
    first = artifact.signatures[0]
    ours = first.inputs if side == "inputs" else first.outputs
    theirs = artifact.source_inputs if side == "inputs" else artifact.source_outputs
    by_name = {mine.name: theirs[place] for place, mine in enumerate(ours) if place < len(theirs)}
    named = {each.name: each for each in theirs}
    found = named.get(info.name) if side == "inputs" else None
    return found or by_name.get(info.name) or real(info)


def _shared_out(
    outcomes: Sequence[LayerOutcome], written: WrittenCut
) -> tuple[tuple[LayerOutcome, ...], tuple[LayerOutcome, ...]]:
    """Outcomes of either half: by layer name, and for tables that are stored as one under another name, in order, to
    the half that still has bytes of their width which no claim names.
    """
    halves = (written.head, written.tail)
    facts = [half.facts if half is not None else () for half in halves]
    names = [{layer.name for layer in half.graph.layers} if half is not None else set() for half in halves]
    claimed = {outcome.layer for outcome in outcomes}
    free = [_unclaimed(each, claimed) for each in facts]
    mine: tuple[list[LayerOutcome], list[LayerOutcome]] = ([], [])
    for outcome in outcomes:
        width = outcome.got.partition(" ")[0].rstrip(",")
        for place in (0, 1):
            # Not by the file's operators: a move at a border may bear the name of a layer of the other half.
            if outcome.layer in names[place]:
                mine[place].append(outcome)
                break
        else:
            place = 0 if free[0].get(width, 0) >= outcome.weight_bytes or written.tail is None else 1
            free[place][width] = free[place].get(width, 0) - outcome.weight_bytes
            mine[place].append(outcome)
    return tuple(mine[0]), tuple(mine[1])


def _unclaimed(facts: Sequence[LayerFacts], claimed: set[str]) -> dict[str, int]:
    free: dict[str, int] = {}
    for fact in facts:
        if fact.layer not in claimed and fact.weight_dtype is not None:
            free[fact.weight_dtype] = free.get(fact.weight_dtype, 0) + fact.weight_bytes
    return free
