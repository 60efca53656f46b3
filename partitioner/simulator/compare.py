"""Policies side by side on the same requests, with what could have been had, and the verdict whether adapting pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.errors import BadInput
from partitioner.bounds.oracle import best_per_moment, hindsight_static, paying_oracle
from partitioner.cut_table import CutTable
from partitioner.measured import tick_times
from partitioner.policies.fixed import Fixed
from partitioner.policy import Policy
from partitioner.realised import realised_by_tick
from partitioner.simulator.simulate import Served, simulate, simulate_decisions
from partitioner.simulator.world import World

__all__ = ["BOUNDS", "Comparison", "Outcome", "Score", "compare", "compare_outcomes", "outcome_of", "simulate_bound"]

BOUNDS = ("hindsight-static", "oracle", "oracle-paying")
STATIC = "static"
# Requests of so many seconds that follow each other are resampled together: conditions last.
BLOCK_S = 60.0
RESAMPLES = 1000
# Fewer stretches make intervals that are too narrow to claim anything.
ENOUGH_BLOCKS = 8
# What the user would not notice.
WORTH = 0.01
LOST_S = 60.0
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one policy or bound gave.

    Attributes:
        mean_s: Over all requests of all traces; a request without an answer counts as 60 s.
        switches: Changes of the cut; `switches_per_hour`: of simulated time.
        gain: 1 - mean over the mean of the static cut; `gain_low`, `gain_high`: 95 % interval.
        late: Requests that took longer than the limit, if one was set, or got no answer.
        captured: Share of the way from the static cut to the oracle; None where the oracle gains less than 1 %.
    """

    name: str
    adapts: bool
    requests: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    switches: int
    switches_per_hour: float
    fallbacks: int
    lost: int
    gain: float
    gain_low: float
    gain_high: float
    captured: float | None
    captured_low: float | None
    captured_high: float | None
    late: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All of them.

    Attributes:
        scores: Policies in the order asked for, then the bounds.
        blocks: Stretches of time that were resampled for the intervals.
        pays: Whether some adapting policy is better than the static cut, surely and by more than 1 %.
        verdict: For people.
    """

    scores: tuple[Score, ...]
    blocks: int
    pays: bool
    verdict: str

    def score(self, name: str) -> Score:
        """Of the policy or bound of this name."""
        return next(score for score in self.scores if score.name == name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What one policy or bound did on one trace.

    Attributes:
        trace: Which trace it was: outcomes with the same one saw the same conditions, with other requests perhaps.
        end_s: When the trace ends.
        arrival_s: When requests came; `latency_s`: what they took, inf for never; shape (n,).
    """

    name: str
    trace: Hashable
    end_s: float
    arrival_s: np.ndarray
    latency_s: np.ndarray
    switches: int
    fallbacks: int
    lost: int


def compare(
    policies: Sequence[Policy],
    rounds: Sequence[tuple[Trace, np.ndarray]],
    world: World,
    *,
    seed: int = 0,
    keep: Callable[[int, Served], None] | None = None,
) -> Comparison:
    """Simulate every policy and bound on every trace with the same requests.

    Args:
        policies: One of them called "static".
        rounds: Traces, each with the moments at which requests come; a trace may come again with other requests.
        keep: Called with the number of the trace and each result, e.g. to write it down.

    Raises:
        BadInput: There is no static policy to compare with, or no trace.
    """
    names = [policy.name for policy in policies]
    if STATIC not in names or not rounds or len(set(names)) != len(names):
        raise BadInput(f"compare: policies {', '.join(names)}: need static once, others at most once, and a trace.")

    def outcomes() -> Iterator[Outcome]:
        for number, (trace, arrival_s) in enumerate(rounds):
            for served in _all_of(policies, trace, arrival_s, world, seed):
                yield outcome_of(served, trace.end_s, id(trace))
                if keep is not None:
                    keep(number, served)

    adapts = {policy.name: not isinstance(policy, Fixed) for policy in policies}
    return compare_outcomes(outcomes(), adapts, seed=seed, limit_s=world.setting.max_latency_s)


