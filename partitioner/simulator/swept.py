"""What a sweep of simulations found: every pair of devices over traces and seeds, and the policies over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.benchmark import Provenance
from partitioner.simulator.compare import BOUNDS, WORTH, Score

__all__ = ["Cell", "OverPairs", "SimulationSweep", "SweptPair", "over_pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell, and the file that holds its requests."""

    model: str
    edge: str
    cloud: str
    trace: str
    policy: str
    seed: int
    partition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPair:
    """One model between one pair of devices, over all traces and seeds.

    Attributes:
        name: Model and devices, told apart from the others of the sweep.
        scores: Over all traces and seeds, with intervals; see `partitioner.simulator.compare.Score`.
        gains: By policy or bound: share of the static cut's mean that it saves, one value a seed.
    """

    name: str
    model: str
    edge: str
    cloud: str
    provenance: Provenance
    cuts: int
    requests: int
    scores: tuple[Score, ...]
    gains: dict[str, tuple[float, ...]]
    blocks: int
    pays: bool
    verdict: str
    notes: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """Whether adapting pays, in a word or two; the verdict says why."""
        if self.pays:
            return "yes"
        return "not shown" if self.score("oracle").gain >= WORTH and "not shown" in self.verdict else "no"

    def score(self, name: str) -> Score:
        """Of the policy or bound of this name."""
        return next(score for score in self.scores if score.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSweep:
    """What a sweep found.

    Attributes:
        seeds: As `SimulateRequest.seed` takes them.
        executed: Cells computed by this run; `found`: by earlier ones.
    """

    pairs: tuple[SweptPair, ...]
    seeds: tuple[int, ...]
    scored_on: tuple[str, ...]
    cells: tuple[Cell, ...]
    executed: int
    found: int
    max_latency_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverPairs:
    """One policy over all models and pairs of devices.

    Attributes:
        gain: Median share of the static cut's mean that it saves; `least`, `most`: of single pairs and seeds.
        captured: Median share of the oracle's gain, over pairs where that is at least 1 %; None where it nowhere is.
        worse: Pairs in which it is more than 1 % slower than the static cut, over all seeds together.
    """

    policy: str
    gain: float
    least: float
    most: float
    captured: float | None
    worse: int


def over_pairs(pairs: Sequence[SweptPair]) -> tuple[OverPairs, ...]:
    """Every policy and bound that all pairs have, in order."""
    common = [score.name for score in pairs[0].scores if all(score.name in pair.gains for pair in pairs)]
    return tuple(
        _over(name, [pair.score(name) for pair in pairs], [pair.gains[name] for pair in pairs]) for name in common
    )


def _over(name: str, scores: Sequence[Score], by_seed: Sequence[tuple[float, ...]]) -> OverPairs:
    shares = [score.captured for score in scores if score.captured is not None]
    return OverPairs(
        policy=name,
        gain=float(np.median([score.gain for score in scores])),
        least=min(min(values) for values in by_seed),
        most=max(max(values) for values in by_seed),
        captured=float(np.median(shares)) if shares and name not in BOUNDS else None,
        worse=sum(score.gain < -WORTH for score in scores),
    )
