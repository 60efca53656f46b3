"""Does moving the cut pay when the choice is never scored on the sample it was made from?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from partitioner.study.sweep_table import Sweep

__all__ = ["Captured", "captured_by_key", "oracle_seconds", "static_cut"]

RESAMPLES = 2000
MOST_WEIGHTS = 20_000_000
FOLDS = 9
# Keys of all subsets of the factors up to this many factors; beyond it of single factors, pairs and all of them.
MOST_FACTORS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What one policy makes of the gap between the best static cut and the oracle.

    Attributes:
        policy: "look-up" (best mean among the other conditions that agree on the key), "model" (main effects of log
            seconds, fitted on all other conditions), or "chosen" (whichever of these, or not moving, scored best on
            conditions that are not scored: the figure to believe, since the best of many keys is partly luck).
        key: The factors that the policy knows; none for a static choice that is itself held out.
        mean_s: Mean seconds over conditions, each scored with a choice that never saw it.
        gain: Of `mean_s` over the static cut chosen and scored on all conditions, as a share of it.
        share: Of the gap from that static cut to the oracle; negative when worse than static.
        low, high: 95 % of `share`, by resampling conditions.
        same_sample_share: The same when the scored condition takes part in the choice: what one would have claimed.
    """

    policy: str
    key: tuple[str, ...]
    mean_s: float
    gain: float
    share: float
    low: float
    high: float
    same_sample_share: float


def static_cut(sweep: Sweep) -> int:
    """The best single cut by mean seconds among those measured under all conditions (index; -1 where none is)."""
    everywhere = np.isfinite(sweep.total_s).all(axis=0)
    if not everywhere.any():
        return -1
    means = np.where(everywhere, np.where(everywhere, sweep.total_s, 0.0).mean(axis=0), np.inf)
    return int(np.argmin(means))


def oracle_seconds(sweep: Sweep) -> np.ndarray:
    """Seconds of the best measured cut of each condition, shape (n,)."""
    return np.asarray(np.nanmin(sweep.total_s, axis=1))


def captured_by_key(sweep: Sweep, *, seed: int = 0, noisy: bool = True) -> tuple[Captured, ...]:
    """Look-ups by every combination of factors, and the main-effects model, each scored held-out.

    Empty where no cut was measured under all conditions, since then there is no static cut to compare with.

    Args:
        seed: Of the resampling and of the folds.
        noisy: Whether values are measured. A modelled sweep has no noise to be fooled by, so that its policies need no
            interval and no further folds to be chosen by.
    """
    best = static_cut(sweep)
    if best < 0 or len(sweep.levels) < 3:
        return ()
    static = sweep.total_s[:, best]
    oracle = oracle_seconds(sweep)
    weights = _resamples(len(static), seed) if noisy else np.full((1, len(static)), 1 / len(static))
    found = []
    for key in _keys(len(sweep.factors)):
        names = tuple(sweep.factors[at] for at in key)
        held, same = (_look_up(sweep, key, static, leave_out=leave_out) for leave_out in (True, False))
        found.append(_captured("look-up", names, held, same, static, oracle, weights))
    held, same = (_main_effects(sweep, static, leave_out=leave_out) for leave_out in (True, False))
    found.append(_captured("model", sweep.factors, held, same, static, oracle, weights))
    if not noisy:
        return tuple(found)
    most = max(found, key=lambda each: each.same_sample_share).same_sample_share
    chosen = _captured("chosen", (), _nested(sweep, static, seed=seed), static, static, oracle, weights)
    return (*found, replace(chosen, same_sample_share=most))


def _keys(factors: int) -> Sequence[tuple[int, ...]]:
    sizes = range(factors) if factors <= MOST_FACTORS else (0, 1, 2)
    # The key of all factors is the condition itself: with one row a condition nothing is left to learn from.
    return [key for size in sizes for key in combinations(range(factors), size)]


def _look_up(sweep: Sweep, key: tuple[int, ...], static: np.ndarray, *, leave_out: bool) -> np.ndarray:
    """Seconds of each condition under the cut that is best on average in its group.

    Only cuts that the whole group measured, and the condition itself, are compared; where none is left the static
    cut's time stands.
    """
    scored = static.copy()
    for rows in _groups(sweep.levels, key):
        seconds = sweep.total_s[rows]
        known = np.isfinite(seconds).all(axis=0)
        if not known.any() or (leave_out and len(rows) < 2):
            continue
        at = np.flatnonzero(known)
        sums = seconds[:, at].sum(axis=0)
        others = sums[None, :] - seconds[:, at] if leave_out else np.broadcast_to(sums, (len(rows), len(at)))
        scored[rows] = seconds[np.arange(len(rows)), at[np.argmin(others, axis=1)]]
    return scored


def _groups(levels: np.ndarray, key: tuple[int, ...]) -> list[np.ndarray]:
    """Conditions that agree on the key."""
    if not key:
        return [np.arange(len(levels))]
    _, group = np.unique(levels[:, key], axis=0, return_inverse=True)
    flat = np.ravel(group)
    order = np.argsort(flat, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(flat[order])) + 1)


