"""The controller: one pure step from what was measured to a plan, the same in the simulator and on a device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from edge_deploy.core import registry
from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.partition_plan import PartitionPlan
from partitioner.cost import as_arrays, cost, cost_parts
from partitioner.cut_table import CutTable
from partitioner.policy import Observation, Policy, State, Training
from partitioner.setting import expected_s

__all__ = ["POLICIES", "decide", "observe", "run", "step", "train"]

POLICIES = "partitioner.policies"
_SHORT = {ALL_EDGE: f"fixed:{ALL_EDGE}", ALL_CLOUD: f"fixed:{ALL_CLOUD}"}


def train(spec: str, table: CutTable, training: Training) -> Policy:
    """The policy that `spec` names, trained.

    Args:
        spec: A module of `partitioner.policies`, with an argument after a colon where it takes one: "static",
            "fixed:012-3fa9c1", "all-edge", "threshold-table:decisions.json", "learned".

    Raises:
        BadInput: No such policy, or not with this argument.
    """
    name, _, argument = _SHORT.get(spec, spec).partition(":")
    module: ModuleType = registry.load(POLICIES, name)
    trained: Policy = module.train(table, training, spec, argument)
    return trained


def step(policy: Policy, state: State, now_s: float, conditions: Conditions) -> tuple[State, PartitionPlan]:
    """Decide once: when conditions change or a tick has passed.

    Args:
        state: `policy.start()`, then what the last step gave.
        conditions: As measured; the newest there are.

    Returns:
        The new state, and the plan that holds until the next step.
    """
    arrays = as_arrays(conditions)
    before = state.cut
    state = decide(policy, state, now_s, arrays)
    table = policy.table
    costs = cost_parts(table, cost(table, arrays), 0, state.cut)
    cut = table.cuts[state.cut]
    why = f"{policy.name}: {'stays at' if state.cut == before else f'from {table.cuts[before]} to'} {cut}."
    plan = PartitionPlan(
        cuts=(cut,),
        codec=table.codec,
        objective="latency",
        conditions=conditions,
        cost=costs,
        why=why,
        provenance=table.provenance,
    )
    return state, plan


def decide(
    policy: Policy,
    state: State,
    now_s: float,
    conditions: Mapping[str, np.ndarray],
    looked: Mapping[str, np.ndarray] | None = None,
) -> State:
    """`step` on arrays of shape (1,) and without the plan; `state.cut` is the index of the chosen cut.

    Args:
        looked: What `policy.look` makes of the conditions, where it is known already.
    """
    state, rows = policy.foresee(state, policy.look(conditions) if looked is None else looked)
    chosen = policy.choose(state, now_s, int(rows[0].argmin()), rows[0])
    limits = _seconds_to_limit(policy, conditions, rows)
    return chosen if limits is None else _within_limit(policy, chosen, now_s, limits[0])


def observe(policy: Policy, state: State, seen: Sequence[Observation]) -> State:
    """Tell the policy what answered requests took."""
    return policy.observe(state, seen) if seen else state


def run(
    policy: Policy, ticks: np.ndarray, conditions: Mapping[str, np.ndarray], state: State | None = None
) -> tuple[State, np.ndarray]:
    """Decide at every tick without seeing requests; the same decisions as `step` at each of them.

    Args:
        ticks: Seconds, increasing; shape (n,).
        conditions: By field, shape (n,).

    Returns:
        The last state, and the index of the cut from each tick on; shape (n,).
    """
    state = policy.start() if state is None else state
    state, rows = policy.foresee(state, policy.look(conditions))
    chosen = np.empty(len(ticks), dtype=np.int64)
    best = rows.argmin(axis=1).tolist()
    limits = _seconds_to_limit(policy, conditions, rows)
    for tick, now_s in enumerate(ticks.tolist()):
        state = policy.choose(state, now_s, best[tick], rows[tick])
        if limits is not None:
            state = _within_limit(policy, state, now_s, limits[tick])
        chosen[tick] = state.cut
    return state, chosen


def _seconds_to_limit(policy: Policy, conditions: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray | None:
    """Expected seconds of every cut, shape (n, C); None where nothing is limited or the policy never moves."""
    if math.isinf(policy.setting.max_latency_s) or not policy.moves:
        return None
    return rows if policy.foresees_seconds else expected_s(policy.table, dict(conditions), policy.setting)


def _within_limit(policy: Policy, state: State, now_s: float, seconds: np.ndarray) -> State:
    limit, fastest = policy.setting.max_latency_s, int(seconds.argmin())
    if seconds[state.cut] <= limit or seconds[fastest] > limit:
        return state
    return State(cut=fastest, since_s=now_s, memory=state.memory)
