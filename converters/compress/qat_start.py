"""Where quantized training of a CNN begins: at weights that were rounded for the least error behind their layer.

Rounding each weight to the nearest of sixteen values costs far more than a few epochs win back; rounded with the
covariance of what each layer reads, and with the mean error taken out of the biases, training begins near the float
model (`converters.quantize.compensated`, after GPTQ).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.compress.qat_graph import QatNet
from converters.compress.qat_quantizers import SMALLEST
from converters.executorch.rounding import Watched
from converters.quantize.compensated import round_best
from converters.quantize.uniform import symmetric_scales
from edge_deploy.core.require import require

if TYPE_CHECKING:
    import torch

__all__ = ["start_rounded"]


def start_rounded(net: QatNet, batches: Iterable[torch.Tensor], count: int) -> None:
    """Set weights, scales and biases to start from; layers whose inputs are no columns keep theirs.

    Args:
        batches: Training samples as the graph takes them, `count` in all.
    """
    torch = require("torch", extra="run-executorch")
    layers = {name: layer for name, layer in net.layers.items() if layer.columns is not None}
    watched = {name: Watched(samples=count) for name in layers}
    for part in (*net.layers.values(), *net.ranges.values()):
        part.is_quantizing = False
    hooks = [layer.register_forward_pre_hook(_seen_by(watched[name], layer)) for name, layer in layers.items()]
    with torch.no_grad():
        for batch in batches:
            net.graph(batch)
    for hook in hooks:
        hook.remove()
    for part in (*net.layers.values(), *net.ranges.values()):
        part.is_quantizing = True
    for name, layer in layers.items():
        _begin(layer, watched[name])


def _seen_by(watched: Watched, layer: Any) -> Callable[[Any, tuple[Any, ...]], None]:
    return lambda _, given: watched.see(given[0], layer.columns)


def _begin(layer: Any, watched: Watched) -> None:
    torch = require("torch", extra="run-executorch")
    weight = layer.folded_float().double().numpy()
    rows = weight.reshape(layer.columns.groups, len(weight) // layer.columns.groups, -1)
    widest = symmetric_scales(weight, axis=0, bits=layer.bits)
    scales, stored = round_best(rows, widest, SMALLEST, watched.seen.covariances(), bits=layer.bits)
    assert watched.seen.sums is not None, "covariances() has seen patches"
    mean = watched.seen.sums / watched.seen.count
    error = stored * scales.reshape(*rows.shape[:2], 1).astype(np.float64) - rows
    shift = np.einsum("goc,gc->go", error, mean).reshape(-1)
    integers = torch.from_numpy(stored.reshape(weight.shape).astype(np.float32))
    layer.begin(torch.from_numpy(scales), integers, torch.from_numpy(shift.astype(np.float32)))
