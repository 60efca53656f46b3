"""Run calibration samples through a prepared PT2E graph and set every observer's range as asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from converters.executorch.bias_correction import correct_biases
from converters.executorch.searched_scales import search_scales
from converters.quantize.clipping import chosen_range
from converters.quantize.ranges import HistogramObserver, Range
from edge_deploy.core.errors import BadInput
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["percentile_range", "set_ranges"]

BINS = 4096


def set_ranges(
    prepared: Any, clamps: Mapping[str, float], batches: Callable[[], Iterable[tuple[Any, ...]]], spec: QuantSpec
) -> None:
    """Calibrate `prepared` in place.

    Args:
        clamps: Upper bounds of relu nodes that stand for a clamp to [0, bound].
        batches: Gives all samples, once for each pass; all but min-max need a second pass over the range of the first.

    Raises:
        BadInput: There is no sample, or an activation is not finite.
    """
    import torch

    relus = [node for node in prepared.graph.nodes if node.name in clamps]
    for node in relus:
        node.target, node.args = torch.ops.aten.hardtanh.default, (node.args[0], 0.0, clamps[node.name])
    prepared.recompile()
    seen = 0
    for batch in batches():
        prepared(*batch)
        seen += 1
    if not seen:
        raise BadInput("calibration: holds no sample; give at least one.")
    if spec.range_method != "min-max":
        _clip(prepared, batches, spec)
    for name, observer in _observers(prepared):
        if not (torch.isfinite(observer.min_val).all() and torch.isfinite(observer.max_val).all()):
            raise BadInput(
                f"calibration: observer {name} saw no finite range; the model computes NaN or infinity, "
                "or a layer is never reached: check weights and preprocessing."
            )
    search_scales(prepared, batches())
    correct_biases(prepared, batches())
    for node in relus:
        node.target, node.args = torch.ops.aten.relu.default, (node.args[0],)
    prepared.recompile()


def _observers(prepared: Any) -> list[tuple[str, Any]]:
    """Activation observers, each once, although shared ones stand in several places."""
    from torchao.quantization.pt2e import MinMaxObserver

    found = {id(module): (name, module) for name, module in prepared.named_modules() if type(module) is MinMaxObserver}
    return list(found.values())


def _clip(prepared: Any, batches: Callable[[], Iterable[tuple[Any, ...]]], spec: QuantSpec) -> None:
    import torch

    observers = _observers(prepared)
    counts = {id(observer): np.zeros(BINS, np.int64) for _, observer in observers}

    def count(module: Any, arguments: tuple[Any, ...], _result: Any) -> None:
        values = arguments[0].detach().reshape(-1).double().numpy()
        low, high = float(module.min_val), float(module.max_val)
        if low < high:  # a constant, the 6 of a relu6(x + 3) / 6 for instance, has no tails
            counts[id(module)] += np.histogram(values.clip(low, high), BINS, (low, high))[0]

    hooks = [observer.register_forward_hook(count) for _, observer in observers]
    for batch in batches():
        prepared(*batch)
    for hook in hooks:
        hook.remove()
    for _, observer in observers:
        low, high = float(observer.min_val), float(observer.max_val)
        if spec.range_method == "percentile":
            low, high = percentile_range(counts[id(observer)], low, high, spec.percentile)
        else:
            seen = HistogramObserver(extremes=Range(low=low, high=high), counts=counts[id(observer)])
            found = chosen_range(seen, spec)
            low, high = found.low, found.high
        observer.min_val, observer.max_val = torch.tensor(low), torch.tensor(high)


def percentile_range(counts: np.ndarray, low: float, high: float, percentile: float) -> tuple[float, float]:
    """The range that holds the central `percentile` % of a histogram over [low, high]; both tails lose alike."""
    total = counts.sum()
    if total == 0 or high <= low:
        return low, high
    share = np.cumsum(counts) / total
    tail = (100.0 - percentile) / 200.0
    edges = np.linspace(low, high, len(counts) + 1)
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1.0 - tail, side="left"))
    return float(edges[min(first, len(counts) - 1)]), float(edges[min(last, len(counts) - 1) + 1])
