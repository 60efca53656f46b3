"""How far the modelled sweep is off: pairs of cut and condition that were really run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["ErrorSummary", "Pair", "draw_pairs", "summarise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One cut under one condition, modelled and measured.

    Attributes:
        net: The model.
        number: Of the pair in the draw.
        cut: Its place among the model's cuts.
        conditions: By field.
        modelled_s: What the cost model says.
        measured_s: What each request took.
        parts_s: Medians of the measured parts: edge_s, encode_s, uplink_s, cloud_s, downlink_s.
    """

    net: str
    number: int
    cut: int
    conditions: dict[str, float]
    modelled_s: float
    measured_s: tuple[float, ...]
    parts_s: dict[str, float]

    @property
    def relative_error(self) -> float:
        """Modelled over the median measured, less 1: positive where the model is too slow."""
        return self.modelled_s / float(np.median(self.measured_s)) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """Relative errors of a set of pairs.

    Attributes:
        net: The model, or "all".
        median, p95: Of the absolute relative error.
        bias: Median of the signed one.
        rank: Spearman correlation of modelled and measured seconds.
    """

    net: str
    pairs: int
    median: float
    p95: float
    bias: float
    rank: float


def draw_pairs(cuts: dict[str, int], conditions: int, *, count: int, seed: int) -> list[tuple[str, int, int]]:
    """Random pairs of a cut (any model's, each alike) and a condition: model, place of the cut, place of the condition.

    A larger draw begins with the smaller one of the same seed, so that pairs that were measured are of use in it.

    Raises:
        BadInput: More are wanted than there are.
    """
    every = [(net, cut) for net, number in cuts.items() for cut in range(number)]
    if count > len(every) * conditions:
        raise BadInput(f"pairs: {count} wanted of {len(every) * conditions}.")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(every) * conditions)[:count]
    return [(*every[place // conditions], int(place % conditions)) for place in chosen.tolist()]


def summarise(pairs: Sequence[Pair]) -> tuple[ErrorSummary, ...]:
    """One summary over all pairs, then one for each model."""
    if not pairs:
        return ()
    nets = list(dict.fromkeys(pair.net for pair in pairs))
    groups = [("all", list(pairs)), *((net, [pair for pair in pairs if pair.net == net]) for net in nets)]
    return tuple(_summary(name, group) for name, group in groups)


def _summary(name: str, pairs: Sequence[Pair]) -> ErrorSummary:
    errors = np.array([pair.relative_error for pair in pairs])
    modelled = np.array([pair.modelled_s for pair in pairs])
    measured = np.array([float(np.median(pair.measured_s)) for pair in pairs])
    return ErrorSummary(
        net=name,
        pairs=len(pairs),
        median=float(np.median(np.abs(errors))),
        p95=float(np.percentile(np.abs(errors), 95)),
        bias=float(np.median(errors)),
        rank=_spearman(modelled, measured),
    )


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < 3:
        return float("nan")
    first, second = (_ranks(values) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Equal values share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[np.ravel(place)])
