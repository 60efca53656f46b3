"""List the cuts of an artifact: what crosses where, and where none can be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_deploy.core.digest import file_sha256
from edge_deploy.core.early_exit import EarlyExit
from edge_deploy.core.early_order import outputs_early
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.layer_graph import LayerGraph
from partitioner.candidates import Candidate, fix_batch, prefixes
from runtimes.folder import read_artifact

__all__ = ["CutList", "ModelToCut", "list_cuts", "model_to_cut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelToCut:
    """What planning needs of a model.

    Attributes:
        sha256: Of the model file.
        exits: By layer name: share of requests that its output answers, as fitted (`edge-deploy exits fit`).
        graph: With the batch fixed, and every output made as early as it can be.
    """

    name: str
    format: str
    sha256: str
    graph: LayerGraph
    exits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutList:
    """Every position in the topological order of one model.

    Attributes:
        macs: Multiply-accumulates of the whole; `weight_bytes` likewise.
    """

    artifact: str
    format: str
    sha256: str
    macs: int
    weight_bytes: int
    cuts: tuple[Candidate, ...]


def list_cuts(artifact: Path | str, *, batch: int = 1) -> CutList:
    """All prefixes of the artifact's layers as cuts, illegal ones with their reasons.

    Raises:
        BadInput: Not an artifact folder or a `.tflite` file, or damaged.
        Unsupported: A bare `.pte`.
    """
    model = model_to_cut(artifact, batch=batch)
    return CutList(
        artifact=model.name,
        format=model.format,
        sha256=model.sha256,
        macs=model.graph.macs,
        weight_bytes=model.graph.weight_bytes,
        cuts=prefixes(model.graph),
    )


def model_to_cut(artifact: Path | str, *, batch: int = 1) -> ModelToCut:
    """The layers of an artifact folder (its manifest is enough) or of a `.tflite` file from anywhere.

    Raises:
        BadInput: Not an artifact folder or a `.tflite` file, or damaged.
        Unsupported: A bare `.pte`, which does not tell its layers.
    """
    path = Path(artifact)
    if batch < 1:
        raise BadInput(f"batch = {batch}: must be at least 1.")
    if path.is_file() and path.suffix == ".tflite":
        from runtimes.formats.tflite import read_graph

        graph = outputs_early(fix_batch(read_graph(path), batch))
        return ModelToCut(name=path.stem, format="tflite", sha256=file_sha256(path), graph=graph)
    if path.is_file() and path.suffix == ".pte":
        raise Unsupported(f"{path}: a bare .pte does not tell its layers; give the artifact's folder.")
    if path.is_file():
        raise BadInput(f"{path}: must be an artifact's folder or a .tflite file.")
    found = read_artifact(path)
    return ModelToCut(
        name=found.name,
        format=found.format,
        sha256=found.model_file.sha256,
        graph=outputs_early(fix_batch(found.graph, batch)),
        exits=_shares(found.exits),
    )


def _shares(exits: Sequence[EarlyExit]) -> dict[str, float]:
    """Of requests that end at each exit and at none before it."""
    found: dict[str, float] = {}
    before = 0.0
    for each in sorted(exits, key=lambda each: each.share):
        if each.layer:
            found[each.layer] = each.share - before
            before = each.share
    return found
