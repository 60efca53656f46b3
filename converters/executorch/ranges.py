"""Run calibration samples through a prepared PT2E graph and set every observer's range as asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from converters.compress.trained_layers import TrainedLayers
from converters.executorch import bias_correction, rounding, searched_scales
from converters.executorch.bias_correction import correct_biases
from converters.executorch.calibration import Samples
from converters.executorch.rounding import round_weights
from converters.executorch.searched_scales import search_scales
from converters.executorch.stacking import stacked
from converters.executorch.trained import set_trained
from converters.quantize.clipping import chosen_range
from converters.quantize.ranges import HistogramObserver, Range
from converters.quantize.tails import MOST_KEPT, TailObserver, tail_rank
from edge_deploy.core.errors import BadInput
from edge_deploy.core.passes import BIASES, ROUNDING
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["set_ranges"]


def set_ranges(
    prepared: Any,
    clamps: Mapping[str, float],
    samples: Samples,
    spec: QuantSpec,
    trained: TrainedLayers | None = None,
) -> None:
    """Calibrate `prepared` in place.

    Args:
        clamps: Upper bounds of relu nodes that stand for a clamp to [0, bound].
        samples: All of them set the ranges.
        trained: Scales that training learned win over what samples say.

    Raises:
        BadInput: There is no sample, or an activation is not finite.
    """
    import torch

    relus = [node for node in prepared.graph.nodes if node.name in clamps]
    for node in relus:
        node.target, node.args = torch.ops.aten.hardtanh.default, (node.args[0], 0.0, clamps[node.name])
    prepared.recompile()
    with stacked(prepared, samples) as together:
        _observe(prepared, together, spec)
        rounded: dict[Any, Any] = set_trained(prepared, trained) if trained is not None else {}
        if ROUNDING in spec.passes:
            some = together.batches(most=rounding.MOST_SAMPLES)
            rounded |= round_weights(prepared, some, min(samples.count, rounding.MOST_SAMPLES))
        search_scales(prepared, together.batches(most=searched_scales.MOST_SAMPLES), but=rounded)
        if BIASES in spec.passes:
            correct_biases(prepared, together.batches(most=bias_correction.MOST_SAMPLES), rounded)
    for node in relus:
        node.target, node.args = torch.ops.aten.relu.default, (node.args[0],)
    prepared.recompile()


def _observe(prepared: Any, samples: Samples, spec: QuantSpec) -> None:
    tails = _run_with_tails(prepared, samples, spec) if spec.range_method == "percentile" else {}
    if spec.range_method != "percentile":
        _run(prepared, samples)
    for name, observer in _observers(prepared):
        ends = (float(observer.min_val), float(observer.max_val))
        if not np.isfinite(ends).all():
            raise BadInput(
                f"calibration: observer {name} saw no finite range; the model computes NaN or infinity, "
                "or a layer is never reached: check weights and preprocessing."
            )
    if spec.range_method == "min-max":
        return
    if tails.keys() != {id(observer) for _, observer in _observers(prepared)}:
        _clip_by_histogram(prepared, samples, spec)
        return
    for _, observer in _observers(prepared):
        _set(observer, tails[id(observer)].range())


def _observers(prepared: Any) -> list[tuple[str, Any]]:
    """Activation observers, each once, although shared ones stand in several places."""
    from torchao.quantization.pt2e import MinMaxObserver

    found = {id(module): (name, module) for name, module in prepared.named_modules() if type(module) is MinMaxObserver}
    return list(found.values())


def _run(prepared: Any, samples: Samples) -> None:
    for batch in samples.batches():
        prepared(*batch)


def _run_with_tails(prepared: Any, samples: Samples, spec: QuantSpec) -> dict[int, TailObserver]:
    """Run all samples; the rarest values by the id of the observer that saw them, without those that are too many."""
    per_sample = _values_per_sample(prepared, samples)
    ranks = {key: tail_rank(spec.percentile, round(count * samples.count)) for key, count in per_sample.items()}
    tails = {key: TailObserver(rank=rank) for key, rank in ranks.items() if rank < MOST_KEPT}

    def see(observer: Any, values: np.ndarray) -> None:
        if id(observer) in tails:
            tails[id(observer)].see(values)

    with _watched(prepared, see):
        _run(prepared, samples)
    return tails


def _values_per_sample(prepared: Any, samples: Samples) -> dict[int, float]:
    found: dict[int, float] = {}

    def count(observer: Any, values: np.ndarray) -> None:
        found[id(observer)] = found.get(id(observer), 0.0) + values.size

    first = next(samples.batches(most=samples.batch))
    with _watched(prepared, count):
        prepared(*first)
    return {key: values / len(first[0]) for key, values in found.items()}


@contextmanager
def _watched(prepared: Any, see: Callable[[Any, np.ndarray], None]) -> Iterator[None]:
    """Call see(observer, values) whenever a value flows into an observer of activations."""

    def hook(observer: Any, arguments: tuple[Any, ...], _result: Any) -> None:
        see(observer, arguments[0].detach().numpy())

    hooks = [observer.register_forward_hook(hook) for _, observer in _observers(prepared)]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _clip_by_histogram(prepared: Any, samples: Samples, spec: QuantSpec) -> None:
    """A second pass over the samples, between the extremes that the first one saw."""
    histograms = {
        id(observer): HistogramObserver(extremes=Range(low=float(observer.min_val), high=float(observer.max_val)))
        for _, observer in _observers(prepared)
    }

    def see(observer: Any, values: np.ndarray) -> None:
        seen = histograms[id(observer)]
        seen.see(values.clip(seen.extremes.low, seen.extremes.high))

    with _watched(prepared, see):
        _run(prepared, samples)
    for _, observer in _observers(prepared):
        _set(observer, chosen_range(histograms[id(observer)], spec))


def _set(observer: Any, found: Range) -> None:
    import torch

    observer.min_val, observer.max_val = torch.tensor(found.low), torch.tensor(found.high)
