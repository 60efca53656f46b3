"""How good outputs are, with a 95 % interval, held against the task's floor. NumPy only."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from device_tests.tasks.task import Task
from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.metrics import accuracy, auc

__all__ = ["FloorVerdict", "Quality", "auc_interval", "measure_quality", "wilson_interval"]

FloorVerdict: TypeAlias = Literal["met", "missed", "no floor"]
Z = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A metric with its interval.

    Attributes:
        low: Of the 95 % interval.
        items: That it was measured on.
        floor: What must be reached; None where nothing says.
        parts: The same metric by group, and of all items together as "all items".
    """

    metric: str
    value: float
    low: float
    high: float
    items: int
    floor: float | None = None
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> FloorVerdict:
        """By the measured value, as the benchmark's rules have it."""
        if self.floor is None:
            return "no floor"
        return "met" if self.value >= self.floor else "missed"

    @property
    def resolved(self) -> bool:
        """The interval lies on one side of the floor."""
        return self.floor is None or self.low >= self.floor or self.high < self.floor


def measure_quality(task: Task, names: Sequence[str], labels: np.ndarray, scores: np.ndarray) -> Quality:
    """The task's metric of `scores` [items, classes], or [items] where higher means class 1.

    Raises:
        BadInput: Labels do not fit the scores, or a single class is left for AUC.
    """
    if task.metric == "accuracy":
        value = accuracy(labels, _probability(scores))
        low, high = wilson_interval(value, len(labels))
        return Quality(metric="accuracy", value=value, low=low, high=high, items=len(labels), floor=task.floor)
    flat = _positive(scores)
    groups = _groups(task, names)
    parts, variances = {}, []
    for group, places in groups.items():
        truth = labels[places]
        if 0 < truth.sum() < len(truth):
            value, variance = auc_interval(truth, flat[places])
            parts[group] = value
            variances.append(variance)
    if not parts:
        raise BadInput(
            f"{task.title}: {len(labels)} items hold one class only: AUC needs both; take more items or other labels."
        )
    value = float(np.mean(list(parts.values())))
    half = Z * math.sqrt(sum(variances)) / len(variances)
    if len(parts) > 1:
        parts["all items"] = auc(labels, flat)
    return Quality(
        metric="auc",
        value=value,
        low=max(value - half, 0.0),
        high=min(value + half, 1.0),
        items=len(labels),
        floor=task.floor,
        parts=parts if len(parts) > 1 else {},
    )


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` (Wilson, JASA 1927); unlike the normal one it holds near 0 and 1."""
    centre = share + Z * Z / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    scale = 1 + Z * Z / count
    return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)


def auc_interval(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """AUC and its variance by placements (DeLong, DeLong and Clarke-Pearson, Biometrics 1988)."""
    positive, negative = np.sort(scores[labels > 0]), np.sort(scores[labels == 0])
    # Share of negatives below each positive, ties by half; and of positives above each negative.
    above = _below(negative, positive) / negative.size
    below = 1 - _below(positive, negative) / positive.size
    spread = [part.var(ddof=1) / part.size if part.size > 1 else 0.25 for part in (above, below)]
    return float(above.mean()), float(sum(spread))


def _below(sorted_values: np.ndarray, places: np.ndarray) -> np.ndarray:
    left, right = np.searchsorted(sorted_values, places, "left"), np.searchsorted(sorted_values, places, "right")
    counts: np.ndarray = (left + right) / 2
    return counts


def _groups(task: Task, names: Sequence[str]) -> dict[str, np.ndarray]:
    if not task.group:
        return {"": np.arange(len(names))}
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        match = re.search(task.group, name)
        found.setdefault(match.group(0) if match else "other", []).append(index)
    return {group: np.array(places) for group, places in sorted(found.items())}


def _probability(scores: np.ndarray) -> np.ndarray:
    """A single output of two classes may be a logit, which is above 0 where the probability is above one half."""
    if scores.ndim == 2 and scores.shape[1] == 1 and (scores.min() < 0 or scores.max() > 1):
        shares: np.ndarray = (scores > 0).astype(np.float64)
        return shares
    return scores


def _positive(scores: np.ndarray) -> np.ndarray:
    flat = scores.reshape(len(scores), -1)
    if flat.shape[1] > 2:
        raise BadInput(f"scores of {flat.shape[1]} classes: AUC needs a single score or two classes.")
    return flat[:, -1]
