"""Plan where to cut an artifact between an edge and a cloud, from their profiles and the state of the link."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_deploy.api.codec_loss import CodecLosses
from edge_deploy.api.cuts import ModelToCut, model_to_cut
from edge_deploy.core.conditions import Conditions
from edge_deploy.core.errors import BadInput
from edge_deploy.core.partition_plan import PartitionPlan
from edge_deploy.core.profile import PROFILE, ModelProfile
from edge_deploy.core.serde import read_json
from partitioner.candidates import legal_cuts
from partitioner.constraints import Constraints
from partitioner.objectives import parse_objective
from partitioner.plan import plan
from partitioner.plan_table import Grid, PlanTable, plan_table
from partitioner.problem import Problem
from partitioner.three_tiers import Links, plan_three_tiers

__all__ = ["PlanRequest", "plan_over_three_tiers", "plan_partition", "read_problem", "tabulate_plans"]

_NO_LIMITS = Constraints()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What is to be cut, between whom, and what is wanted.

    Attributes:
        artifact: An artifact folder or a `.tflite` file.
        edge: A `profile.json`, a folder that holds one, or the profile itself; `cloud` likewise.
        objective: See `partitioner.objectives.parse_objective`.
        codec: Name of a codec of `runtimes.codecs`.
        solver: A module of `partitioner.solvers`; None for all that can treat the problem.
        exits: By layer name: share of requests that its output answers; empty for those of the artifact's manifest.
        codec_measured: What `edge-deploy codecs` wrote: sizes and losses of the codec by cut; losses that the
            constraints tell win.
    """

    artifact: Path | str
    edge: Path | str | ModelProfile
    cloud: Path | str | ModelProfile
    objective: str = "latency"
    codec: str = "raw"
    constraints: Constraints = _NO_LIMITS
    solver: str | None = None
    exits: Mapping[str, float] = field(default_factory=dict)
    codec_measured: Path | str | None = None


def plan_partition(request: PlanRequest, conditions: Conditions) -> PartitionPlan:
    """The best cut under `conditions`, its cost part by part, and everything that was weighed.

    Raises:
        BadInput: A file cannot be read, or a profile does not fit the artifact.
        NoFeasiblePlan: Says which constraint rules out which cuts.
        Unsupported: The solver cannot treat this problem.
    """
    problem = read_problem(request)
    found = plan(problem, conditions, solver=request.solver)
    return dataclasses.replace(found, warnings=found.warnings + _doubts(problem))


def plan_over_three_tiers(request: PlanRequest, middle: Path | str | ModelProfile, links: Links) -> PartitionPlan:
    """The best two nested cuts between the request's edge (the device), `middle` and the request's cloud.

    Raises:
        BadInput: A file cannot be read, or a profile does not fit the artifact.
        NoFeasiblePlan: Says which constraint rules out which cuts.
    """
    problem = dataclasses.replace(read_problem(request), exits=request.exits)
    if any(problem.exits.values()):
        raise BadInput("three tiers: early exits are priced between two tiers only; leave them or the middle tier out.")
    between = _profile(middle)
    strange = _of_another_file(between, model_to_cut(request.artifact, batch=problem.edge.batch))
    if strange:
        raise BadInput(strange)
    found, _ = plan_three_tiers(problem, legal_cuts(problem.graph), between, links)
    return dataclasses.replace(found, warnings=found.warnings + _doubts(problem))


def tabulate_plans(request: PlanRequest, conditions: Conditions, grid: Grid | None = None) -> PlanTable:
    """The best cut at every point of a grid of conditions, for apps that switch by themselves.

    Args:
        conditions: For what the grid does not vary.
        grid: None for the default grid.

    Raises:
        BadInput: A file cannot be read, or a profile does not fit the artifact.
        NoFeasiblePlan: No cut is feasible at any point.
    """
    return plan_table(read_problem(request), conditions, grid or Grid())


def read_problem(request: PlanRequest) -> Problem:
    """The request with its files read.

    Raises:
        BadInput: A file cannot be read, or a profile does not fit the artifact.
    """
    edge, cloud = _profile(request.edge), _profile(request.cloud)
    if edge.batch != cloud.batch:
        raise BadInput(f"profiles: edge has batch {edge.batch}, cloud {cloud.batch}; profile both with the same batch.")
    model = model_to_cut(request.artifact, batch=edge.batch)
    problems = [text for profile in (edge, cloud) if (text := _of_another_file(profile, model))]
    problems += _of_another_batch(edge, model)
    if problems:
        raise BadInput(*problems)
    measured = None if request.codec_measured is None else read_json(CodecLosses, Path(request.codec_measured))
    constraints = request.constraints
    if measured is not None:
        drops = {**measured.drops_of(request.codec), **constraints.accuracy_drop}
        constraints = dataclasses.replace(constraints, accuracy_drop=drops)
    return Problem(
        graph=model.graph,
        edge=edge,
        cloud=cloud,
        codec=request.codec,
        objective=parse_objective(request.objective),
        constraints=constraints,
        exits=request.exits or model.exits,
        coded_bytes={} if measured is None else measured.bytes_of(request.codec),
    )


def _profile(given: Path | str | ModelProfile) -> ModelProfile:
    if isinstance(given, ModelProfile):
        return given
    path = Path(given)
    return read_json(ModelProfile, path / PROFILE if path.is_dir() else path)


def _of_another_file(profile: ModelProfile, model: ModelToCut) -> str:
    """Layers may bear the same names at another precision; the digest tells the files apart."""
    names = {layer.name for layer in model.graph.layers}
    if not profile.sha256 or profile.sha256 == model.sha256 or names != set(profile.layer_s):
        return ""  # where layers differ, the partitioner names them
    return (
        f"profile of {profile.artifact} on {profile.device}: was made of a model file with sha256 "
        f"{profile.sha256[:12]}, {model.name} has {model.sha256[:12]}; profile this one (`edge-deploy profile`)."
    )


def _of_another_batch(profile: ModelProfile, model: ModelToCut) -> list[str]:
    """Times of one batch size do not fit the bytes of another."""
    first = model.graph.inputs[0].shape if model.graph.inputs else ()
    if not first or first[0] == profile.batch:
        return []
    return [
        f"profile of {profile.artifact} on {profile.device}: was made with batch {profile.batch}, the layers of "
        f"{model.name} are those of batch {first[0]}; profile its first signature."
    ]


def _doubts(problem: Problem) -> tuple[str, ...]:
    return tuple(
        f"profile on {profile.device}: layers and overhead add up to {profile.sum_s / profile.whole_s:.0%} of the "
        "measured whole; its cuts are less sure than its ends."
        for profile in (problem.edge, problem.cloud)
        if not profile.adds_up and profile.whole_s > 0
    )
