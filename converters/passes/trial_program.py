"""One trial of a set of passes on ExecuTorch: the float and the quantized program, both run by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.contracts import Captured, LowerRequest
from converters.executorch.calibration import Samples
from converters.executorch.program import example_inputs, export, load_graph
from converters.executorch.routes import quantize_program
from converters.executorch.stacking import stacked
from edge_deploy.core.errors import ToolchainError
from edge_deploy.core.passes import EQUALISE, FOLD, PassRecord
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.tensor import TensorInfo, dequantize_output, encode_input

__all__ = ["try_program"]

# Of the last trial: trials of one model come one after another.
_answers: dict[tuple[Path, Path], dict[str, np.ndarray]] = {}
_programs: dict[tuple[Path, Path | None, QuantSpec], Any] = {}


def try_program(
    request: LowerRequest, held: Path, prepare: Callable[[LowerRequest], Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[PassRecord, ...]]:
    """Outputs of the captured float program and of the quantized one, by name, and what was done.

    Args:
        held: npz in the source's terms.
        prepare: Makes the float program of a request, with all that is decided before it is quantized; trials that
            differ only behind it share it.

    Raises:
        ToolchainError: PyTorch cannot run one of the programs.
    """
    captured, spec = request.captured, request.spec
    early = replace(spec, passes=tuple(name for name in spec.passes if name in (FOLD, EQUALISE)))
    key = (captured.folder, request.calibration, early)
    if key not in _programs:
        _programs.clear()
        _programs[key] = prepare(request)
    ready = _programs[key]
    asked = replace(ready.request, spec=replace(ready.request.spec, passes=spec.passes), folder=request.folder)
    made = quantize_program(ready.program, ready.choices, asked)
    return *_both(captured, made, held), ready.passes


def _both(captured: Captured, made: Any, held: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    if (captured.folder, held) not in _answers:
        _answers.clear()  # one model at a time
        program = export(load_graph(captured), captured.inputs, captured.batches)
        _answers[captured.folder, held] = _outputs(program, captured, captured.inputs, captured.outputs, held)
    return _answers[captured.folder, held], _outputs(made.program, captured, made.inputs, made.outputs, held)


def _outputs(
    program: Any, captured: Captured, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], held: Path
) -> dict[str, np.ndarray]:
    import torch

    batch = int(example_inputs(captured.inputs, captured.batches)[0].shape[0])
    samples = Samples(path=held, inputs=captured.inputs, batch=batch)
    module = program.module(check_guards=False)
    found: dict[str, list[np.ndarray]] = {info.name: [] for info in captured.outputs}
    try:
        as_given = stacked(module, samples) if inputs == captured.inputs else nullcontext(samples)
        with torch.no_grad(), as_given as together:
            for arguments in together.batches():
                feeds = [
                    torch.from_numpy(encode_input(given.numpy(), source=source, target=info))
                    for given, source, info in zip(arguments, captured.inputs, inputs, strict=True)
                ]
                answer = module(*feeds)
                values = answer if isinstance(answer, (tuple, list)) else (answer,)
                for source, info, value in zip(captured.outputs, outputs, values, strict=True):
                    found[source.name].append(dequantize_output(value.numpy(), info))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ToolchainError(f"trial of {captured.name} with PyTorch: {type(error).__name__}: {error}") from error
    return {name: np.concatenate(parts)[: samples.count] for name, parts in found.items()}
