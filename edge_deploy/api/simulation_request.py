"""What is to be simulated, and the traces, requests and cuts that it asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_deploy.core.conditions import Conditions, Trace
from edge_deploy.core.cut import ALL_EDGE, Cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.units import parse_seconds
from partitioner.candidates import legal_cuts
from partitioner.constraints import Constraints, check_layers, no_plan, ruled_out
from partitioner.cut_table import CutTable, build_cut_table
from partitioner.measured import Probes
from partitioner.plan import proposals
from partitioner.plan_table import Grid
from partitioner.problem import Problem
from partitioner.setting import Setting
from partitioner.simulator.arrivals import periodic, poisson, read_arrivals
from partitioner.trace_part import part_of
from partitioner.traces.generate import generate
from partitioner.traces.read import read_trace

__all__ = [
    "DEFAULT_POLICIES",
    "Allowed",
    "SimulateRequest",
    "allowed_cuts",
    "allowed_policies",
    "arrivals_on",
    "candidate_cuts",
    "patience_s",
    "parse_span",
    "policy_names",
    "traces_of",
]

DEFAULT_POLICIES = (
    "all-edge",
    "all-cloud",
    "static",
    "always-best",
    "threshold-table",
    "hysteresis",
    "predictive",
    "learned",
)
GENERATED = "gen:"
# A request is finished on the edge after that many times what the whole model takes there, but not within a second.
PATIENCE, LEAST_PATIENCE_S = 3.0, 1.0
_TRAINING_SEEDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateRequest:
    """What is to be simulated.

    Attributes:
        artifact: As for a plan, like `edge`, `cloud`, `codec`, `exits` and `codec_measured`.
        traces: Files, "archive::member", or generators: "gen:markov-link+outages".
        policies: See `partitioner.controller.train`; static is always among them.
        train: Traces to learn from; without any, the first half of each trace trains and only the second is scored.
        rate_hz: Requests a second; not looked at with arrivals from a file.
        arrivals: "poisson", "periodic", or a file with one moment in seconds a line.
        constraints: No policy chooses a cut that one of them rules out; of the latency see `Setting.max_latency_s`.
        setting: Its rate, fallback and limit of the latency are set from here.
        fallback_after_s: None: three times what the model takes on the idle edge, at least a second.
        seconds: Length of generated traces.
        fill, columns, interval_s, repair: As for `partitioner.traces.read.read_trace`.
    """

    artifact: Path | str
    edge: Path | str
    cloud: Path | str
    traces: tuple[str, ...]
    policies: tuple[str, ...] = DEFAULT_POLICIES
    train: tuple[str, ...] = ()
    rate_hz: float = 1.0
    arrivals: str = "poisson"
    codec: str = "raw"
    exits: Mapping[str, float] = field(default_factory=dict)
    codec_measured: Path | str | None = None
    constraints: Constraints = field(default_factory=Constraints)
    setting: Setting = field(default_factory=Setting)
    fallback_after_s: float | None = None
    probes: Probes = field(default_factory=Probes)
    workers: int = 4
    batch_limit: int = 1
    batch_wait_s: float = 0.0
    cloud_fails: tuple[tuple[float, float], ...] = ()
    seconds: float = 600.0
    fill: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    interval_s: float | None = None
    repair: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The cuts that policies may choose from.

    Attributes:
        table: Of them.
        refused: By id of each other candidate: the constraint that rules it out.
    """

    table: CutTable
    refused: dict[str, str]


def allowed_cuts(problem: Problem) -> Allowed:
    """The candidates that keep the problem's constraints under all conditions.

    Raises:
        BadInput: A constraint names an unknown layer, or a profile does not fit the model.
        NoFeasiblePlan: None does; says which constraint rules out which cuts.
    """
    check_layers(problem.constraints, problem.graph)
    cuts = candidate_cuts(problem)
    table = build_cut_table(
        problem.graph,
        cuts,
        edge=problem.edge,
        cloud=problem.cloud,
        codec=problem.codec,
        exits=problem.exits,
        coded_bytes=problem.coded_bytes,
    )
    reasons = ruled_out(problem.constraints, table, cuts, problem.graph)
    if all(reasons):
        raise no_plan(reasons, table.cuts)
    return Allowed(
        table=table.only(np.array([not reason for reason in reasons])),
        refused={cut.id: reason for cut, reason in zip(cuts, reasons, strict=True) if reason},
    )


