"""One trial of a set of passes on TFLite: lower, run on held samples, and run the float file on the same."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from converters.contracts import LowerRequest
from converters.tflite.calibrate import load_samples
from converters.tflite.flatbuffer import read_model
from converters.tflite.signatures import describe, match_inputs
from edge_deploy.core.errors import ToolchainError
from edge_deploy.core.passes import PassRecord
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo, dequantize_output, encode_input

__all__ = ["try_out"]

_answers: dict[tuple[Path, Path], dict[str, np.ndarray]] = {}


def try_out(
    request: LowerRequest, held: Path, *, float_file: Path, file_inputs: tuple[TensorInfo, ...]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[PassRecord, ...]]:
    """Outputs of the float file and of what the target makes of it, by name, and what was done.

    Args:
        held: npz in the source's terms.
        file_inputs: The source's inputs as the file has them.
    """
    target = import_module("converters.targets.tflite")
    lowered = target.lower(request)
    samples = load_samples(held)
    sources = request.captured.inputs
    if (float_file, held) not in _answers:
        _answers.clear()  # one model at a time
        _answers[float_file, held] = _outputs(float_file, samples, sources, file_inputs)
    got = _outputs(request.folder / "model.tflite", samples, sources, file_inputs)
    want = _answers[float_file, held]
    return want, dict(zip(want, got.values(), strict=True)), lowered.passes


def _outputs(
    path: Path, samples: dict[str, np.ndarray], sources: tuple[TensorInfo, ...], file_inputs: Sequence[TensorInfo]
) -> dict[str, np.ndarray]:
    """Of the first signature, real values [samples, ...] in its order of outputs."""
    runtime = require("ai_edge_litert.interpreter", extra="run-tflite")
    signature = describe(read_model(path), tuple(file_inputs), ())[0]
    feeding = match_inputs(signature, sources)
    try:
        interpreter = runtime.Interpreter(str(path), num_threads=1)
        runner = interpreter.get_signature_runner(signature.name)
        batch = max([1, *(info.shape[0] for info in signature.inputs if info.shape)])
        count = len(next(iter(samples.values())))
        found: dict[str, list[np.ndarray]] = {info.name: [] for info in signature.outputs}
        for start in range(0, count, batch):
            rows = np.arange(start, start + batch).clip(max=count - 1)
            feeds = {
                info.name: encode_input(samples[feeding[info.name].name][rows], source=feeding[info.name], target=info)
                for info in signature.inputs
            }
            answer = runner(**feeds)
            for info in signature.outputs:
                found[info.name].append(dequantize_output(answer[info.name], info)[: min(batch, count - start)])
    except (ValueError, RuntimeError) as error:
        raise ToolchainError(f"trial of {path.name} with LiteRT: {error}") from error
    return {name: np.concatenate(parts) for name, parts in found.items()}
