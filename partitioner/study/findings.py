"""Everything a study says about one sweep, as a value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput
from partitioner.study.held_out import Captured, captured_by_key, oracle_seconds, static_cut
from partitioner.study.sweep_table import Sweep
from partitioner.study.variance import VarianceShares, variance_shares

__all__ = ["Findings", "analyse", "unstressed"]

# More of these is better; of everything else (stress, load, delay) less is.
MOST_CELLS = 4000
RATES = ("network", "bandwidth", "mbit", "bps", "rate", "uplink", "throughput")


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What one sweep shows.

    Attributes:
        conditions, cuts, values: How many.
        unstressed: Levels of the condition without stress, by factor.
        unstressed_cut: Its best cut.
        moved: Conditions whose best measured cut is another one.
        static_cut: Best mean among the cuts measured under all conditions; empty where there is none.
        static_s, oracle_s, unstressed_cut_s: Mean seconds over conditions (the last over those that measured it).
        oracle_gain: Of the oracle over static on the same noisy sample; an upper bound nobody reaches.
        captured: By policy and key, held-out.
        chosen: The policy that is itself chosen on other conditions; None where there is no static cut.
        best_key: The key that captures most; partly luck, since it is the best of many.
        resolved: The 95 % interval of `chosen` lies above 0: some of the oracle's gain survives held-out scoring.
        levels: Conditions that are drawn: all, or of a large sweep those that differ from the calm one in the three
            factors that matter most.
        best_cuts: The best cut's place of each of `levels`.
        noisy: Whether the values are measured; modelled ones have no intervals.
    """

    name: str
    factors: tuple[str, ...]
    conditions: int
    cuts: int
    values: int
    repeats: int
    unstressed: dict[str, float]
    unstressed_cut: str
    moved: int
    static_cut: str
    static_s: float
    oracle_s: float
    unstressed_cut_s: float
    oracle_gain: float
    variance: tuple[VarianceShares, ...]
    captured: tuple[Captured, ...]
    chosen: Captured | None
    best_key: Captured | None
    resolved: bool
    cut_names: tuple[str, ...]
    levels: tuple[tuple[float, ...], ...]
    best_cuts: tuple[int, ...]
    noisy: bool = True

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        if self.chosen is None or self.best_key is None:
            return f"{self.name}: no cut was measured under all conditions, so there is no static cut to compare with."
        if not self.noisy:
            return (
                f"{self.name}: a cut that follows the conditions gains {self.oracle_gain:.1%} over the best static "
                f"one, in the model; knowing {' + '.join(self.best_key.key)} ({self.best_key.policy}) gives "
                f"{self.best_key.gain:.1%}."
            )
        interval = f"95 % {self.chosen.low:+.0%} to {self.chosen.high:+.0%}"
        if not self.resolved:
            return (
                f"{self.name}: of the oracle's gain of {self.oracle_gain:.1%} nothing certain survives held-out "
                f"scoring: {self.chosen.share:+.0%} of the gap ({interval}). Moving the cut is not shown to pay here."
            )
        names = " + ".join(self.best_key.key)
        return (
            f"{self.name}: of the oracle's gain of {self.oracle_gain:.1%}, {self.chosen.gain:.1%} survives "
            f"held-out scoring: {self.chosen.share:.0%} of the gap ({interval}); the best key is {names} "
            f"({self.best_key.policy})."
        )


def analyse(sweep: Sweep, *, seed: int = 0, noisy: bool = True) -> Findings:
    """The findings of one sweep.

    Args:
        seed: Of the resampling behind the intervals.
        noisy: Whether the values are measured; False for modelled ones.

    Raises:
        BadInput: The condition without any stress was not measured.
    """
    calm = unstressed(sweep)
    best = np.nanargmin(np.where(np.isnan(sweep.total_s), np.inf, sweep.total_s), axis=1)
    at = static_cut(sweep)
    oracle = oracle_seconds(sweep)
    static_s = float(sweep.total_s[:, at].mean()) if at >= 0 else float("nan")
    captured = captured_by_key(sweep, seed=seed, noisy=noisy)
    variance = variance_shares(sweep)
    drawn = _drawn(sweep, calm, variance)
    informed = [each for each in captured if each.key]
    chosen = next((each for each in captured if each.policy == "chosen"), None)
    top = max(informed, key=lambda each: each.share) if informed else None
    return Findings(
        name=sweep.name,
        factors=sweep.factors,
        conditions=len(sweep.levels),
        cuts=len(sweep.cuts),
        values=sweep.values,
        repeats=sweep.repeats,
        unstressed=dict(zip(sweep.factors, map(float, sweep.levels[calm]), strict=True)),
        unstressed_cut=sweep.cuts[best[calm]],
        moved=int((best != best[calm]).sum()),
        static_cut=sweep.cuts[at] if at >= 0 else "",
        static_s=static_s,
        oracle_s=float(oracle.mean()),
        unstressed_cut_s=float(np.nanmean(sweep.total_s[:, best[calm]])),
        oracle_gain=1 - float(oracle.mean()) / static_s if at >= 0 else float("nan"),
        variance=variance,
        captured=captured,
        chosen=chosen if noisy else top,
        best_key=top,
        resolved=chosen is not None and chosen.low > 0,
        cut_names=sweep.cuts,
        levels=tuple(tuple(map(float, row)) for row in sweep.levels[drawn]),
        best_cuts=tuple(int(each) for each in best[drawn]),
        noisy=noisy,
    )


def _drawn(sweep: Sweep, calm: int, variance: tuple[VarianceShares, ...]) -> np.ndarray:
    """Conditions to keep for a map."""
    if len(sweep.levels) <= MOST_CELLS or not variance:
        return np.arange(len(sweep.levels))
    shares = variance[-1].shares
    minor = sorted(range(len(sweep.factors)), key=lambda at: -shares[sweep.factors[at]])[3:]
    return np.flatnonzero((sweep.levels[:, minor] == sweep.levels[calm, minor]).all(axis=1))


def unstressed(sweep: Sweep) -> int:
    """The condition with the highest rate and the least of every other factor.

    Raises:
        BadInput: It was not measured.
    """
    rates = [any(word in factor.lower() for word in RATES) for factor in sweep.factors]
    wanted = np.where(rates, sweep.levels.max(axis=0), sweep.levels.min(axis=0))
    found = np.flatnonzero((sweep.levels == wanted).all(axis=1))
    if len(found) == 0:
        said = ", ".join(f"{name} {value:g}" for name, value in zip(sweep.factors, wanted, strict=True))
        raise BadInput(f"sweep {sweep.name}: the condition without stress ({said}) was not measured.")
    return int(found[0])
