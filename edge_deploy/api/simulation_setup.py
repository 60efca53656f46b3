"""A request for a simulation made ready: files read, forbidden cuts left out, traces cut up, requests drawn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.api.plan import PlanRequest, read_problem
from edge_deploy.api.simulation_request import (
    Allowed,
    SimulateRequest,
    allowed_cuts,
    allowed_policies,
    arrivals_on,
    patience_s,
    traces_of,
)
from edge_deploy.core.conditions import Trace
from edge_deploy.core.cut import ALL_EDGE
from edge_deploy.core.profile import ModelProfile
from partitioner.cut_table import CutTable
from partitioner.problem import Problem
from partitioner.simulator.world import World

__all__ = ["Ready", "allowed_of", "doubts", "make_ready"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ready:
    """What is simulated.

    Attributes:
        policies: With static.
        trained: Traces to learn from.
        rounds: Traces to score, each with the moments at which requests come.
        notes: What the user should know, without `doubts`.
    """

    edge: ModelProfile
    cloud: ModelProfile
    table: CutTable
    policies: tuple[str, ...]
    trained: tuple[Trace, ...]
    rounds: tuple[tuple[Trace, np.ndarray], ...]
    world: World
    notes: tuple[str, ...]


def allowed_of(request: SimulateRequest) -> tuple[Problem, Allowed]:
    """The problem with its files read, and the cuts that its constraints leave.

    Raises:
        BadInput: A file cannot be read, or a profile does not fit the artifact.
        NoFeasiblePlan: No cut keeps the constraints.
    """
    problem = read_problem(
        PlanRequest(
            artifact=request.artifact,
            edge=request.edge,
            cloud=request.cloud,
            codec=request.codec,
            constraints=request.constraints,
            exits=request.exits,
            codec_measured=request.codec_measured,
        )
    )
    return problem, allowed_cuts(problem)


def make_ready(request: SimulateRequest, problem: Problem, allowed: Allowed) -> Ready:
    """The rest: policies, traces, requests, the world.

    Raises:
        BadInput: A trace, policy or option is not what it must be.
    """
    names, left_out = allowed_policies(request.policies, allowed)
    trained, scored, notes = traces_of(request)
    rounds = tuple((trace, arrivals_on(request, trace, number)) for number, trace in enumerate(scored))
    return Ready(
        edge=problem.edge,
        cloud=problem.cloud,
        table=allowed.table,
        policies=names,
        trained=tuple(trained),
        rounds=rounds,
        world=_world(request, rounds, patience_s(request, allowed.table)),
        notes=(*notes, *_limits(allowed), *left_out),
    )


def _world(request: SimulateRequest, rounds: tuple[tuple[Trace, np.ndarray], ...], patience: float) -> World:
    rate_hz = sum(len(arrivals) for _, arrivals in rounds) / sum(trace.end_s for trace, _ in rounds)
    limit_s = request.constraints.max_latency_s
    return World(
        setting=dataclasses.replace(
            request.setting,
            rate_hz=rate_hz,
            fallback_after_s=patience,
            max_latency_s=math.inf if limit_s is None else limit_s,
        ),
        probes=request.probes,
        workers=request.workers,
        batch_limit=request.batch_limit,
        batch_wait_s=request.batch_wait_s,
        cloud_fails=request.cloud_fails,
    )


def _limits(allowed: Allowed) -> list[str]:
    """Which constraints rule out how many cuts."""
    ruled: dict[str, int] = {}
    for reason in allowed.refused.values():
        ruled[reason.partition(":")[0]] = ruled.get(reason.partition(":")[0], 0) + 1
    said = [
        f"{name} rules out {count} of {len(allowed.refused) + len(allowed.table.cuts)} cuts."
        for name, count in ruled.items()
    ]
    if ALL_EDGE in allowed.refused:
        said.append("all-edge is ruled out, so no request is finished on the edge when the cloud does not answer.")
    return said


def doubts(edge: ModelProfile, traces: Sequence[Trace]) -> list[str]:
    """Conditions that the slowdown curves do not cover."""
    said = []
    for name, curve in (("edge_load", edge.cpu), ("edge_memory", edge.memory)):
        highest = max(float(trace.values[name].max()) for trace in traces)
        if highest > 0 and len(curve.at) == 1:
            said.append(
                f"{name} reaches {highest:.0%}, but the profile on {edge.device} has no slowdown for it: it counts as "
                "none (`edge-deploy profile --under-load` measures it)."
            )
        elif not bool(curve.covers(highest)):
            said.append(
                f"{name} reaches {highest:.0%}; the profile on {edge.device} was measured up to {curve.at[-1]:.0%}, "
                "beyond that its last slowdown is used (`edge-deploy profile --under-load` measures more)."
            )
    return said
