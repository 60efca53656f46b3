"""How good an estimate is: whether it ranks layers rightly, and what the cut that it picks costs in truth."""

from __future__ import annotations

import numpy as np

__all__ = ["cut_regret", "spearman"]


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; not a number where one side is all the same."""
    first, second = _ranks(np.asarray(one)), _ranks(np.asarray(other))
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def cut_regret(
    edge_s: np.ndarray,
    cloud_s: np.ndarray,
    guessed_edge_s: np.ndarray,
    guessed_cloud_s: np.ndarray,
    wire_s: np.ndarray,
) -> np.ndarray:
    """What the cut that the estimate picks costs beyond the best one, as a share of the best; 0 where it picks that.

    Args:
        edge_s: True seconds of the edge half of each cut, shape (cuts,); `cloud_s` of the cloud half.
        guessed_edge_s: The estimate's; `guessed_cloud_s` alike.
        wire_s: Seconds on the link, known to both, shape (..., cuts).

    Returns:
        Shape of `wire_s` without its last axis.
    """
    true = edge_s + cloud_s + wire_s
    picked = np.argmin(guessed_edge_s + guessed_cloud_s + wire_s, axis=-1)
    cost = np.take_along_axis(true, picked[..., None], axis=-1)[..., 0]
    return np.asarray(cost / true.min(axis=-1) - 1)


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], dtype=np.float64)
