"""PyTorch modules named as "package.module:factory" become a program; factories are trusted code: they run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from converters.contracts import Captured, CaptureRequest
from converters.loading.checkpoint import load_weights_and_scales
from converters.loading.forward_call import bind, flat_module
from converters.loading.input_shapes import settle
from converters.loading.torch_captured import batched_program, finish, run_program, takes_samples_apart
from converters.loading.torch_factory import is_factory, make_module
from converters.loading.torch_program import export_program, with_layout
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.tensor import TensorInfo

__all__ = ["WARM", "accepts", "capture", "is_large", "run_float"]

WARM = ("torch",)
"""What a process that captures may import before it is asked to."""


def accepts(request: CaptureRequest) -> bool:
    """Whether the source reads as package.module:factory and is no file."""
    return is_factory(request.source) and not Path(request.source).exists()


def is_large(request: CaptureRequest) -> bool:
    """Whether the checkpoint holds tables that had better stay where they are."""
    if request.weights is None:
        return False
    from converters.loading.torch_in_place import has_large_tables

    return has_large_tables(request.weights)


def capture(request: CaptureRequest, folder: Path) -> Captured:
    """Import, call the factory, load the weights, export.

    Raises:
        BadInput: Import, factory, weights or declared inputs are not what they must be.
        Unsupported: The module cannot be exported as a graph, by the reason torch gives.
        ToolchainError: torch.export failed otherwise.
    """
    if is_large(request):
        from converters.loading.torch_streamed import capture_streamed

        streamed = capture_streamed(request, folder)
        if streamed is not None:
            return streamed
    source = request.source
    module = make_module(source, request.search_path).eval()
    notes = ["float weights of the factory itself; no --weights given"]
    scales: dict[str, np.ndarray] = {}
    if request.weights is not None:
        told, scales = load_weights_and_scales(module, request.weights)
        notes = [f"weights of {request.weights.name}", *told]
    from converters.passes.embedding_bag import limit_norms

    module = limit_norms(module).eval()
    binding = bind(source, module, request.inputs)
    # Sizes asked for by --batch win over the batch that stands in the declared shapes.
    declared = binding.inputs if request.batches == (1,) else _any_batch(binding.inputs)
    inputs = with_layout(settle(declared, request))
    if len({info.shape[0] for info in inputs}) > 1:
        found = ", ".join(f"{info.name}: {info.shape[0]}" for info in inputs)
        raise BadInput(f"--input: the batch, first in every shape, differs ({found}): must be the same everywhere.")
    batches = request.batches if inputs[0].shape[0] == -1 else (inputs[0].shape[0],)
    flat = flat_module(module, binding)
    program = export_program(source, flat, inputs, batches)
    if inputs[0].shape[0] == -1 and not takes_samples_apart(program, inputs):
        raise Unsupported(
            f"{source}: samples of one batch change each other's outputs, as offsets of embedding bags do, which count "
            "over the batch; take --batch 1, or make the bags from [batch, length] ids."
        )
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    batched = batched_program(source, flat, inputs, weight_bytes) if inputs[0].shape[0] == 1 else None
    name = source.rpartition(":")[2].replace(".", "-")
    captured = finish(
        source, name, program, inputs=inputs, batches=batches, folder=folder, batched=batched, notes=tuple(notes)
    )
    if scales:
        _keep_scales(source, captured, scales)
    return captured


def run_float(captured: Captured, feeds: Path, answers: Path) -> None:
    """Run the exported program in eager mode.

    Raises:
        BadInput: The feeds do not fit.
    """
    if captured.is_streamed:
        from converters.loading.recommender_run import run_stored

        run_stored(captured, feeds, answers)
    else:
        run_program(captured, feeds, answers)


def _keep_scales(source: str, captured: Captured, scales: dict[str, np.ndarray]) -> None:
    from converters.recommender.hot_checkpoint import mark_hot_rows
    from converters.recommender.model import load
    from converters.recommender.trained import check_on_grid, load_trained, save_trained

    if captured.recommender is None:
        raise Unsupported(
            f"{source}: its checkpoint carries trained scales ({next(iter(scales))}, ...), which are stored for "
            "recommenders only, and this model is not recognised as one; leave them out of the checkpoint."
        )
    model, arrays = load(captured.recommender)
    save_trained(mark_hot_rows(scales, captured.recommender), model, captured.recommender)
    model, arrays = load(captured.recommender)
    check_on_grid(model, arrays, load_trained(captured.recommender))


def _any_batch(inputs: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    return tuple(dataclasses.replace(info, shape=(-1, *info.shape[1:])) for info in inputs)