def allowed_policies(asked: tuple[str, ...], allowed: Allowed) -> tuple[tuple[str, ...], list[str]]:
    """The policies, and notes on those of the default ones that always use a cut which is ruled out.

    Raises:
        BadInput: Such a policy was asked for by name.
    """
    bad = {
        name: allowed.refused[name.removeprefix("fixed:")]
        for name in asked
        if name.removeprefix("fixed:") in allowed.refused
    }
    if bad and asked != DEFAULT_POLICIES:
        raise BadInput(
            *(f"policy {name}: its cut is ruled out by a constraint, {reason}." for name, reason in bad.items())
        )
    notes = [f"{name} was left out: {reason}." for name, reason in bad.items()]
    return policy_names(tuple(name for name in asked if name not in bad)), notes


def policy_names(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The policies once each, with static, which the others are compared with.

    Raises:
        BadInput: None was asked for.
    """
    if not asked:
        raise BadInput("policies: none; ask for at least one, e.g. learned.")
    return tuple(dict.fromkeys(asked if "static" in asked else ("static", *asked)))


def traces_of(request: SimulateRequest) -> tuple[list[Trace], list[Trace], list[str]]:
    """Traces to learn from, traces to score, and what the user should know about them.

    Raises:
        BadInput: A trace cannot be read or generated, or one is both learned from and scored.
    """
    if not request.traces:
        raise BadInput("traces: none; give at least one file or generator.")
    both = sorted(set(request.train) & {text for text in request.traces if not text.startswith(GENERATED)})
    if both:
        raise BadInput(f"trace {', '.join(both)}: is to train and to score; a policy would know what comes.")
    scored = [_trace(request, text, number) for number, text in enumerate(request.traces)]
    if request.train:
        trained = [_trace(request, text, _TRAINING_SEEDS + number) for number, text in enumerate(request.train)]
        return trained, scored, []
    trained = [part_of(trace, 0.0, trace.end_s / 2) for trace in scored]
    note = "no training traces were given: the first half of each trace trained, the second half was scored."
    return trained, [part_of(trace, trace.end_s / 2, trace.end_s) for trace in scored], [note]


def _trace(request: SimulateRequest, text: str, number: int) -> Trace:
    if text.startswith(GENERATED):
        name = text.removeprefix(GENERATED)
        return generate(name, seed=request.seed + number, seconds=request.seconds, fill=request.fill)
    return read_trace(
        text,
        columns=request.columns or None,
        interval_s=request.interval_s,
        repair=request.repair,
        fill=request.fill,
        seed=request.seed + number,
    )


def arrivals_on(request: SimulateRequest, trace: Trace, number: int) -> np.ndarray:
    """When requests come on one of the traces.

    Raises:
        BadInput: None comes within the trace, or the file or rate is bad.
    """
    if request.arrivals == "poisson":
        found = poisson(request.rate_hz, trace.end_s, request.seed + number)
    elif request.arrivals == "periodic":
        found = periodic(request.rate_hz, trace.end_s)
    else:
        found = read_arrivals(request.arrivals)
        found = found[found < trace.end_s]
    if not len(found):
        raise BadInput(f"trace {trace.source}: no request comes within its {trace.end_s:g} s; raise the rate.")
    return found


def candidate_cuts(problem: Problem) -> tuple[Cut, ...]:
    """Legal prefixes, and what min-cut proposes on slow and fast links."""
    found = {cut.id: cut for cut in legal_cuts(problem.graph)}
    if not any(problem.exits.values()):
        for uplink_bps in Grid().uplink_bps:
            now = Conditions(uplink_bps=uplink_bps, downlink_bps=uplink_bps, rtt_s=0.05)
            found |= {cut.id: cut for cut in proposals(problem, now, solver="min-cut")}
    return tuple(found.values())


def patience_s(request: SimulateRequest, table: CutTable) -> float:
    """After how long a request is finished on the edge."""
    if request.fallback_after_s is not None:
        return request.fallback_after_s
    if ALL_EDGE not in table.cuts:
        return math.inf
    return max(LEAST_PATIENCE_S, PATIENCE * float(table.edge_s[table.index(ALL_EDGE)]))


def parse_span(text: str) -> tuple[float, float]:
    """Start and end of "20s-30s"."""
    begin, separator, end = text.partition("-")
    if not separator:
        raise BadInput(f"--cloud-fails {text!r}: must be START-END, e.g. 20s-30s.")
    return parse_seconds(begin, where="--cloud-fails"), parse_seconds(end, where="--cloud-fails")
