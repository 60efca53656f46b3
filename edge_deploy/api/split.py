"""Split an artifact, or a `.tflite` from anywhere, into runnable halves for the edge and the cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters import split as splitting
from converters.splitting.contracts import Parent
from edge_deploy.api.convert import refuse_foreign_folder
from edge_deploy.core.dataset import check_samples
from edge_deploy.core.tensor import encode_input

__all__ = ["split"]

EVALUATION_SAMPLES = 64


def split(
    source: Path | str,
    *,
    cuts: Sequence[str] = (),
    edge_layers: Sequence[str] | None = None,
    all_cuts: bool = False,
    out: Path | str,
    check: bool = True,
    evaluate: Path | str | None = None,
    evaluate_limit: int = EVALUATION_SAMPLES,
    force: bool = False,
    progress: Callable[[str], None] = lambda stage: None,
) -> splitting.Split:
    """Write `out/<cut id>/head` and `out/<cut id>/tail`, each an artifact of its own.

    Args:
        source: An artifact folder, or a `.tflite` file.
        cuts: Ids of cuts, as `edge-deploy cuts` lists them; those of prefixes of the layers are found.
        edge_layers: One more cut, by the names of its edge layers: for cuts that are no prefix.
        all_cuts: Every legal prefix as well; those that are not legal are told in the result.
        check: Run head, then tail, against the whole, on seeded random inputs and on `evaluate`.
        evaluate: An npz or a data set description.
        evaluate_limit: Use at most so many of its samples.

    Raises:
        BadInput: The artifact is damaged, or a cut or a layer is not known.
        Unsupported: A cut lies inside a fused pattern, or a half cannot be had.
        ToolchainError: Lowering or running a half failed.
        VerificationFailed: Only integers cross, and head then tail do not give the whole's outputs bit for bit.
    """
    out = Path(out)
    refuse_foreign_folder(out, force=force)
    parent = splitting.open_parent(Path(source))
    chosen, refused = splitting.choose_cuts(parent, ids=cuts, edge_layers=edge_layers, every=all_cuts)
    samples = None if evaluate is None else Path(evaluate)
    feeds = None if samples is None else lambda whole: _feeds(whole, samples, evaluate_limit)
    return splitting.split(
        parent, chosen, out, refused=refused, check=check, feeds=feeds, force=force, progress=progress
    )


def _feeds(parent: Parent, path: Path, limit: int) -> dict[str, list[Any]]:
    """Samples as the first signature takes them, a batch at a time; the last batch repeats the last sample."""
    from edge_deploy.zoo.datasets import open_dataset
    from edge_deploy.zoo.description import find_description

    artifact = parent.artifact
    sources = artifact.source_inputs
    dataset = open_dataset(find_description(path), inputs=sources, limit=limit)
    check_samples(dataset, sources)
    arrays: dict[str, list[np.ndarray]] = {info.name: [] for info in sources}
    for sample in dataset:
        for name in arrays:
            arrays[name].append(np.asarray(sample.inputs[name]))
    signature = artifact.signatures[0]
    by_name = {info.name: info for info in sources}
    encoded = {
        info.name: encode_input(np.stack(arrays[info.name]), source=by_name[info.name], target=info)
        for info in signature.inputs
    }
    count = len(next(iter(encoded.values())))
    batch = max(signature.inputs[0].shape[0], 1)
    rows = [np.arange(start, start + batch).clip(max=count - 1) for start in range(0, count, batch)]
    return {signature.name: [{name: array[each] for name, array in encoded.items()} for each in rows]}
