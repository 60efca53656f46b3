"""Time a call: warm up until it is steady, choose how often to repeat it, take raw values. No processes, no models."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.clock import Clock

__all__ = ["Plan", "WarmUp", "plan_runs", "take_values", "warm_up"]

STEADY_WITHIN = 0.05
BLOCK_RUNS = 5
BLOCK_S = 0.005
# One value must last this many clock steps, so that reading the clock adds at most 1 % of noise.
CLOCK_STEPS_PER_VALUE = 100
# Raw values are kept: more of them than this in a round make files large without making intervals narrower.
MOST_RUNS_PER_ROUND = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Seconds of each warm-up call; `steady` when the last two blocks agreed."""

    values_s: tuple[float, ...]
    steady: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many values a round takes, and how many calls stand behind each value."""

    values_per_round: int
    calls_per_value: int


def warm_up(call: Callable[[int], object], clock: Clock, *, most_s: float = 5.0) -> WarmUp:
    """Call until the medians of two successive blocks differ by less than 5 %, or until `most_s` have passed.

    Args:
        call: Takes the number of the call, counted from 0.
    """
    values: list[float] = []
    previous: float | None = None
    begin = clock.now_s()
    while True:
        block: list[float] = []
        while len(block) < BLOCK_RUNS or (sum(block) < BLOCK_S and len(block) < MOST_RUNS_PER_ROUND):
            start = clock.now_s()
            call(len(values) + len(block))
            block.append(clock.now_s() - start)
        values += block
        median = float(np.median(block))
        if previous is not None and abs(median - previous) <= STEADY_WITHIN * previous:
            return WarmUp(values_s=tuple(values), steady=True)
        if clock.now_s() - begin >= most_s:
            return WarmUp(values_s=tuple(values), steady=False)
        previous = median


def plan_runs(run_s: float, clock_step_s: float, *, rounds: int, runs: int, min_seconds: float) -> Plan:
    """Enough values for `runs` in all and `min_seconds` in all, each long enough for the clock.

    Args:
        run_s: One call as seen at the end of the warm-up.
        clock_step_s: Smallest step of the clock.
        runs: Least number of values over all rounds.
        min_seconds: Least measured time over all rounds; very short calls stop earlier, at 1000 values a round.
    """
    run_s = max(run_s, 1e-9)
    calls = max(1, math.ceil(CLOCK_STEPS_PER_VALUE * clock_step_s / run_s))
    for_count = math.ceil(runs / rounds)
    for_time = min(math.ceil(min_seconds / rounds / (run_s * calls)), MOST_RUNS_PER_ROUND)
    return Plan(values_per_round=max(1, for_count, for_time), calls_per_value=calls)


def take_values(call: Callable[[int], object], clock: Clock, plan: Plan) -> tuple[float, ...]:
    """Seconds per call, one value after the other; the garbage collector waits meanwhile."""
    values = []
    number = 0
    with _without_garbage_collection():
        for _ in range(plan.values_per_round):
            start = clock.now_s()
            for _ in range(plan.calls_per_value):
                call(number)
                number += 1
            values.append((clock.now_s() - start) / plan.calls_per_value)
    return tuple(values)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a run would be counted as the model's."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
