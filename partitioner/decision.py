"""One decision, fast: everything that does not depend on conditions is an array before conditions arrive."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE, Cut
from edge_deploy.core.partition_plan import CostParts, PartitionPlan
from edge_deploy.core.profile import Power, Slowdown
from edge_deploy.core.units import format_seconds
from partitioner.constraints import check_layers, no_plan, ruled_out, too_slow
from partitioner.cost import BITS_PER_BYTE
from partitioner.cut_table import CutTable, build_cut_table
from partitioner.linear_cost import LinearCost, linear_cost, moment_features
from partitioner.objectives import Objective
from partitioner.problem import Problem

__all__ = ["Prepared", "decide", "prepare", "warnings"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A problem with its candidate cuts as arrays.

    Attributes:
        refused: By column: the constraint that rules the cut out under all conditions; empty where none does.
        forbidden: Shape (C,): inf where `refused`, else 0.
        latency: Shape (5, C): seconds of each part, for the limit on latency and for what is said.
        ends: Columns of all-edge and all-cloud, as far as they are among the cuts.
    """

    problem: Problem
    cuts: tuple[Cut, ...]
    table: CutTable
    refused: tuple[str, ...]
    forbidden: np.ndarray
    linear: LinearCost
    latency: np.ndarray
    ends: tuple[int, ...]


def prepare(problem: Problem, cuts: Sequence[Cut]) -> Prepared:
    """Everything that `decide` needs, made once per model, pair of devices and codec.

    Raises:
        BadInput: A profile does not fit the model, a constraint names an unknown layer, or energy is asked for without
            power figures.
    """
    check_layers(problem.constraints, problem.graph)
    table = build_cut_table(
        problem.graph,
        cuts,
        edge=problem.edge,
        cloud=problem.cloud,
        codec=problem.codec,
        exits=problem.exits,
        coded_bytes=problem.coded_bytes,
    )
    refused = ruled_out(problem.constraints, table, cuts, problem.graph)
    linear = linear_cost(table, problem.objective)
    return Prepared(
        problem=problem,
        cuts=tuple(cuts),
        table=table,
        refused=refused,
        forbidden=np.array([math.inf if reason else 0.0 for reason in refused]),
        linear=linear,
        latency=linear_cost(table, Objective()).weights,
        ends=tuple(table.cuts.index(end) for end in (ALL_EDGE, ALL_CLOUD) if end in table.cuts),
    )


def decide(prepared: Prepared, now: Conditions) -> PartitionPlan:
    """The best of the prepared cuts under `now`.

    Raises:
        NoFeasiblePlan: Says which constraint rules out which cuts.
    """
    table, linear = prepared.table, prepared.linear
    features = np.array([moment_features(table, now)])
    scores = linear.score(features)[0] + prepared.forbidden
    total = features[0] @ prepared.latency
    if now.uplink_bps == 0:
        scores[linear.needs_uplink] = math.inf
        total[linear.needs_uplink] = math.inf
    if now.downlink_bps == 0:
        scores[linear.needs_downlink] = math.inf
        total[linear.needs_downlink] = math.inf
    limit = prepared.problem.constraints.max_latency_s
    if limit is not None:
        scores[total > limit] = math.inf
    column = int(scores.argmin())
    if scores[column] == math.inf:
        reasons = [
            refusal or too_slow(float(seconds), limit) for refusal, seconds in zip(prepared.refused, total, strict=True)
        ]
        raise no_plan(reasons, table.cuts)
    return PartitionPlan(
        cuts=(table.cuts[column],),
        codec=table.codec,
        objective=prepared.problem.objective.name,
        conditions=now,
        cost=_parts(prepared, now, features[0].tolist(), column),
        why=_why(prepared, total, column),
        provenance=table.provenance,
        warnings=warnings(table, now),
        edge_layers=(prepared.cuts[column].edge_layers,),
    )


def warnings(table: CutTable, now: Conditions) -> tuple[str, ...]:
    """Conditions that lie outside what the slowdowns were measured at."""
    found = []
    for name, curve, value in (
        ("edge load", table.edge_cpu, now.edge_load),
        ("edge memory pressure", table.edge_memory, now.edge_memory),
        ("cloud load", table.cloud_cpu, now.cloud_load),
        ("cloud memory pressure", table.cloud_memory, now.cloud_memory),
    ):
        if not curve.at[0] <= value <= curve.at[-1]:
            found.append(_outside(name, curve, value))
    return tuple(found)


def _outside(name: str, curve: Slowdown, value: float) -> str:
    swept = f"measured from {curve.at[0]:g} to {curve.at[-1]:g}" if len(curve.at) > 1 else "no slowdown was measured"
    return f"{name} {value:g}: {swept}, the nearest factor was taken; run `edge-deploy profile --under-load`."


def _parts(prepared: Prepared, now: Conditions, features: Sequence[float], column: int) -> CostParts:
    table = prepared.table
    slower_edge, up_s_per_bit, _, slower_cloud, down_s_per_bit = features
    pays = float(prepared.linear.parts[2, column])
    up_bytes, down_bytes = int(table.up_bytes[column]), int(table.down_bytes[column])
    parts = CostParts(
        edge_s=slower_edge * float(table.edge_s[column]),
        encode_s=slower_edge * float(table.encode_s[column]) * pays,
        uplink_s=up_s_per_bit * BITS_PER_BYTE * up_bytes * pays,
        rtt_s=now.rtt_s * pays,
        queue_s=now.cloud_queue_s * pays,
        cloud_s=slower_cloud * float(table.cloud_s[column] + table.decode_s[column]) * pays,
        downlink_s=down_s_per_bit * BITS_PER_BYTE * down_bytes * pays,
        up_bytes=up_bytes,
        down_bytes=down_bytes,
        edge_bytes=int(table.edge_bytes[column]),
    )
    return parts if table.power is None else _with_energy(parts, table.power)


def _with_energy(parts: CostParts, power: Power) -> CostParts:
    joules = power.compute_w * (parts.edge_s + parts.encode_s) + power.send_w * parts.uplink_s
    joules += power.receive_w * parts.downlink_s + power.wait_w * (parts.rtt_s + parts.queue_s + parts.cloud_s)
    return dataclasses.replace(parts, energy_j=joules)


def _why(prepared: Prepared, total: np.ndarray, column: int) -> str:
    cuts = prepared.table.cuts
    said = f"{cuts[column]} takes {format_seconds(float(total[column]))}"
    for end in prepared.ends:
        if end != column:
            said += f", {cuts[end]} {format_seconds(float(total[end]))}"
    return f"{said}; least {prepared.problem.objective.name} of {len(cuts)} cuts"
