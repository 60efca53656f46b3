"""From a torch program to a `Captured`: rewritten, recognised, saved; and run as float."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.contracts import Captured
from converters.loading.float_run import run_feeds
from converters.loading.torch_program import check_finite, describe_outputs, flatten_outputs, kind_of, load_program
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["finish", "run_program"]


def finish(
    source: str,
    name: str,
    program: ExportedProgram,
    *,
    inputs: tuple[TensorInfo, ...],
    batches: tuple[int, ...],
    folder: Path,
    notes: tuple[str, ...] = (),
) -> Captured:
    """Rewrite, recognise and save the program.

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
    path = folder / "program.pt2"
    torch.export.save(program, path)
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
        notes=notes,
    )


def run_program(captured: Captured, feeds: Path, answers: Path) -> None:
    """Run the saved program in eager mode; see `converters.contracts.Source.run_float`.

    Raises:
        BadInput: The feeds do not fit the program's inputs.
    """
    torch = require("torch", extra="export-tflite")
    pytree = require("torch.utils._pytree", extra="export-tflite")
    assert captured.program is not None
    module = load_program(captured.program).module(check_guards=False)

    def call(arrays: list[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            answer: Any = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
        return [tensor.numpy() for tensor in pytree.tree_leaves(answer)]

    run_feeds(
        call,
        inputs=captured.inputs,
        outputs=captured.outputs,
        feeds=feeds,
        answers=answers,
        largest_batch=max(captured.batches),
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
        dataclasses.replace(info, id_bounds=known[info.name].id_bounds) if info.name in known else info
        for info in inputs
    )
    return folder, informed
