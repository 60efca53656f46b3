"""Weights of a calibrated PT2E graph rounded for the least error behind their layer, instead of each to the nearest.

The numeric part is shared with TFLite, see `converters.quantize.compensated`; here stands how a torch layer's weights
and inputs become rows and patches. PT2E is then given weights that its scales represent exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.executorch.layer_inputs import observed_weights, visit_inputs
from converters.executorch.program import set_attribute
from converters.executorch.searched_scales import searched_scale_observer
from converters.quantize.compensated import round_best
from converters.quantize.patch_sums import PATCHES, PatchSums
from converters.quantize.uniform import symmetric_scales
from edge_deploy.core.digest import sample_sha256

__all__ = ["MOST_SAMPLES", "Columns", "Watched", "columns_of", "round_weights"]

MOST_SAMPLES = 512


def round_weights(prepared: Any, batches: Iterable[tuple[Any, ...]], count: int) -> dict[Any, Any]:
    """Give the layers of a calibrated graph weights and scales with the least error left, in place.

    Layers whose inputs are seen as columns take part: convolutions and linears; transposed convolutions do not.

    Args:
        batches: Calibration batches; `MOST_SAMPLES` samples are enough.
        count: How many samples come in all.

    Returns:
        The float weight that each changed layer had, by its node.
    """
    layers: dict[Any, _Layer] = {}
    shared: dict[tuple[str, int, int], Watched] = {}
    for node, (observer, weight) in observed_weights(prepared).items():
        columns = columns_of(node, tuple(weight.shape))
        if columns is None:
            continue
        bits = 4 if isinstance(observer, searched_scale_observer()) else 8
        # Layers with the same weights are rounded alike, for the inputs of all of them, so that a file can share them.
        key = (sample_sha256({"weight": weight.numpy()}), bits, columns.groups)
        watched = shared.setdefault(key, Watched(samples=count))
        layers[node] = _Layer(observer=observer, weight=weight, bits=bits, columns=columns, watched=watched)
    visit_inputs(prepared, layers, batches, lambda node, x: layers[node].watched.see(x, layers[node].columns))
    for node, layer in layers.items():
        _round(prepared, node, layer)
    prepared.recompile()
    return {node: layer.weight for node, layer in layers.items()}


def _round(prepared: Any, node: Any, layer: _Layer) -> None:
    import torch

    weight, observer = layer.weight, layer.observer
    if layer.watched.rounded is None:
        values = weight.double().numpy()
        is_searched = layer.bits == 4
        widest = symmetric_scales(values, axis=0, bits=4) if is_searched else observer.calculate_qparams()[0].numpy()
        scales, stored = round_best(
            values.reshape(layer.columns.groups, len(values) // layer.columns.groups, -1),
            widest,
            float(observer.eps),
            layer.watched.seen.covariances(),
            bits=layer.bits,
        )
        found = torch.from_numpy(scales)
        by_channel = found.reshape(-1, *[1] * (weight.dim() - 1))
        layer.watched.rounded = found, torch.from_numpy(stored.reshape(values.shape)).float() * by_channel
    scale, rounded = layer.watched.rounded
    if layer.bits == 4:
        observer.scales = scale
    observed = node.args[1]
    near = str(observed.args[0].target)
    with prepared.graph.inserting_before(observed):
        constant = prepared.graph.get_attr(set_attribute(prepared, near, "rounded", rounded))
    constant.meta = {**observed.args[0].meta}
    observed.args = (constant,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How a layer sees its input: patches(x, places) with x [samples, channels, height, width] or [rows, columns].

    Attributes:
        places: How many patches an input has.
    """

    groups: int
    places: Callable[[Any], int]
    patches: Callable[[Any, np.ndarray], np.ndarray]


