"""Catch calibration data in other units than the evaluation data, e.g. pixels of 0..255 beside pixels of 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["refuse_unusable_ranges"]

LARGEST_RATIO = 10.0  # 0..255 against 0..1 is 255; a normalised image against 0..1 about 4, a matter of taste
MOST_VALUES = 1_000_000


def refuse_unusable_ranges(calibration: Path, evaluation: Path | None, inputs: Sequence[TensorInfo]) -> None:
    """Compare the central 98 % of the values of each float input; activation ranges are only as good as these.

    Args:
        calibration: npz with one array for each input, samples stacked on axis 0.
        evaluation: The same of the evaluation samples, None without.

    Raises:
        BadInput: All calibration samples are alike, or the values of an input span a range ten times wider or
            narrower than in the evaluation samples.
    """
    names = [info.name for info in inputs if info.dtype.startswith("float")]
    found = _spans(calibration, names)
    if names and len(names) == len(inputs) and all(low == high for low, high in found.values()):
        raise BadInput(
            f"--calibrate: every value of {', '.join(names)} is the same; ranges of activations need real samples."
        )
    if evaluation is None:
        return
    problems = []
    for name, (low, high) in _spans(evaluation, names).items():
        have, want = found[name][1] - found[name][0], high - low
        if have > 0 and want > 0 and not 1 / LARGEST_RATIO <= have / want <= LARGEST_RATIO:
            problems.append(
                f"input {name}: calibration values lie in {found[name][0]:.4g} to {found[name][1]:.4g} and evaluation "
                f"values in {low:.4g} to {high:.4g} (98 % of each): one of the sets is not preprocessed as the model "
                "expects; prepare both alike."
            )
    if problems:
        raise BadInput(*problems)


def _spans(path: Path, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    spans = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in names:
            values = archive[name].reshape(-1)
            values = values[:: max(1, values.size // MOST_VALUES)]
            low, high = np.percentile(values, (1, 99)) if values.min() < values.max() else (values[0], values[0])
            if low == high:  # rare values, as counts that are mostly zero
                low, high = values.min(), values.max()
            spans[name] = (float(low), float(high))
    return spans
