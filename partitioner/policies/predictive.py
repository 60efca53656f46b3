"""Forecast the link one tick ahead, then take the cut that suits the forecast.

The forecast is Holt's damped linear trend on the logarithm of the rates. Why Holt: cellular rates ramp when a vehicle
moves in or out of a cell, which a level alone follows too late, and they have no fixed mean to return to, which an
autoregression assumes; the damping keeps a ramp from running away. Rates vary by factors, hence logarithms. How fast
level and trend move is chosen on the training traces by the error of the forecast one tick ahead; with the trend
switched off this is the moving average. (Gardner and McKenzie, Forecasting trends in time series, 1985.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from partitioner.cut_table import CutTable
from partitioner.policy import Policy, State, Training, static_cut
from partitioner.setting import expected_s

__all__ = ["Predictive", "forecast", "train"]

LEVELS = (0.3, 0.5, 0.7, 0.85, 1.0)
TRENDS = (0.0, 0.1, 0.3)
DAMPED = 0.8
FLOOR_BPS = 1e3
Memory = tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictive(Policy):
    """Believes the forecast, and moves for `margin` of the latency or more.

    Attributes:
        level: How fast the level follows, 0 to 1; `trend`: how fast the trend does.
    """

    level: float = 0.7
    trend: float = 0.1
    margin: float = 0.02

    def foresee(self, state: State, looked: Mapping[str, np.ndarray]) -> tuple[State, np.ndarray]:
        """Expected latency under the forecast rates."""
        before = state.memory or (None, None)
        uplink, up = forecast(np.asarray(looked["uplink_bps"]), self.level, self.trend, before[0])
        downlink, down = forecast(np.asarray(looked["downlink_bps"]), self.level, self.trend, before[1])
        rows = expected_s(self.table, {**looked, "uplink_bps": uplink, "downlink_bps": downlink}, self.setting)
        return State(cut=state.cut, since_s=state.since_s, memory=(up, down)), rows

    def choose(self, state: State, now_s: float, best: int, row: np.ndarray) -> State:
        """The best cut where it is clearly better."""
        if best == state.cut or not row[state.cut] - row[best] > self.margin * row[state.cut]:
            return state
        return State(cut=best, since_s=now_s, memory=state.memory)


def forecast(measured: np.ndarray, level: float, trend: float, memory: Memory = None) -> tuple[np.ndarray, Memory]:
    """The rate expected after each measurement, and what to remember; shape (n,).

    A dead link is expected to stay dead for the next tick, and does not move the level.
    """
    out = []
    for rate in measured.tolist():
        if rate < FLOOR_BPS:
            out.append(rate)
            continue
        value = math.log(rate)
        if memory is None:
            memory = (value, 0.0)
        else:
            was, slope = memory
            now = level * value + (1 - level) * (was + DAMPED * slope)
            memory = (now, trend * (now - was) + (1 - trend) * DAMPED * slope)
        out.append(math.exp(memory[0] + DAMPED * memory[1]))
    return np.array(out), memory


def train(table: CutTable, training: Training, name: str, argument: str) -> Predictive:
    """Choose level and trend."""
    first = static_cut(table, training)
    uplinks = [told["uplink_bps"] for told, _ in training.replay(table)]
    pairs = [(level, trend) for level in LEVELS for trend in TRENDS]
    level, trend = min(pairs, key=lambda pair: _error(uplinks, *pair)) if uplinks else (0.7, 0.1)
    return Predictive(name=name, table=table, setting=training.setting, first=first, level=level, trend=trend)


def _error(uplinks: list[np.ndarray], level: float, trend: float) -> float:
    total = 0.0
    for rates in uplinks:
        ahead, _ = forecast(rates, level, trend)
        alive = (rates[1:] >= FLOOR_BPS) & (rates[:-1] >= FLOOR_BPS)
        total += float(np.sum((np.log(ahead[:-1][alive]) - np.log(rates[1:][alive])) ** 2))
    return total