@dataclass(slots=True, kw_only=True)
class Watched:
    """Patches of the inputs of the layers that share a weight, drawn at random places of every sample alike.

    Attributes:
        rounded: Scale of each output channel, and the weight that they represent, once they are known.
    """

    samples: int
    seen: PatchSums = field(default_factory=PatchSums)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    rounded: tuple[Any, Any] | None = None

    def see(self, x: Any, columns: Columns) -> None:
        """Take in the inputs of one layer."""
        total = columns.places(x)
        wanted = -(-PATCHES * len(x) // self.samples)
        drawn = self.rng.choice(total, wanted, replace=False) if total > wanted else np.arange(total)
        self.seen.add(columns.patches(x, drawn))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A layer that takes part."""

    observer: Any
    weight: Any
    bits: int
    columns: Columns
    watched: Watched


def columns_of(node: Any, weight: tuple[int, ...]) -> Columns | None:
    """How the layer of a node sees its input; None where it is neither a convolution nor a linear."""
    import torch

    aten = torch.ops.aten
    if node.target is aten.linear.default:
        return Columns(groups=1, places=lambda x: x[..., 0].numel(), patches=_rows)
    if node.target not in (aten.conv2d.default, aten.conv1d.default, aten.conv2d.padding, aten.conv1d.padding):
        return None
    steps, pads, gaps, groups = (*node.args, *(None,) * (7 - len(node.args)))[3:7]
    rank = len(weight) - 2
    gaps = _each(gaps, 1, rank)
    if pads == "same":
        around = tuple(gap * (taps - 1) for gap, taps in zip(gaps, weight[2:], strict=True))
    else:
        around = tuple(2 * pad for pad in _each(None if pads == "valid" else pads, 0, rank))
    window = _Window(taps=weight[2:], steps=_each(steps, 1, rank), around=around, gaps=gaps, groups=int(groups or 1))
    return Columns(groups=window.groups, places=window.places, patches=window.patches)


def _each(value: Any, default: int, rank: int) -> tuple[int, ...]:
    values = (default,) if value is None else tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(int(each) for each in (values if len(values) == rank else values * rank))


def _rows(x: Any, drawn: np.ndarray) -> np.ndarray:
    found: np.ndarray = x.detach().numpy().reshape(-1, 1, x.shape[-1])[drawn]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """Geometry of a convolution in one or two dimensions.

    Attributes:
        around: Zeros along each axis, before and behind together.
    """

    taps: tuple[int, ...]
    steps: tuple[int, ...]
    around: tuple[int, ...]
    gaps: tuple[int, ...]
    groups: int

    def places(self, x: Any) -> int:
        return len(x) * int(np.prod(self._outputs(tuple(x.shape[2:]))))

    def patches(self, x: Any, drawn: np.ndarray) -> np.ndarray:
        """The patches at some places, as [patches, groups, columns] in the order of the weights."""
        sizes = tuple(int(size) for size in x.shape[2:])
        values = x.detach().numpy()
        image, *starts = np.unravel_index(drawn, (len(values), *self._outputs(sizes)))
        index, inside = [], []
        for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            taken = (
                start[:, None] * self.steps[axis]
                - self.around[axis] // 2
                + np.arange(self.taps[axis]) * self.gaps[axis]
            )
            index.append(taken.clip(0, size - 1))
            inside.append((taken >= 0) & (taken < size))
        if len(sizes) == 1:
            found = values[image[:, None], :, index[0]]  # [patches, taps, channels]
            found = found * inside[0][..., None]
        else:
            found = values[image[:, None, None], :, index[0][:, :, None], index[1][:, None, :]]
            found = found * (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
            found = found.reshape(len(drawn), -1, values.shape[1])
        result: np.ndarray = found.swapaxes(1, 2).reshape(len(drawn), self.groups, -1)
        return result

    def _outputs(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            (size + around - (taps - 1) * gap - 1) // step + 1
            for size, around, taps, gap, step in zip(sizes, self.around, self.taps, self.gaps, self.steps, strict=True)
        )
