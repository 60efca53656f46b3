"""Scales of 4-bit weights: of some widths of the range, the one with the least error in the layer's outputs.

With sixteen values, clipping a few extremes pays in some channels and ruins others; which, depends on what the extremes
are multiplied with. So the error is measured behind the layer, on calibration samples. Its mean does not count, because
the bias takes it back.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from converters.executorch.layer_inputs import apply, observed_weights, visit_inputs
from converters.quantize.scale_search import weight_scales
from converters.quantize.uniform import symmetric_scales

__all__ = ["MOST_SAMPLES", "search_scales", "searched_scale_observer"]

MOST_SAMPLES = 32
SHARES = np.linspace(1.0, 0.5, 11)


@functools.cache
def searched_scale_observer() -> Any:
    """The class of the observer, for `QuantizationSpec`; it wants quant_min = -8 and quant_max = 7.

    PT2E hands on the axis of the channels only to classes with PerChannel in their name.
    """
    import torch
    from torchao.quantization.pt2e import PerChannelMinMaxObserver

    class PerChannelSearchedObserver(PerChannelMinMaxObserver):  # type: ignore[misc]  # its types are not read, see pyproject.toml
        """Gives the scales with the least squared error of the weights, or those that it was given since."""

        seen: Any = None
        scales: Any = None

        def forward(self, weight: Any) -> Any:
            """Calibration runs this for every batch; the weight stays the same."""
            if self.seen is None or not torch.equal(weight, self.seen):
                super().forward(weight)
                self.seen = weight.detach().clone()
                found = weight_scales(self.seen.numpy(), axis=self.ch_axis, bits=4, floor=float(self.eps))
                self.scales = torch.from_numpy(found)
            return weight

        def calculate_qparams(self) -> tuple[Any, Any]:
            """Scales, and zero points that are zero."""
            if self.scales is None:
                scales, zero_points = super().calculate_qparams()
                return scales, zero_points
            return self.scales, torch.zeros(len(self.scales), dtype=torch.int32)

    return PerChannelSearchedObserver


def search_scales(prepared: Any, batches: Iterable[tuple[Any, ...]], *, but: Collection[Any] = ()) -> int:
    """Give the observers of 4-bit weights in a calibrated PT2E graph their scales; returns how many layers have any.

    Args:
        batches: Calibration batches; `MOST_SAMPLES` samples are enough.
        but: Layers that have their scales already, by their node.
    """
    import torch

    layers = {
        node: (observer, weight)
        for node, (observer, weight) in observed_weights(prepared).items()
        if isinstance(observer, searched_scale_observer()) and node not in but
    }
    if not layers:
        return 0
    candidates = {node: _candidates(observer, weight) for node, (observer, weight) in layers.items()}
    sums: dict[Any, Any] = {}
    squares: dict[Any, Any] = {}
    counts: dict[Any, int] = {}

    def measure(node: Any, x: Any) -> None:
        observer, weight = layers[node]
        means, powers = [], []
        for scales in candidates[node]:
            values = apply(node, x, _rounded(observer, weight, scales) - weight)
            means.append(values.sum(0))
            powers.append(values.square().sum(0))
        counts[node] = counts.get(node, 0) + len(values)
        sums[node] = sums.get(node, 0) + torch.stack(means).double()
        squares[node] = squares.get(node, 0) + torch.stack(powers).double()

    visit_inputs(prepared, layers, batches, measure)
    for node, (observer, _) in layers.items():
        if node in counts:
            errors = squares[node] / counts[node] - (sums[node] / counts[node]).square()
            best = errors.argmin(0)
            observer.scales = torch.stack(candidates[node]).gather(0, best[None])[0]
    return len(counts)


def _candidates(observer: Any, weight: Any) -> list[Any]:
    import torch

    floor = float(observer.eps)
    widest = symmetric_scales(weight.numpy(), axis=observer.ch_axis, bits=4, floor=floor)
    return [torch.from_numpy(np.maximum(widest * share, floor).astype(np.float32)) for share in SHARES]


def _rounded(observer: Any, weight: Any, scales: Any) -> Any:
    import torch

    zero_points = torch.zeros(len(scales), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight, scales, zero_points, observer.ch_axis, observer.quant_min, observer.quant_max
    )
