"""A DLRM given as arrays alone (safetensors, .npy, torch.save), of any size: no framework, and no table in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from converters.contracts import Captured, CaptureRequest
from converters.loading.checkpoint import TRAINED
from converters.loading.dlrm_arrays import Description, dlrm_of, is_description, read_description
from converters.loading.recommender_run import run_stored
from converters.loading.weight_index import index_weights
from converters.recommender.hot_checkpoint import mark_hot_rows
from converters.recommender.model import Recommender, load, save
from converters.recommender.rows import StoredArray, map_array
from converters.recommender.trained import check_on_grid, load_trained, save_trained
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["accepts", "capture", "is_large", "run_float", "save_stored"]


def accepts(request: CaptureRequest) -> bool:
    """Whether the source is a description, a safetensors file or its index, or a folder of arrays."""
    path = Path(request.source)
    if path.is_dir():
        return any(path.glob("*.npy")) or any(path.glob("*.safetensors"))
    return path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json") or is_description(path)


def is_large(request: CaptureRequest) -> bool:
    """Whether the conversion should hold as little as possible in memory; always, as nothing is lost by it."""
    return True


def capture(request: CaptureRequest, folder: Path) -> Captured:
    """Read names and shapes, and leave the tables where they are.

    Raises:
        BadInput: Damaged files, or arrays that are none of a DLRM.
    """
    path = Path(request.source)
    wish = Description()
    weights = request.weights or path
    if is_description(path):
        wish = read_description(path)
        if request.weights is None:
            if not wish.weights:
                raise BadInput(f"{path}: names no weights = ...; add it, or pass --weights.")
            weights = path.parent / wish.weights
    arrays = index_weights(weights)
    beside = {name: np.array(map_array(arrays.pop(name))) for name in list(arrays) if name.endswith(TRAINED)}
    model, stored = dlrm_of(arrays, wish, where=path.name)
    model = _with_batches(model, request.batches)
    save_stored(model, stored, folder / "recommender")
    if beside:
        _keep_scales(beside, model, folder / "recommender")
    return Captured(
        name=path.stem.removesuffix(".safetensors.index"),
        framework="torch",
        kind="recommender",
        folder=folder,
        inputs=model.inputs,
        outputs=(model.output,),
        batches=request.batches,
        recommender=folder / "recommender",
        notes=(f"weights of {weights.name}, read in place", _order(model)),
        is_streamed=True,
    )


def run_float(captured: Captured, feeds: Path, answers: Path) -> None:
    """Compute the structure in NumPy.

    Raises:
        BadInput: The feeds do not fit.
    """
    run_stored(captured, feeds, answers)


def save_stored(model: Recommender, stored: dict[str, StoredArray], folder: Path) -> None:
    """Write the structure with its layers; the tables stay in their files."""
    tables = {table.weight: stored[table.weight] for table in model.tables}
    small = {name: np.asarray(map_array(array), np.float32) for name, array in stored.items() if name not in tables}
    save(model, small, folder, elsewhere=tables)


def _keep_scales(beside: dict[str, np.ndarray], model: Recommender, home: Path) -> None:
    save_trained(mark_hot_rows(beside, home), model, home)
    check_on_grid(*load(home), load_trained(home))


def _with_batches(model: Recommender, batches: tuple[int, ...]) -> Recommender:
    if len(batches) > 1:
        return model
    inputs = tuple(_sized(info, batches[0]) for info in model.inputs)
    return dataclasses.replace(model, inputs=inputs, output=_sized(model.output, batches[0]))


def _sized(info: TensorInfo, batch: int) -> TensorInfo:
    return dataclasses.replace(info, shape=(batch, *info.shape[1:]))


def _order(model: Recommender) -> str:
    names = [table.name for table in model.tables]
    shown = ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]}, ..., {names[-1]}"
    return f"column k of {model.lookups[0].input} looks up table k, in the order {shown}"
