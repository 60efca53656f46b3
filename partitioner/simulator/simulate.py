"""Simulate every request of one policy on one trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.errors import BadInput
from partitioner.controller import decide, observe, run
from partitioner.cost import slowdowns
from partitioner.cut_table import CutTable
from partitioner.measured import measured, tick_times
from partitioner.policy import Observation, Policy
from partitioner.setting import finish_on_edge_s
from partitioner.simulator import kernel as k
from partitioner.simulator.compiled import can_compile, kernel_function
from partitioner.simulator.world import World

__all__ = ["PARTS", "Served", "simulate", "simulate_decisions"]

# Parts of a latency in the order of a request's way, and what they are called in results.
PARTS = (
    "edge_wait",
    "edge",
    "encode",
    "link_wait",
    "send",
    "round_trip",
    "cloud_wait",
    "cloud",
    "receive",
    "timeout",
    "local_wait",
    "local",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """Every request, and every decision.

    Attributes:
        name: Of the policy or bound.
        arrival_s: Shape (n,).
        cut: Index of the cut in force when the request came; shape (n,).
        how: 1 answered on the edge, 2 by the cloud, 3 finished on the edge because the cloud was late, 4 never
            answered; shape (n,).
        parts_s: Seconds by part in the order of `PARTS`; they add up to the latency; shape (12, n).
        done_s: Moment of the answer; inf for none; shape (n,).
        ticks_s: Moments of decisions; `decided`: the cut from each on; shape (ticks,).
    """

    name: str
    table: CutTable
    arrival_s: np.ndarray
    cut: np.ndarray
    how: np.ndarray
    parts_s: np.ndarray
    done_s: np.ndarray
    ticks_s: np.ndarray
    decided: np.ndarray

    @property
    def latency_s(self) -> np.ndarray:
        """From arrival to answer; inf for requests that were never answered."""
        return np.asarray(self.done_s - self.arrival_s)

    @property
    def switches(self) -> int:
        """How often the cut changed."""
        return int(np.count_nonzero(np.diff(self.decided)))

    @property
    def fallbacks(self) -> int:
        """Requests that were finished on the edge because the cloud did not answer in time."""
        return int(np.count_nonzero(self.how == k.FELL_BACK))

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return int(np.count_nonzero(self.how == k.LOST))


def simulate(
    policy: Policy, trace: Trace, arrival_s: np.ndarray, world: World, *, seed: int = 0, compiled: bool | None = None
) -> Served:
    """Let `policy` decide at every tick by what probes told it, and serve all requests.

    Args:
        arrival_s: When requests come, increasing; see `partitioner.simulator.arrivals`.
        seed: Of early exits; the probes' noise has its own.
        compiled: By numba; None where it is installed. The results are the same.
    """
    ticks = tick_times(float(arrival_s[-1]) + 1e-9, world.setting.tick_s)
    told = measured(trace, ticks, world.setting.tick_s, world.probes)
    if not policy.sees_requests:
        _, decided = run(policy, ticks, told)
        return simulate_decisions(
            policy.name, policy.table, trace, arrival_s, ticks, decided, world, seed=seed, compiled=compiled
        )
    run_kernel = _Run(policy.table, trace, arrival_s, ticks, world, seed, compiled)
    state, looked = policy.start(), policy.look(told)
    decided = np.empty(len(ticks), dtype=np.int64)
    for tick, now_s in enumerate(ticks.tolist()):
        state = observe(policy, state, run_kernel.answered(now_s))
        state = decide(policy, state, now_s, _at(told, tick), _at(looked, tick))
        decided[tick] = state.cut
        if tick == 0 or state.cut != decided[tick - 1]:
            run_kernel.switch(now_s, state.cut, first=tick == 0)
        run_kernel.serve_tick(tick, state.cut)
    run_kernel.serve(math.inf)
    return run_kernel.served(policy.name, decided)


def simulate_decisions(
    name: str,
    table: CutTable,
    trace: Trace,
    arrival_s: np.ndarray,
    ticks: np.ndarray,
    decided: np.ndarray,
    world: World,
    *,
    seed: int = 0,
    compiled: bool | None = None,
    free_switches: bool = False,
) -> Served:
    """Serve all requests with cuts that are known beforehand; so bounds are simulated."""
    running = _Run(table, trace, arrival_s, ticks, world, seed, compiled)
    changed = np.flatnonzero(np.diff(decided)) + 1
    if not free_switches:
        for tick in changed.tolist():
            running.switch(float(ticks[tick]), int(decided[tick]))
    running.cut_of[:] = np.repeat(decided, np.diff(running.first_of_tick))
    running.known = len(arrival_s)
    running.serve(math.inf)
    return running.served(name, decided)


class _Run:
    """The kernel's arrays: filled step by step, handed over when it is done. Lives no longer than one simulation."""

    def __init__(
        self,
        table: CutTable,
        trace: Trace,
        arrival_s: np.ndarray,
        ticks: np.ndarray,
        world: World,
        seed: int,
        compiled: bool | None,
    ) -> None:
        truth = world.truth or table
        if truth.cuts != table.cuts:
            raise BadInput("world: the truth must have the same cuts as the table that policies believe in.")
        arrival = np.ascontiguousarray(arrival_s, dtype=np.float64)
        if not len(arrival) or (np.diff(arrival) < 0).any() or arrival[0] < 0:
            raise BadInput("arrivals: must be at least one, in order and not negative.")
        count, cuts = len(arrival), len(table.cuts)
        self.table, self.truth, self.arrival, self.ticks, self.world = table, truth, arrival, ticks, world
        self.cut_of = np.zeros(count, dtype=np.int64)
        self.known = 0
        self.first_of_tick = np.concatenate((np.searchsorted(arrival, ticks[1:]), [count]))
        self.first_of_tick = np.concatenate(([0], self.first_of_tick))
        has_exits = bool((truth.exit_share > 0).any())
        self.draw = np.random.default_rng([seed, 3]).random(count) if has_exits else np.ones(count)
        self.switch_at = np.empty(len(ticks))
        self.switch_s = np.empty(len(ticks))
        self.switches = 0
        self.costs_s = world.setting.switch_s(table)
        self.link = _link(truth, trace)
        self.time = np.ascontiguousarray(trace.time_s, dtype=np.float64)
        rest = finish_on_edge_s(truth)
        after = world.setting.fallback_after_s if rest is not None else math.inf
        self.cuts = np.vstack(
            (
                truth.edge_s,
                truth.encode_s,
                np.maximum(truth.up_bytes, 0.125) * 8.0,
                truth.cloud_s + truth.decode_s,
                truth.down_bytes * 8.0,
                truth.crosses,
                truth.exit_share,
                np.zeros(cuts) if rest is None else rest,
            )
        ).astype(np.float64)
        self.failure = np.array(world.cloud_fails, dtype=np.float64).reshape(-1, 2).T.copy()
        self.limits = np.array([after, world.batch_wait_s, world.batch_share])
        self.clock = np.zeros(3)
        self.at = np.zeros(10, dtype=np.int64)
        self.workers = np.zeros(world.workers)
        self.late = np.zeros(count, dtype=np.int64)
        self.waiting = np.zeros(count if world.batch_limit > 1 else 1, dtype=np.int64)
        self.ready = np.zeros(count)
        self.how = np.zeros(count, dtype=np.int8)
        self.out = np.zeros((len(PARTS) + 1, count))
        self.kernel: Callable[..., None] = kernel_function(can_compile() if compiled is None else compiled)
        self.reported = 0
        self.open = np.empty(0, dtype=np.int64)

    def switch(self, now_s: float, cut: int, *, first: bool = False) -> None:
        """The edge is busy with going over to `cut`; the first cut is loaded before requests come."""
        if first:
            return
        self.switch_at[self.switches] = now_s
        self.switch_s[self.switches] = self.costs_s[cut]
        self.switches += 1

    def serve_tick(self, tick: int, cut: int) -> None:
        """Serve what becomes ready before the next tick."""
        self.cut_of[self.first_of_tick[tick] : self.first_of_tick[tick + 1]] = cut
        self.known = int(self.first_of_tick[tick + 1])
        self.serve(float(self.ticks[tick + 1]) if tick + 1 < len(self.ticks) else math.inf)

    def serve(self, until_s: float) -> None:
        """Go on until then."""
        self.kernel(
            until_s, self.known, self.arrival, self.cut_of, self.draw, self.switch_at, self.switch_s, self.switches,
            self.time, self.link, self.cuts, self.failure, self.limits, self.world.batch_limit, self.clock, self.at,
            self.workers, self.late, self.waiting, self.ready, self.how, self.out,
        )  # fmt: skip

    def answered(self, now_s: float) -> list[Observation]:
        """Requests whose answer came since the last call and is not in the future."""
        candidates = np.concatenate((self.open, np.arange(self.reported, self.known)))
        self.reported = self.known
        how, done = self.how[candidates], self.out[k.DONE, candidates]
        there = ((how == k.ON_EDGE) | (how == k.BY_CLOUD) | (how == k.FELL_BACK)) & (done <= now_s)
        self.open = candidates[~there]
        seen = candidates[there][np.argsort(done[there], kind="stable")]
        columns = (
            self.cut_of[seen],
            self.out[k.EDGE, seen],
            self.out[k.SEND, seen],
            self.out[k.CLOUD, seen],
            self.out[k.DONE, seen] - self.arrival[seen],
            self.how[seen],
        )
        return [
            Observation(
                cut=cut,
                edge_s=edge_s,
                send_s=send_s if how == k.BY_CLOUD else None,
                cloud_s=cloud_s if how == k.BY_CLOUD else None,
                latency_s=latency_s,
                fell_back=how == k.FELL_BACK,
            )
            for cut, edge_s, send_s, cloud_s, latency_s, how in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def served(self, name: str, decided: np.ndarray) -> Served:
        """The result."""
        return Served(
            name=name,
            table=self.table,
            arrival_s=self.arrival,
            cut=self.cut_of,
            how=self.how,
            parts_s=self.out[:-1],
            done_s=self.out[-1],
            ticks_s=self.ticks,
            decided=decided,
        )


def _at(arrays: Mapping[str, np.ndarray], tick: int) -> dict[str, np.ndarray]:
    return {name: values[tick : tick + 1] for name, values in arrays.items()}


def _link(truth: CutTable, trace: Trace) -> np.ndarray:
    on_edge, on_cloud = slowdowns(truth, trace.values)
    values = trace.values
    rows = (values["uplink_bps"], values["downlink_bps"], values["rtt_s"], on_edge, on_cloud, values["cloud_queue_s"])
    return np.ascontiguousarray(np.vstack(rows), dtype=np.float64)