def _design(sweep: Sweep) -> np.ndarray:
    """One column for each level of each factor but its first, and one of ones."""
    columns = [np.ones(len(sweep.levels))]
    for at in range(len(sweep.factors)):
        levels = np.unique(sweep.levels[:, at])
        columns += [(sweep.levels[:, at] == level).astype(np.float64) for level in levels[1:]]
    return np.stack(columns, axis=1)


def _main_effects(sweep: Sweep, static: np.ndarray, *, leave_out: bool) -> np.ndarray:
    """Seconds under the cut of the lowest predicted log seconds; one least-squares fit a cut, left out by leverage."""
    everywhere = _everywhere(sweep)
    design = _design(sweep)
    if len(everywhere) == 0 or len(static) <= design.shape[1]:
        return static.copy()
    logs = np.log(sweep.total_s[:, everywhere])
    solved = np.linalg.pinv(design)
    predicted = design @ (solved @ logs)
    if leave_out:
        leverage = np.clip((design * solved.T).sum(axis=1)[:, None], 0.0, 1 - 1e-9)
        predicted = (predicted - leverage * logs) / (1 - leverage)
    choice = everywhere[np.argmin(predicted, axis=1)]
    return np.asarray(sweep.total_s[np.arange(len(static)), choice])


def _everywhere(sweep: Sweep) -> np.ndarray:
    return np.flatnonzero(np.isfinite(sweep.total_s).all(axis=0) & (sweep.total_s > 0).all(axis=0))


def _nested(sweep: Sweep, static: np.ndarray, *, seed: int) -> np.ndarray:
    """Seconds when the policy itself is chosen, by its leave-one-out score, on folds that the scored one is not in.

    Not moving at all is among the choices, so that a sweep without structure ends at the static cut.
    """
    folds = np.random.default_rng(seed).permutation(len(static)) % min(FOLDS, len(static))
    keys = _keys(len(sweep.factors))
    scored = static.copy()
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        known = replace(
            sweep,
            levels=sweep.levels[train],
            total_s=sweep.total_s[train],
            edge_s=sweep.edge_s[train],
            cloud_s=sweep.cloud_s[train],
        )
        means = [float(_look_up(known, key, static[train], leave_out=True).mean()) for key in keys]
        means.append(float(_main_effects(known, static[train], leave_out=True).mean()))
        best = int(np.argmin(means))
        if best < len(keys):
            scored[test] = _apply_look_up(sweep, keys[best], train, test, static)
        else:
            scored[test] = _apply_main_effects(sweep, train, test, static)
    return scored


def _apply_look_up(
    sweep: Sweep, key: tuple[int, ...], train: np.ndarray, test: np.ndarray, static: np.ndarray
) -> np.ndarray:
    scored = np.array(static[test])
    for place, row in enumerate(test):
        mates = train[(sweep.levels[train][:, key] == sweep.levels[row, key]).all(axis=1)] if key else train
        at = np.flatnonzero(np.isfinite(sweep.total_s[mates]).all(axis=0) & np.isfinite(sweep.total_s[row]))
        if len(mates) and len(at):
            scored[place] = sweep.total_s[row, at[np.argmin(sweep.total_s[mates][:, at].sum(axis=0))]]
    return scored


def _apply_main_effects(sweep: Sweep, train: np.ndarray, test: np.ndarray, static: np.ndarray) -> np.ndarray:
    everywhere = _everywhere(sweep)
    design = _design(sweep)
    if len(everywhere) == 0:
        return np.array(static[test])
    predicted = design[test] @ (np.linalg.pinv(design[train]) @ np.log(sweep.total_s[train][:, everywhere]))
    return np.asarray(sweep.total_s[test, everywhere[np.argmin(predicted, axis=1)]])


def _resamples(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # Fewer for large sweeps, whose intervals are narrow anyway: the weights must fit in memory.
    size = min(RESAMPLES, max(200, MOST_WEIGHTS // count))
    return rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)


def _captured(
    policy: str,
    key: tuple[str, ...],
    held: np.ndarray,
    same: np.ndarray,
    static: np.ndarray,
    oracle: np.ndarray,
    weights: np.ndarray,
) -> Captured:
    def share(seconds: np.ndarray, mean: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        gap = mean(static - oracle)
        return np.asarray(np.divide(mean(static - seconds), gap, out=np.zeros_like(gap), where=gap > 0))

    def over_all(seconds: np.ndarray) -> np.ndarray:
        return np.atleast_1d(seconds.mean())

    resampled = share(held, lambda seconds: weights @ seconds)
    low, high = (float(value) for value in np.percentile(resampled, (2.5, 97.5)))
    return Captured(
        policy=policy,
        key=key,
        mean_s=float(held.mean()),
        gain=float(1 - held.mean() / static.mean()),
        share=float(share(held, over_all)[0]),
        low=low,
        high=high,
        same_sample_share=float(share(same, over_all)[0]),
    )
