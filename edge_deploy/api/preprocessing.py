"""What the data sets know of the image input's preprocessing, for the manifest."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edge_deploy.core.artifact import Artifact
from edge_deploy.core.dataset import Dataset, KnowsPixels
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["Pixels", "known_pixels"]

TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """The model takes (pixel - mean) / std, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def described(self, artifact: Artifact) -> Artifact:
        """`artifact` with this preprocessing at its input, in the terms of the source and of every signature."""
        return replace(
            artifact,
            source_inputs=self._told(artifact.source_inputs),
            signatures=tuple(replace(each, inputs=self._told(each.inputs)) for each in artifact.signatures),
        )

    def _told(self, inputs: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            return inputs
        return (replace(inputs[0], mean=self.mean, std=self.std),)


def known_pixels(evaluation: Dataset | None, calibration: Dataset | None) -> Pixels | None:
    """The preprocessing that the evaluation set knows, else that of the calibration set; None where neither does.

    Raises:
        BadInput: Both know one, and they differ.
    """
    known: list[tuple[str, Pixels]] = []
    for dataset in (evaluation, calibration):
        pixels = _pixels(dataset)
        if dataset is not None and pixels is not None:
            known.append((dataset.name, pixels))
    if not known:
        return None
    (name, first), (other_name, second) = known[0], known[-1]
    if not (_close(first.mean, second.mean) and _close(first.std, second.std)):
        raise BadInput(
            f"{name} prepares pixels by {_text(first)}, {other_name} by {_text(second)}: must be the same, the one "
            "that the model was trained with; correct [preprocess] of one of them."
        )
    return first


def _pixels(dataset: object) -> Pixels | None:
    if not isinstance(dataset, KnowsPixels) or not dataset.pixel_mean:
        return None
    return Pixels(mean=dataset.pixel_mean, std=dataset.pixel_std)


def _close(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    return len(left) == len(right) and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for a, b in zip(left, right, strict=True)
    )


def _text(pixels: Pixels) -> str:
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (pixels.mean, pixels.std))
    return f"(pixel - [{mean}]) / [{std}]"
