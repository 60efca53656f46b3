"""From a torch program to a `Captured`: rewritten, recognised, saved; and run as float."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.contracts import Captured
from converters.loading.float_run import BATCH, run_feeds
from converters.loading.id_bounds import with_id_bounds
from converters.loading.torch_program import (
    check_finite,
    describe_outputs,
    export_program,
    flatten_outputs,
    kind_of,
    load_program,
)
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

__all__ = ["batched_program", "finish", "run_program", "takes_samples_apart"]

LARGEST_COPY_BYTES = 256 * 2**20


def finish(
    source: str,
    name: str,
    program: ExportedProgram,
    *,
    inputs: tuple[TensorInfo, ...],
    batches: tuple[int, ...],
    folder: Path,
    batched: ExportedProgram | None = None,
    notes: tuple[str, ...] = (),
) -> Captured:
    """Rewrite, recognise and save the program.

    Args:
        batched: The same program for any batch, from `batched_program`; what float runs use.

    Raises:
        BadInput: A weight is NaN or infinite.
        Unsupported: An embedding bag cannot be rewritten exactly; an output is no tensor.
    """
    torch = require("torch", extra="export-tflite")
    from converters.passes.embedding_bag import rewrite_program

    check_finite(source, program)
    program = rewrite_program(program)
    is_image = any(info.layout == "NCHW" for info in inputs)
    outputs = describe_outputs(source, program, is_image)
    flatten_outputs(program)
    kind = kind_of(program)
    recommender = None
    if kind != "cnn":
        recommender, inputs = _recognise(program, inputs, folder / "recommender")
    inputs = with_id_bounds(program, inputs)
    path = folder / "program.pt2"
    torch.export.save(program, path)
    state = None
    if batched is not None:
        state = folder / "batched.pt2"
        torch.export.save(batched, state)
    return Captured(
        name=name,
        framework="torch",
        kind="recommender" if recommender is not None else kind,
        folder=folder,
        inputs=inputs,
        outputs=outputs,
        batches=batches,
        program=path,
        recommender=recommender,
        state=state,
        notes=notes,
    )


def batched_program(
    source: str, module: nn.Module, inputs: tuple[TensorInfo, ...], weight_bytes: int
) -> ExportedProgram | None:
    """The module exported for batches up to 64, so that a float run over a data set takes minutes less.

    None where it serves one batch size only, or is so large that a second copy on disk is not worth it.
    """
    if weight_bytes > LARGEST_COPY_BYTES:
        return None
    any_batch = tuple(dataclasses.replace(info, shape=(-1, *info.shape[1:])) for info in inputs)
    try:
        program = export_program(source, module, any_batch, (1, BATCH))
    except EdgeDeployError:
        return None  # no loss: float runs go sample by sample then
    return program if takes_samples_apart(program, any_batch) else None


def takes_samples_apart(program: ExportedProgram, inputs: tuple[TensorInfo, ...]) -> bool:
    """Whether samples of one batch leave each other alone; offsets of bags, which count over the batch, do not."""
    torch = require("torch", extra="export-tflite")
    leaves = require("torch.utils._pytree", extra="export-tflite").tree_leaves
    module, generator = program.module(check_guards=False), torch.Generator().manual_seed(0)
    tensors = [
        torch.randn((2, *info.shape[1:]), generator=generator)
        if info.dtype.startswith("float")
        else torch.zeros((2, *info.shape[1:]), dtype=getattr(torch, info.dtype))
        for info in inputs
    ]
    with torch.no_grad():
        together = leaves(module(*tensors))
        alone = [leaves(module(*(tensor[row : row + 1] for tensor in tensors))) for row in range(2)]
    pairs = [
        (whole.reshape(-1).double(), torch.cat([part.reshape(-1) for part in parts]).double())
        for whole, *parts in zip(together, *alone, strict=True)
    ]
    return all(
        one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
        for one, other in pairs
    )


def run_program(captured: Captured, feeds: Path, answers: Path) -> None:
    """Run the saved program in eager mode; see `converters.contracts.Source.run_float`.

    Raises:
        BadInput: The feeds do not fit the program's inputs.
    """
    torch = require("torch", extra="export-tflite")
    pytree = require("torch.utils._pytree", extra="export-tflite")
    assert captured.program is not None
    inputs = captured.inputs
    if captured.state is not None:
        inputs = tuple(dataclasses.replace(info, shape=(-1, *info.shape[1:])) for info in inputs)
    elif inputs[0].shape[0] == 1:
        torch.set_num_threads(1)  # threads that wait for each other cost more than single samples gain by them
    module = load_program(captured.state or captured.program).module(check_guards=False)

    def call(arrays: list[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            answer: Any = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
        return [tensor.numpy() for tensor in pytree.tree_leaves(answer)]

    run_feeds(
        call,
        inputs=inputs,
        outputs=captured.outputs,
        feeds=feeds,
        answers=answers,
        largest_batch=BATCH if captured.state is not None else max(captured.batches),
    )


def _recognise(
    program: ExportedProgram, inputs: tuple[TensorInfo, ...], folder: Path
) -> tuple[Path | None, tuple[TensorInfo, ...]]:
    """Folder of the recommender, None where the structure is another; inputs with what it knows of them."""
    try:
        from converters.recommender.recognise import recognise
    except ImportError:
        return None, inputs
    from converters.recommender.model import save

    found = recognise(program, inputs)
    if found is None:
        return None, inputs
    model, arrays = found
    save(model, arrays, folder)
    known = {info.name: info for info in model.inputs}
    informed = tuple(
        dataclasses.replace(info, id_bounds=known[info.name].id_bounds or info.id_bounds)
        if info.name in known
        else info
        for info in inputs
    )
    return folder, informed