def outcome_of(served: Served, end_s: float, trace: Hashable) -> Outcome:
    """What is compared of a simulation."""
    return Outcome(
        name=served.name,
        trace=trace,
        end_s=end_s,
        arrival_s=served.arrival_s,
        latency_s=served.latency_s,
        switches=served.switches,
        fallbacks=served.fallbacks,
        lost=served.lost,
    )


def compare_outcomes(
    outcomes: Iterable[Outcome], adapts: Mapping[str, bool], *, seed: int = 0, limit_s: float = math.inf
) -> Comparison:
    """Policies and bounds side by side, from outcomes on the same traces and requests.

    Args:
        outcomes: Of every policy and bound on every trace.
        adapts: By policy, in the order in which they are to be listed: whether it moves the cut. One is "static".
        limit_s: Requests that take longer are counted as late.

    Raises:
        BadInput: A policy or bound lacks outcomes.
    """
    latencies: dict[str, list[np.ndarray]] = {name: [] for name in (*adapts, *BOUNDS)}
    sums: dict[str, dict[Hashable, np.ndarray]] = {name: {} for name in latencies}
    counts: dict[str, dict[Hashable, np.ndarray]] = {name: {} for name in latencies}
    tallies = {name: np.zeros(4, dtype=np.int64) for name in latencies}
    seconds = dict.fromkeys(latencies, 0.0)
    for each in outcomes:
        block = (each.arrival_s / BLOCK_S).astype(np.int64)
        # A trace that is simulated again with other requests adds to its blocks: its conditions are not new.
        size = math.ceil(each.end_s / BLOCK_S) + 1
        latency = np.where(np.isfinite(each.latency_s), each.latency_s, LOST_S)
        latencies[each.name].append(latency)
        mine, came = sums[each.name], counts[each.name]
        mine[each.trace] = mine.get(each.trace, 0) + np.bincount(block, weights=latency, minlength=size)
        came[each.trace] = came.get(each.trace, 0) + np.bincount(block, minlength=size)
        late = int(np.count_nonzero(each.latency_s > limit_s)) if math.isfinite(limit_s) else 0
        tallies[each.name] += np.array([each.switches, each.fallbacks, each.lost, late], dtype=np.int64)
        seconds[each.name] += float(each.arrival_s[-1])
    per_trace = counts[STATIC]
    if not per_trace or any(list(counts[name]) != list(per_trace) for name in latencies):
        raise BadInput("compare: every policy and bound needs an outcome on every trace, static among them.")
    per_block = {name: np.concatenate(list(values.values())) for name, values in sums.items()}
    weight = np.concatenate(list(per_trace.values()))
    used = weight > 0
    means = _resampled_means({name: values[used] for name, values in per_block.items()}, weight[used], seed)
    scores = tuple(
        _score(
            name,
            adapts.get(name, name != BOUNDS[0]),
            np.concatenate(latencies[name]),
            tallies[name],
            seconds[name],
            means,
        )
        for name in latencies
    )
    pays, verdict = _verdict(scores, set(adapts), means, int(used.sum()))
    return Comparison(scores=scores, blocks=int(used.sum()), pays=pays, verdict=verdict)


def _all_of(policies: Sequence[Policy], trace: Trace, arrival_s: np.ndarray, world: World, seed: int) -> list[Served]:
    done = [simulate(policy, trace, arrival_s, world, seed=seed) for policy in policies]
    return done + [simulate_bound(name, policies[0].table, trace, arrival_s, world, seed=seed) for name in BOUNDS]


