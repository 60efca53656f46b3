"""Capture a PyTorch recommender whose tables stay in its checkpoint, whatever their size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from converters.contracts import Captured, CaptureRequest
from converters.loading.forward_call import bind, flat_module
from converters.loading.id_bounds import with_id_bounds
from converters.loading.input_shapes import settle
from converters.loading.torch_captured import takes_samples_apart
from converters.loading.torch_in_place import InPlace, module_in_place, places_of
from converters.loading.torch_program import describe_outputs, export_program, flatten_outputs, with_layout
from converters.recommender.hot_checkpoint import mark_hot_rows
from converters.recommender.model import load, save
from converters.recommender.trained import check_on_grid, load_trained, save_trained
from edge_deploy.core.errors import BadInput, EdgeDeployError
from edge_deploy.core.tensor import TensorInfo

__all__ = ["capture_streamed"]


def capture_streamed(request: CaptureRequest, folder: Path) -> Captured | None:
    """The recommender with its tables in place; None where this way does not lead to one, and the usual one may.

    Raises:
        BadInput: The checkpoint does not fit the module; trained scales do not fit its weights.
    """
    assert request.weights is not None
    try:
        found = module_in_place(request.source, request.search_path, request.weights, folder / "widened")
        has_limits = any(getattr(module, "max_norm", None) is not None for module in found.module.modules())
        return None if has_limits else _captured(request, folder, found)
    except BadInput:
        raise
    except (EdgeDeployError, RuntimeError, NotImplementedError):
        return None  # what cannot be done with mapped weights may be possible with weights in memory


def _captured(request: CaptureRequest, folder: Path, found: InPlace) -> Captured | None:
    from converters.passes.embedding_bag import rewrite_program
    from converters.recommender.recognise import recognise

    source, module = request.source, found.module.eval()
    binding = bind(source, module, request.inputs)
    declared = binding.inputs if request.batches == (1,) else tuple(map(_any_batch, binding.inputs))
    inputs = with_layout(settle(declared, request))
    if len({info.shape[0] for info in inputs}) > 1:
        return None  # the usual way says what is wrong
    batches = request.batches if inputs[0].shape[0] == -1 else (inputs[0].shape[0],)
    program = export_program(source, flat_module(module, binding), inputs, batches)
    if inputs[0].shape[0] == -1 and not takes_samples_apart(program, inputs):
        return None
    program = rewrite_program(program)
    outputs = describe_outputs(source, program, False)
    flatten_outputs(program)
    recognised = recognise(program, inputs)
    if recognised is None:
        return None
    model, arrays = recognised
    if any(table.robe is not None or table.hot is not None for table in model.tables):
        return None  # made small by training; the usual way has room for them
    places = places_of(arrays, found)
    tables = {table.weight for table in model.tables}
    in_place = {name: place for name, place in places.items() if name in tables}
    home = folder / "recommender"
    save(model, {name: array for name, array in arrays.items() if name not in in_place}, home, elsewhere=in_place)
    if found.scales:
        save_trained(mark_hot_rows(found.scales, home), model, home)
        check_on_grid(*load(home), load_trained(home))
    known = {info.name: info for info in model.inputs}
    informed = tuple(_informed(info, known.get(info.name)) for info in inputs)
    return Captured(
        name=source.rpartition(":")[2].replace(".", "-"),
        framework="torch",
        kind="recommender",
        folder=folder,
        inputs=with_id_bounds(program, informed),
        outputs=outputs,
        batches=batches,
        recommender=home,
        notes=(f"weights of {request.weights.name if request.weights else ''}, read in place", *found.notes),
        is_streamed=True,
    )


def _any_batch(info: TensorInfo) -> TensorInfo:
    return dataclasses.replace(info, shape=(-1, *info.shape[1:]))


def _informed(info: TensorInfo, known: TensorInfo | None) -> TensorInfo:
    if known is None:
        return info
    return dataclasses.replace(info, id_bounds=known.id_bounds or info.id_bounds)
