"""Simulate policies on an artifact between two devices along traces, and write what happened."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.api.simulation_request import SimulateRequest
from edge_deploy.api.simulation_setup import Ready, allowed_of, doubts, make_ready
from edge_deploy.core.benchmark import Provenance
from edge_deploy.core.conditions import Trace
from edge_deploy.core.publish import published_folder
from edge_deploy.core.serde import write_json
from edge_deploy.report.document import write_page
from edge_deploy.report.simulation_drawings import AlongTrace
from edge_deploy.report.simulation_page import simulation_page
from partitioner.controller import train
from partitioner.measured import Probes
from partitioner.policy import Policy, Training
from partitioner.setting import Setting
from partitioner.simulator.compare import Comparison, Score, compare
from partitioner.simulator.parquet import RequestWriter, can_write
from partitioner.simulator.simulate import Served

__all__ = ["SimulateRequest", "Simulation", "TraceUsed", "simulate_policies"]

SIMULATION, PAGE, REQUESTS = "simulation.json", "report.html", "requests.parquet"
# Points of a drawn distribution.
QUANTILES = np.concatenate((np.linspace(0, 0.95, 96), 1 - np.geomspace(0.05, 0.0005, 30)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceUsed:
    """A trace that was scored, and what was made up or mended in it."""

    source: str
    seconds: float
    requests: int
    filled: dict[str, str]
    repairs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What came out.

    Attributes:
        provenance: The weaker of the profiles'; the latencies themselves are simulated in any case.
        cuts: How many were considered.
        static_cut: What was best on the training traces.
        blocks: Minutes of trace that were resampled for the intervals.
    """

    artifact: str
    edge: str
    cloud: str
    codec: str
    provenance: Provenance
    cuts: int
    static_cut: str
    setting: Setting
    probes: Probes
    workers: int
    batch_limit: int
    trained_on: tuple[str, ...]
    scored_on: tuple[TraceUsed, ...]
    scores: tuple[Score, ...]
    blocks: int
    pays: bool
    verdict: str
    seed: int
    notes: tuple[str, ...] = ()


def simulate_policies(
    request: SimulateRequest,
    out: Path | str | None = None,
    *,
    force: bool = False,
    requests_file: bool = True,
    progress: Callable[[str], None] = lambda stage: None,
) -> Simulation:
    """Simulate every policy and bound on every trace.

    Args:
        out: Folder for simulation.json, report.html and requests.parquet; None to write nothing.
        force: Replace the folder if it exists.
        requests_file: Write a row for every request too, where pyarrow is installed.

    Raises:
        BadInput: A file, trace or option is not what it must be.
    """
    progress("read the model, the profiles and the traces")
    ready = make_ready(request, *allowed_of(request))
    scored = [trace for trace, _ in ready.rounds]
    notes = [*ready.notes, *doubts(ready.edge, [*ready.trained, *scored])]
    training = Training(traces=ready.trained, setting=ready.world.setting, probes=request.probes)
    policies = []
    for name in ready.policies:
        progress(f"train {name}")
        policies.append(train(name, ready.table, training))
    if requests_file and out is not None and not can_write():
        requests_file = False
        notes.append("requests.parquet was not written: pip install 'edge-deploy[simulate]' brings pyarrow.")
    along = _Along(ready.table.cuts)
    with ExitStack() as stack:
        folder = stack.enter_context(published_folder(Path(out), force=force)) if out is not None else None
        writer = None
        if folder is not None and requests_file:
            writer = stack.enter_context(RequestWriter(folder / REQUESTS))

        def keep(number: int, served: Served) -> None:
            progress(f"{served.name} on {scored[number].source}")
            along.add(number, served)
            if writer is not None:
                writer.write(scored[number].source, served)

        found = compare(policies, ready.rounds, ready.world, seed=request.seed, keep=keep)
        static = next(policy for policy in policies if policy.name == "static")
        simulation = _summed_up(request, ready, static, found, notes)
        if folder is not None:
            write_json(simulation, folder / SIMULATION)
            page = simulation_page(
                f"{simulation.artifact} between {simulation.edge} and {simulation.cloud}",
                _lead(simulation),
                found,
                along.picture(scored[0]),
                along.distributions(),
                _facts(simulation),
            )
            write_page(page, folder / PAGE)
    return simulation


