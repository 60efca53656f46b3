"""Move only for a gain that lasts: a margin, the price of the switch, a cool-down, and damped expectations.

The control design is that of closed-loop rebalancers: act on a damped signal, only past a threshold, and not again
before the last action has shown its effect. The margin and the damping are chosen on the training traces.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from partitioner.controller import run
from partitioner.cut_table import CutTable
from partitioner.policy import Policy, State, Training, static_cut

__all__ = ["Hysteresis", "train"]

MARGINS = (0.02, 0.05, 0.1, 0.2)
DAMPINGS = (0.0, 0.5)
# Latencies stand for "never" where the link is down and nothing can be finished on the edge.
NEVER_S = 1e6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hysteresis(Policy):
    """Stays unless another cut promises more.

    Attributes:
        margin: Share of the latency that has to be gained.
        damping: Weight of the past in the damped expectations, 0 to 1.
        cool_down_s: No switch before that long after the last one.
        horizon_s: A switch has to pay for itself by the requests of that time.
    """

    margin: float = 0.05
    damping: float = 0.0
    cool_down_s: float = 2.0
    horizon_s: float = 10.0

    def choose(self, state: State, now_s: float, best: int, row: np.ndarray) -> State:
        """The best cut, if it is worth it."""
        if not self.damping:
            here, there = float(row[state.cut]), float(row[best])
            damped = None
        else:
            row = np.minimum(row, NEVER_S)
            past = row if state.memory is None else state.memory
            damped = self.damping * past + (1 - self.damping) * row
            best = int(damped.argmin())
            here, there = float(damped[state.cut]), float(damped[best])
        gain = here - there
        if gain > self.margin * here and now_s - state.since_s >= self.cool_down_s:
            price = self._price(best)
            if gain > price:
                return State(cut=best, since_s=now_s, memory=damped)
        return state if damped is None else State(cut=state.cut, since_s=state.since_s, memory=damped)

    def _price(self, cut: int) -> float:
        """Seconds a request that the switch costs, spread over the requests of the horizon."""
        if not self.setting.rate_hz:
            return 0.0
        penalty = self.setting.switch_penalty_s(self.table)[cut]
        return float(penalty / (self.setting.rate_hz * self.horizon_s))


def train(table: CutTable, training: Training, name: str, argument: str) -> Hysteresis:
    """Choose margin and damping by what they would have given on the training traces, switches included."""
    policy = Hysteresis(name=name, table=table, setting=training.setting, first=static_cut(table, training))
    played = training.replay(table)
    if not played:
        return policy
    tried = [dataclasses.replace(policy, margin=margin, damping=damping) for margin in MARGINS for damping in DAMPINGS]
    return min(tried, key=lambda candidate: _mean_s(candidate, played))


def _mean_s(policy: Policy, played: list[tuple[dict[str, np.ndarray], np.ndarray]]) -> float:
    total, ticks = 0.0, 0
    penalty = policy.setting.switch_penalty_s(policy.table)
    for told, taken in played:
        count = len(taken)
        _, cuts = run(policy, np.arange(count) * policy.setting.tick_s, told)
        switched = np.flatnonzero(np.diff(cuts)) + 1
        paid = penalty[cuts[switched]].sum() / (policy.setting.rate_hz * policy.setting.tick_s or 1.0)
        total += float(taken[np.arange(count), cuts].sum() + paid)
        ticks += count
    return total / ticks
