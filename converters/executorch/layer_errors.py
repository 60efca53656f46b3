"""How far every layer of a quantized program is from the float program on the same samples, and its weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from converters.contracts import LowerRequest
from converters.executorch.traced import constant, is_quantized_lookup, layer_nodes, run_traced
from edge_deploy.core.layer_errors import LayerError, LayerErrors, WeightHistogram, snr_db, weight_histogram

__all__ = ["LARGEST_WEIGHT", "SAMPLES", "OutputErrors", "WeightErrors", "collected", "layer_errors", "weight_error"]

SAMPLES = 16
LARGEST_WEIGHT = 1 << 22  # elements; of larger tables evenly spaced rows are compared
WeightErrors = dict[str, tuple[float, WeightHistogram]]
_WEIGHT_AT = {"aten.conv": 1, "aten.linear": 1, "aten.embedding": 0}


def layer_errors(request: LowerRequest) -> LayerErrors:
    """Compare the float program of `request` with the `quantized.pt2` that lowering left in its folder.

    Layers match by name; those that are in one program only, or have another shape there, are left out.

    Raises:
        BadInput: A program cannot be read.
    """
    import torch

    from converters.executorch.lowering import QUANTIZED
    from converters.executorch.pointwise import pointwise_to_linear
    from converters.executorch.program import load_graph, load_program, tidy
    from converters.executorch.rewrites import rewrite
    from converters.passes.kept_changes import is_folded, restore_graph

    before = load_graph(request.captured)
    rewrite(before, fold=is_folded(request.folder))
    tidy(before)
    restore_graph(before, request.folder)
    after = load_program(request.folder / QUANTIZED).module(check_guards=False)
    linears = {name for name, node in layer_nodes(after).items() if node.target is torch.ops.aten.linear.default}
    pointwise_to_linear(before, linears)  # those that `after` computes so, in the same layout
    weights = _weight_errors(before, after)
    outputs = OutputErrors()
    if request.calibration is not None:
        outputs.compare(_traces(before, after, request))
    return collected(list(layer_nodes(after)), outputs, weights)


class OutputErrors:
    """Signal and noise of layers' outputs, summed over batches.

    Attributes:
        failure: Why the programs could not be run; empty when they could.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.failure = ""
        self._signal: dict[str, float] = {}
        self._noise: dict[str, float] = {}

    def compare(self, traces: Iterator[tuple[int, dict[str, np.ndarray], dict[str, np.ndarray]]]) -> None:
        """Add batches: the number of samples, and what each layer computes in float and quantized."""
        try:
            for samples, want, got in traces:
                self.samples += samples
                for name in want.keys() & got.keys():
                    self._add(name, want[name], got[name])
        except Exception as error:  # noqa: BLE001  # whatever an operator raises, the conversion has succeeded
            self.failure = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
            self._signal, self._noise = {}, {}

    def _add(self, name: str, want: np.ndarray, got: np.ndarray) -> None:
        got = _cut(got, want)
        if want.shape != got.shape or not want.size or not np.isfinite(want).all():
            return
        self._signal[name] = self._signal.get(name, 0.0) + float(np.square(want).sum())
        self._noise[name] = self._noise.get(name, 0.0) + float(np.square(want - got).sum())

    def snr_db(self) -> dict[str, float]:
        """By layer name."""
        return {name: snr_db(signal, self._noise[name]) for name, signal in self._signal.items()}


def collected(order: list[str], outputs: OutputErrors, weights: WeightErrors) -> LayerErrors:
    """What is known of the layers in `order`; those of which nothing is known are left out."""
    errors = outputs.snr_db()
    layers = tuple(
        LayerError(
            layer=name,
            snr_db=errors.get(name),
            weight_snr_db=weights[name][0] if name in weights else None,
            weights=weights[name][1] if name in weights else None,
        )
        for name in order
        if name in errors or name in weights
    )
    if errors:
        method = f"output of each layer on {outputs.samples} samples against the float program, simulated by PyTorch"
    else:
        method = f"weights; outputs could not be compared ({outputs.failure})" if outputs.failure else "weights"
    return LayerErrors(layers=layers, method=method)


def _traces(before: Any, after: Any, request: LowerRequest) -> Iterator[Any]:
    from converters.executorch.calibration import calibration_batches
    from converters.executorch.program import example_inputs

    captured = request.captured
    assert request.calibration is not None
    batch = int(example_inputs(captured.inputs, captured.batches)[0].shape[0])
    old, new = layer_nodes(before), layer_nodes(after)
    shared = [name for name in new if name in old]
    seen = 0
    for arguments in calibration_batches(request.calibration, captured.inputs, batch):
        want = run_traced(before, arguments, {name: old[name] for name in shared})
        got = run_traced(after, arguments, {name: new[name] for name in shared})
        yield batch, want, got
        seen += batch
        if seen >= SAMPLES:
            return


def _weight_errors(before: Any, after: Any) -> WeightErrors:
    old, new = layer_nodes(before), layer_nodes(after)
    found: WeightErrors = {}
    for name, node in new.items():
        operator = str(old[name].target) if name in old else ""
        slot = next((at for word, at in _WEIGHT_AT.items() if operator.startswith(word)), None)
        weight = None if slot is None else constant(before, old[name].args[slot])
        if slot is None or weight is None:
            continue
        want = weight.float().numpy()
        step = -(-want.size // LARGEST_WEIGHT)
        if is_quantized_lookup(node):
            got = _table_rows(after, node, step)
        elif (value := constant(after, node.args[slot])) is not None:
            got = value[::step].float().numpy()
        else:
            continue
        error = weight_error(want[::step], got)
        if error is not None:
            found[name] = error
    return found


def _table_rows(graph: Any, node: Any, step: int) -> np.ndarray:
    """Every `step`-th row of a quantized table as real values; 4-bit rows of odd width keep their padding."""
    rows, scales = (constant(graph, arg)[::step].numpy() for arg in node.args[:2])
    if "4bit" in str(node.target):
        rows = np.stack([rows >> 4, rows & 15], axis=-1).reshape(len(rows), -1).astype(np.float32) - 8
    real: np.ndarray = rows.astype(np.float32) * scales.astype(np.float32).reshape(len(rows), -1)
    return real


def weight_error(want: np.ndarray, got: np.ndarray) -> tuple[float, WeightHistogram] | None:
    """SNR and histogram of weights before and after; None when they are not the same weights."""
    want, got = want.astype(np.float64), _cut(got.astype(np.float64), want)
    if want.shape != got.shape or not want.size:
        return None
    return snr_db(float(np.square(want).sum()), float(np.square(want - got).sum())), weight_histogram(want, got)


def _cut(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Without the zeros that quantization appends to odd widths."""
    if got.ndim != want.ndim or any(
        have - need not in (0, 1) for have, need in zip(got.shape, want.shape, strict=True)
    ):
        return got
    return got[tuple(slice(size) for size in want.shape)]
