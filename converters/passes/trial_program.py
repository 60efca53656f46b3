"""One trial of a set of passes on ExecuTorch: the float and the quantized program, both run by PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.contracts import Captured
from converters.executorch.calibration import Samples
from converters.executorch.program import example_inputs, export, load_graph
from edge_deploy.core.errors import ToolchainError
from edge_deploy.core.tensor import TensorInfo, dequantize_output, encode_input

__all__ = ["outputs_of"]

_answers: dict[tuple[Path, Path], dict[str, np.ndarray]] = {}


def outputs_of(captured: Captured, made: Any, held: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs of the captured float program and of the quantized one, by name.

    Args:
        made: As `converters.executorch.routes.quantize_program` gives it.
        held: npz in the source's terms.

    Raises:
        ToolchainError: PyTorch cannot run one of them.
    """
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
        with torch.no_grad():
            for arguments in samples.batches():
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
