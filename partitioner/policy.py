"""What a policy is: a value that turns what was measured into a cut, with its memory in a state that travels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.cut import ALL_EDGE
from partitioner.cut_table import CutTable
from partitioner.measured import Probes, measured, tick_times
from partitioner.realised import realised_by_tick
from partitioner.setting import Setting, expected_s

__all__ = ["Observation", "Policy", "State", "Training", "static_cut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a policy remembers between two calls.

    Attributes:
        cut: Index of the cut in force.
        since_s: When it came into force.
        memory: The policy's own.
    """

    cut: int
    since_s: float = -math.inf
    memory: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One answered request, as the edge device saw it.

    Attributes:
        cut: Index of its cut.
        edge_s: On the edge without waiting.
        send_s: On the uplink without waiting; None where the request did not cross or got no answer.
        cloud_s: In the cloud without waiting, as the cloud reports it; None as above.
        latency_s: From arrival to answer.
        fell_back: Whether it was finished on the edge because the cloud did not answer in time.
    """

    cut: int
    edge_s: float
    send_s: float | None
    cloud_s: float | None
    latency_s: float
    fell_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """What policies learn from.

    Attributes:
        traces: Never the ones that are scored.
        probes: How conditions will be measured.
        phases: Requests looked at in each tick of a trace.
    """

    traces: tuple[Trace, ...]
    setting: Setting = field(default_factory=Setting)
    probes: Probes = field(default_factory=Probes)
    phases: int = 2

    def replay(self, table: CutTable) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        """For each trace what was measured at each tick and what a request then took; see `realised_by_tick`."""
        return _replay(self, table)


# Several policies learn from the same traces one after the other.
@lru_cache(maxsize=1)
def _replay(training: Training, table: CutTable) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    played = []
    for trace in training.traces:
        ticks = tick_times(trace.end_s, training.setting.tick_s)
        told = measured(trace, ticks, training.setting.tick_s, training.probes)
        played.append((told, realised_by_tick(table, trace, ticks, training.setting, phases=training.phases)))
    return played


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Policy:
    """Base of all policies. A decision is made in two steps, so that many ticks can be looked at in one go.

    Attributes:
        name: As users write it.
        first: Index of the cut to start with: the best static one on the training traces.
    """

    name: str
    table: CutTable
    setting: Setting
    first: int

    sees_requests: ClassVar[bool] = False
    # Whether it ever moves; whether what it foresees are seconds, and no mere ranks.
    moves: ClassVar[bool] = True
    foresees_seconds: ClassVar[bool] = True

    def start(self) -> State:
        """The state before the first decision."""
        return State(cut=self.first)

    def look(self, conditions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """What `foresee` takes, made of what was measured alone: of many ticks at once where they are known.

        Args:
            conditions: By field, shape (n,).

        Returns:
            Arrays whose first axis are the ticks.
        """
        return conditions

    def foresee(self, state: State, looked: Mapping[str, np.ndarray]) -> tuple[State, np.ndarray]:
        """Expected latency of every cut at consecutive ticks, from what `look` made; shape (n, C)."""
        return state, expected_s(self.table, dict(looked), self.setting)

    def choose(self, state: State, now_s: float, best: int, row: np.ndarray) -> State:
        """The state with the cut that is in force from now on.

        Args:
            best: The cut with the least expected latency; `row`: expected latency of each, shape (C,).
        """
        raise NotImplementedError

    def observe(self, state: State, seen: Sequence[Observation]) -> State:
        """Learn from answered requests, in the order of their answers; most policies do not."""
        return state


def static_cut(table: CutTable, training: Training) -> int:
    """The cut with the least mean latency over the training traces; without traces all-edge, else the first."""
    if not training.traces:
        return table.cuts.index(ALL_EDGE) if ALL_EDGE in table.cuts else 0
    total = np.zeros(len(table.cuts))
    for _, taken in training.replay(table):
        total += taken.sum(axis=0)
    return int(total.argmin())
