"""What the passes did to a float graph, kept beside the artifact: the graph that was quantized can be had again.

Layers of an equalised artifact have other weights and values than those of its source. Whoever compares layer by layer
takes the source through `restore_tflite` or `restore_graph` first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.samples import save_arrays
from edge_deploy.core.artifact import FileEntry
from edge_deploy.core.digest import file_sha256

__all__ = [
    "CHANGES",
    "Changes",
    "LayerFactors",
    "changes_entry",
    "is_folded",
    "read_changes",
    "restore_graph",
    "restore_tflite",
    "write_changes",
]

CHANGES = "passes.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFactors:
    """Of one layer with weights: it makes 1/rows of its channels, and takes columns times what it reads.

    Attributes:
        rows: One for each output channel; None leaves them.
        columns: One for each column of the weights of all groups (input channels, in the format's order).
    """

    rows: np.ndarray | None = None
    columns: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What was done.

    Attributes:
        is_folded: Scales and shifts by channel were folded into layers.
        factors: By layer name.
    """

    is_folded: bool
    factors: dict[str, LayerFactors] = field(default_factory=dict)


def write_changes(folder: Path, changes: Changes) -> None:
    """Keep them in the artifact's folder."""
    arrays = {"folded": np.array([changes.is_folded])}
    for layer, found in changes.factors.items():
        if found.rows is not None:
            arrays[f"rows/{layer}"] = found.rows
        if found.columns is not None:
            arrays[f"columns/{layer}"] = found.columns
    save_arrays(arrays, folder / CHANGES)


def read_changes(folder: Path) -> Changes | None:
    """What an artifact's folder keeps; None where the passes changed nothing."""
    if not (folder / CHANGES).exists():
        return None
    with np.load(folder / CHANGES, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    layers = dict.fromkeys(name.partition("/")[2] for name in arrays if "/" in name)
    return Changes(
        is_folded=bool(arrays["folded"][0]),
        factors={
            layer: LayerFactors(rows=arrays.get(f"rows/{layer}"), columns=arrays.get(f"columns/{layer}"))
            for layer in layers
        },
    )


def changes_entry(folder: Path) -> tuple[FileEntry, ...]:
    """The file for the manifest, where there is one."""
    path = folder / CHANGES
    if not path.exists():
        return ()
    return (FileEntry(path=CHANGES, role="other", bytes=path.stat().st_size, sha256=file_sha256(path)),)


def restore_tflite(model: Any, folder: Path) -> None:
    """Turn the prepared float model of an artifact's source into the one that was quantized, in place.

    Args:
        model: As `converters.tflite.quantizer.prepare` gives it.
        folder: The artifact.
    """
    from converters.passes.equalise_tflite import apply_factors
    from converters.passes.fold_tflite import fold_model

    changes = read_changes(folder)
    if changes is not None:
        if changes.is_folded:
            fold_model(model)
        apply_factors(model, changes.factors)


def restore_graph(graph: Any, folder: Path) -> None:
    """Turn the rewritten float graph of an artifact's source into the one that was quantized, in place.

    Args:
        graph: As `converters.executorch.rewrites.rewrite` gives it, with `fold=is_folded(folder)`.
        folder: The artifact.
    """
    from converters.passes.equalise_torch import apply_factors

    changes = read_changes(folder)
    if changes is not None:
        apply_factors(graph, changes.factors)


def is_folded(folder: Path) -> bool:
    """Whether batch norms of an exported program were folded for this artifact."""
    changes = read_changes(folder)
    return changes is None or changes.is_folded
