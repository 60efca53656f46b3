"""What the weights of an operator are multiplied with: patches of its input, and their covariance over calibration.

Rows, groups and columns are those of `converters.quantize.patch_sums`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from converters.quantize.patch_sums import PATCHES, PatchSums
from converters.tflite.flatbuffer import schema
from converters.tflite.structure import Node, View

__all__ = ["Covariances", "PatchObserver", "as_rows", "as_weights"]

# Of the columns that an operator's weights are multiplied with, in parts, by (subgraph, position).
Covariances: TypeAlias = dict[tuple[int, int], tuple[np.ndarray, ...]]


def as_rows(kind: str, weights: np.ndarray, groups: int) -> np.ndarray:
    """Weights in the operator's layout as [groups, outputs, columns]."""
    if kind == "DEPTHWISE_CONV_2D":
        return weights.reshape(-1, groups, weights.shape[3] // groups).transpose(1, 2, 0)
    return weights.reshape(groups, weights.shape[0] // groups, -1)


def as_weights(kind: str, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `as_rows`."""
    if kind == "DEPTHWISE_CONV_2D":
        rows = rows.transpose(2, 0, 1)
    return rows.reshape(shape)


@dataclass(slots=True)
class PatchObserver:
    """Covariance of some patches of each sample, drawn at random places.

    Attributes:
        node: The operator whose weights are stored; CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED.
        samples: How many samples will be seen.
    """

    view: View
    node: Node
    samples: int
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    seen: PatchSums = field(default_factory=PatchSums)

    def see(self, values: np.ndarray) -> None:
        """Take in the operator's input of one inference."""
        weights = self.view.tensor(self.node.inputs[1]).shape
        wanted = -(-PATCHES * len(values) // self.samples)
        if self.node.kind == "FULLY_CONNECTED":
            found = values.reshape(-1, 1, int(weights[1]))
            if len(found) > wanted:
                found = found[self.rng.choice(len(found), wanted, replace=False)]
        else:
            found = self._patches(values, int(weights[1]), int(weights[2]), wanted)
            if self.node.kind == "DEPTHWISE_CONV_2D":
                found = found.swapaxes(1, 2)
            else:
                groups = found.shape[2] // int(weights[3])
                by_group = found.reshape(*found.shape[:2], groups, -1).swapaxes(1, 2)
                found = by_group.reshape(len(found), groups, -1)
        self.seen.add(found)

    def covariances(self) -> tuple[np.ndarray, ...]:
        """Covariance [groups, columns, columns] of each part of the columns, with as much trust as the patches earn."""
        return self.seen.covariances()

    def _patches(self, values: np.ndarray, height: int, width: int, wanted: int) -> np.ndarray:
        """Some patches [patches, height * width, channels] of a batch of images."""
        options = self.node.operator.builtinOptions
        steps = (int(options.strideH), int(options.strideW))
        gaps = (max(int(options.dilationHFactor), 1), max(int(options.dilationWFactor), 1))
        is_same = options.padding == schema().Padding.SAME
        offsets, starts = [], []
        for axis, taps in enumerate((height, width)):
            size, step, reach = values.shape[axis + 1], steps[axis], (taps - 1) * gaps[axis] + 1
            places = -(-size // step) if is_same else (size - reach) // step + 1
            before = max((places - 1) * step + reach - size, 0) // 2 if is_same else 0
            starts.append((places, step, before))
            offsets.append(np.arange(taps) * gaps[axis])
        total = len(values) * starts[0][0] * starts[1][0]
        drawn = self.rng.choice(total, wanted, replace=False) if total > wanted else np.arange(total)
        image, rest = np.divmod(drawn, starts[0][0] * starts[1][0])
        places = np.divmod(rest, starts[1][0])
        taken = []
        for axis, place in enumerate(places):
            _, step, before = starts[axis]
            taken.append(place[:, None] * step - before + offsets[axis][None])
        y, x = (np.clip(at, 0, size - 1) for at, size in zip(taken, values.shape[1:3], strict=True))
        inside = [(at >= 0) & (at < size) for at, size in zip(taken, values.shape[1:3], strict=True)]
        patches = values[image[:, None, None], y[:, :, None], x[:, None, :]]
        patches = patches * (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
        result: np.ndarray = patches.reshape(len(drawn), height * width, values.shape[3])
        return result