def _summed_up(
    request: SimulateRequest, ready: Ready, static: Policy, found: Comparison, notes: list[str]
) -> Simulation:
    return Simulation(
        artifact=ready.edge.artifact,
        edge=ready.edge.device,
        cloud=ready.cloud.device,
        codec=request.codec,
        provenance=static.table.provenance,
        cuts=len(static.table.cuts),
        static_cut=static.table.cuts[static.first],
        setting=ready.world.setting,
        probes=request.probes,
        workers=request.workers,
        batch_limit=request.batch_limit,
        trained_on=tuple(trace.source for trace in ready.trained),
        scored_on=tuple(
            TraceUsed(
                source=trace.source,
                seconds=trace.end_s,
                requests=len(arrivals),
                filled=trace.filled,
                repairs=tuple(trace.repairs),
            )
            for trace, arrivals in ready.rounds
        ),
        scores=found.scores,
        blocks=found.blocks,
        pays=found.pays,
        verdict=found.verdict,
        seed=request.seed,
        notes=tuple(notes),
    )


class _Along:
    """Collects what the pictures need while simulations come and go."""

    def __init__(self, cuts: tuple[str, ...]) -> None:
        self.cuts = cuts
        self.first: dict[str, Served] = {}
        self.latencies: dict[str, list[np.ndarray]] = {}

    def add(self, number: int, served: Served) -> None:
        """One result."""
        if number == 0:
            self.first[served.name] = served
        self.latencies.setdefault(served.name, []).append(served.latency_s)

    def distributions(self) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
        """By policy: latencies and the share of requests that take no longer."""
        drawn = {}
        for name, parts in self.latencies.items():
            values = np.sort(np.concatenate(parts))
            at = np.minimum((QUANTILES * len(values)).astype(np.int64), len(values) - 1)
            finite = np.isfinite(values[at])
            drawn[name] = (tuple(values[at][finite].tolist()), tuple(QUANTILES[finite].tolist()))
        return drawn

    def picture(self, trace: Trace) -> AlongTrace:
        """The first trace and what was done on it."""
        return AlongTrace(
            source=trace.source,
            end_s=trace.end_s,
            time_s=trace.time_s,
            uplink_bps=trace.values["uplink_bps"],
            edge_load=trace.values["edge_load"],
            cuts=self.cuts,
            decided={name: (served.ticks_s, served.decided) for name, served in self.first.items()},
            latency={name: (served.arrival_s, served.latency_s) for name, served in self.first.items()},
        )


def _lead(simulation: Simulation) -> str:
    requests = sum(used.requests for used in simulation.scored_on)
    return (
        f"{requests} requests on {len(simulation.scored_on)} trace(s), {simulation.cuts} cuts, profiles "
        f"{simulation.provenance}, latencies simulated. Trained on {len(simulation.trained_on)} other trace(s)."
    )


def _facts(simulation: Simulation) -> list[tuple[str, str]]:
    setting = simulation.setting
    made_up = [
        f"{used.source}: " + ", ".join(f"{name} {how}" for name, how in used.filled.items())
        for used in simulation.scored_on
        if used.filled
    ]
    mended = [f"{used.source}: {repair}" for used in simulation.scored_on for repair in used.repairs]
    return [
        ("static cut", simulation.static_cut),
        ("requests", f"{setting.rate_hz:.3g} a second on average, seed {simulation.seed}"),
        ("decisions", f"every {setting.tick_s:g} s"),
        (
            "probes",
            f"mean of the tick before, {simulation.probes.delay_s:g} s late, noise {simulation.probes.noise:g}",
        ),
        ("switch", f"{setting.cold_s:g} s cold, {setting.warm_s:g} s warm; kept warm: {_warm(setting)}"),
        ("without an answer", f"finished on the edge after {setting.fallback_after_s:.3g} s"),
        *_deadline(setting),
        ("cloud", f"{simulation.workers} workers, batches of up to {simulation.batch_limit}"),
        ("codec", simulation.codec),
        ("trained on", "; ".join(simulation.trained_on)),
        ("scored on", "; ".join(used.source for used in simulation.scored_on)),
        ("made up in traces", "; ".join(made_up) or "nothing"),
        ("mended in traces", "; ".join(mended) or "nothing"),
        ("intervals", f"95 %, {simulation.blocks} stretches of 60 s resampled together for all policies"),
        *(("note", note) for note in simulation.notes),
    ]


def _deadline(setting: Setting) -> list[tuple[str, str]]:
    if math.isinf(setting.max_latency_s):
        return []
    return [
        ("limit", f"{setting.max_latency_s:g} s a request; adapting policies keep to it wherever a cut is expected to")
    ]


def _warm(setting: Setting) -> str:
    return "all cuts" if setting.warm is None else ", ".join(setting.warm) or "none"
