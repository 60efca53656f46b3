"""Which factor drives which part of the time: shares of the variance of log seconds, main effects of the factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from partitioner.study.sweep_table import Sweep

__all__ = ["PARTS", "VarianceShares", "variance_shares"]

PARTS = ("edge", "transfer", "cloud", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceShares:
    """Main effects of one part of the time.

    Attributes:
        part: Of `PARTS`.
        shares: By factor: its main effect's share of the variance between conditions, each averaged over its cuts so
            that the noise of single measurements averages out; 0 to 1.
        rest: What main effects leave: interactions, and noise that all cuts of a condition share.
        single: By factor: the share of the variance of single values within cuts, noise included.
        values: Values that were used.
        left_out: Values without a logarithm (0 or less: the part does not exist there, or timing noise hid it).
    """

    part: str
    shares: dict[str, float]
    rest: float
    single: dict[str, float]
    values: int
    left_out: int


def variance_shares(sweep: Sweep) -> tuple[VarianceShares, ...]:
    """For each part that the sweep tells: sums of squares between the levels of a factor over the total, within cuts.

    The logarithm makes cuts of different length comparable and a slowdown by a factor additive. Where the design is
    balanced the main effects are orthogonal and add up to at most 1; where some cells are missing nearly so.
    """
    parts = {"edge": sweep.edge_s, "transfer": sweep.transfer_s, "cloud": sweep.cloud_s, "total": sweep.total_s}
    found = []
    for part in PARTS:
        seconds = parts[part]
        if np.isnan(seconds).all():
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(seconds > 0, np.log(seconds), np.nan)
        usable = np.isfinite(logs)
        # A cut that is known under one condition says nothing about what changes with conditions.
        usable &= usable.sum(axis=0, keepdims=True) > 1
        count = usable.sum(axis=0)
        zeros = np.where(usable, logs, 0.0)
        means = zeros.sum(axis=0) / np.maximum(count, 1)
        centred = np.where(usable, logs - means, 0.0)
        if not usable.any():
            continue
        told = np.asarray(usable.any(axis=1))
        averages = np.where(told, centred.sum(axis=1) / np.maximum(usable.sum(axis=1), 1), 0.0)[:, None]
        averages = np.where(told[:, None], averages - averages[told].mean(), 0.0)
        shares = _shares(averages, told[:, None], sweep)
        found.append(
            VarianceShares(
                part=part,
                shares=shares,
                rest=max(0.0, 1.0 - sum(shares.values())) if any(shares.values()) else 0.0,
                single=_shares(centred, usable, sweep),
                values=int(usable.sum()),
                left_out=int(np.isfinite(seconds).sum() - usable.sum()),
            )
        )
    return tuple(found)


def _shares(centred: np.ndarray, usable: np.ndarray, sweep: Sweep) -> dict[str, float]:
    whole = float((centred**2).sum())
    return {
        factor: _between(centred, usable, sweep.levels[:, at]) / whole if whole > 0 else 0.0
        for at, factor in enumerate(sweep.factors)
    }


def _between(centred: np.ndarray, usable: np.ndarray, levels: np.ndarray) -> float:
    """Sum of squares of the means of each level, column by column."""
    total = 0.0
    for level in np.unique(levels):
        rows = levels == level
        count = usable[rows].sum(axis=0)
        sums = centred[rows].sum(axis=0)
        total += float((sums**2 / np.maximum(count, 1)).sum())
    return total
