"""Weigh what the solvers propose under one condition and say what was considered."""

from __future__ import annotations

import dataclasses
import math

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.partition_plan import Considered, PartitionPlan
from edge_deploy.core.registry import load, names
from partitioner.constraints import too_slow
from partitioner.cost import as_arrays, cost, cost_parts
from partitioner.decision import Prepared, decide, prepare
from partitioner.objectives import score
from partitioner.problem import Problem, Solver
from runtimes.codecs import load_codec

__all__ = ["considered", "plan", "proposals"]


def plan(problem: Problem, now: Conditions, *, solver: str | None = None) -> PartitionPlan:
    """The best cut under `now`, with everything that was weighed.

    Args:
        solver: A module of `partitioner.solvers`; None weighs the proposals of all that can treat the problem.

    Raises:
        BadInput: A profile does not fit the model, or a constraint names an unknown layer.
        NoFeasiblePlan: Says which constraint rules out which cuts.
        Unsupported: The solver that was named cannot treat this problem.
    """
    prepared = prepare(problem, proposals(problem, now, solver=solver))
    found = decide(prepared, now)
    notes = found.warnings
    if not load_codec(problem.codec).lossless:
        accuracy = problem.constraints.accuracy_drop.get(found.cuts[0])
        said = "was not measured" if accuracy is None else f"was measured to drop by {accuracy:.4g}"
        notes += (f"codec {problem.codec} is lossy; accuracy at this cut {said}.",)
    crosses = bool(found.cost.up_bytes) and not load_codec(problem.codec).fixed_size
    if crosses and found.cuts[0] not in problem.coded_bytes:
        notes += (f"codec {problem.codec}: its size at this cut was not measured; the most that it may send is used.",)
    guessed = [
        profile.device for profile in (problem.edge, problem.cloud) if problem.codec not in profile.codec_s_per_byte
    ]
    if guessed and load_codec(problem.codec).encode_s_per_byte:
        notes += (f"codec {problem.codec}: its times on {' and '.join(guessed)} are estimates from a desktop core.",)
    layers = found.edge_layers[0]
    if layers != tuple(layer.name for layer in problem.graph.layers[: len(layers)]):
        notes += (f"{found.cuts[0]} is no prefix of the layers: split it by --edge-layers {','.join(layers)}.",)
    return dataclasses.replace(found, considered=considered(prepared, now), warnings=notes)


def proposals(problem: Problem, now: Conditions, *, solver: str | None = None) -> tuple[Cut, ...]:
    """Cuts that the solvers want weighed, each once.

    Raises:
        Unsupported: The solver that was named cannot treat this problem.
    """
    found: dict[str, Cut] = {}
    for name in names("partitioner.solvers") if solver is None else (solver,):
        module: Solver = load("partitioner.solvers", name)
        try:
            found.update((cut.id, cut) for cut in module.propose(problem, now))
        except Unsupported:
            if solver is not None:
                raise
    return tuple(found.values())


def considered(prepared: Prepared, now: Conditions) -> tuple[Considered, ...]:
    """Every cut with its cost, best first; those that break a constraint come last."""
    table = prepared.table
    costs = cost(table, as_arrays(now))
    scores, total = score(costs, prepared.problem.objective)[0], costs.total_s[0]
    limit = prepared.problem.constraints.max_latency_s
    refused = [
        reason or too_slow(float(seconds), limit) for reason, seconds in zip(prepared.refused, total, strict=True)
    ]
    ranked = sorted(range(len(table.cuts)), key=lambda i: (math.inf if refused[i] else scores[i], scores[i]))
    return tuple(
        Considered(cut=table.cuts[i], codec=table.codec, cost=cost_parts(table, costs, 0, i), refused=refused[i])
        for i in ranked
    )