def simulate_bound(
    name: str, table: CutTable, trace: Trace, arrival_s: np.ndarray, world: World, *, seed: int = 0
) -> Served:
    """One of `BOUNDS` on a trace that it knows beforehand."""
    truth = world.truth or table
    ticks = tick_times(float(arrival_s[-1]) + 1e-9, world.setting.tick_s)
    taken = realised_by_tick(truth, trace, ticks, world.setting)
    finite = np.where(np.isfinite(taken), taken, LOST_S)
    if name == "hindsight-static":
        decided = hindsight_static(finite)
    elif name == "oracle":
        decided = best_per_moment(finite)
    else:
        # The price of a switch is summed over requests; a tick has so many of them.
        per_tick = max(world.setting.rate_hz * world.setting.tick_s, 1e-9)
        decided = paying_oracle(finite, world.setting.switch_penalty_s(truth) / per_tick)
    free = name == "oracle"
    return simulate_decisions(name, table, trace, arrival_s, ticks, decided, world, seed=seed, free_switches=free)


def _resampled_means(per_block: dict[str, np.ndarray], weight: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Means of all requests, first as they are, then resampled block by block, the same blocks for all policies."""
    random = np.random.default_rng([seed, 4])
    count = len(weight)
    picks = np.vstack((np.ones(count), random.multinomial(count, np.full(count, 1 / count), RESAMPLES)))
    requests = picks @ weight
    return {name: (picks @ values) / requests for name, values in per_block.items()}


def _score(
    name: str, adapts: bool, latency: np.ndarray, tally: np.ndarray, seconds: float, means: dict[str, np.ndarray]
) -> Score:
    static, mine, oracle = means[STATIC], means[name], means["oracle"]
    gains = 1 - mine / static
    low, high = _interval(gains[1:])
    p50, p95, p99 = (float(value) for value in np.quantile(latency, (0.5, 0.95, 0.99)))
    captured = captured_low = captured_high = None
    if 1 - oracle[0] / static[0] >= WORTH:
        share = (static - mine) / np.maximum(static - oracle, 1e-12)
        captured = float(share[0])
        captured_low, captured_high = _interval(share[1:])
    return Score(
        name=name,
        adapts=adapts,
        requests=len(latency),
        mean_s=float(mine[0]),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        switches=int(tally[0]),
        switches_per_hour=float(tally[0] / seconds * 3600) if seconds else 0.0,
        fallbacks=int(tally[1]),
        lost=int(tally[2]),
        late=int(tally[3]),
        gain=float(gains[0]),
        gain_low=low,
        gain_high=high,
        captured=captured,
        captured_low=captured_low,
        captured_high=captured_high,
    )


def _interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)


def _verdict(
    scores: Sequence[Score], policies: set[str], means: dict[str, np.ndarray], blocks: int
) -> tuple[bool, str]:
    oracle = next(score for score in scores if score.name == "oracle")
    tried = [score for score in scores if score.adapts and score.name in policies]
    if oracle.gain < WORTH:
        return False, (
            f"Adapting does not pay here: even an oracle that knows the future and switches for free is only "
            f"{oracle.gain:.1%} faster than the static cut."
        )
    if not tried:
        return False, f"No adapting policy was tried; an oracle would be {oracle.gain:.1%} faster than the static cut."
    best = max(tried, key=lambda score: score.gain)
    # The best of several looks better than it is: its interval is widened for their number (Bonferroni).
    low, high = _interval(1 - means[best.name][1:] / means[STATIC][1:], 1 - (1 - CONFIDENCE) / len(tried))
    said = f"{best.name} is {best.gain:.1%} faster than the static cut (interval {low:.1%} to {high:.1%}"
    said += f", widened for {len(tried)} policies)" if len(tried) > 1 else ")"
    if (low <= 0 or blocks < ENOUGH_BLOCKS) and best.gain >= WORTH:
        return False, (
            f"It is not shown that adapting pays here: the best policy, {said}; an oracle would gain "
            f"{oracle.gain:.1%}. Longer or more traces would tell."
        )
    if best.gain < WORTH:
        return False, f"Adapting does not pay here: the best policy, {said}; an oracle would gain {oracle.gain:.1%}."
    share = f", {best.captured:.0%} of what an oracle would gain" if best.captured is not None else ""
    return True, f"Adapting pays: {said}{share}."
