"""Sweep simulations: models x pairs of devices x traces x policies x seeds as tasks, here or on a cluster.

Each cell is kept as a Parquet partition named by its content: one row a request. A sweep that was killed is started
again with the same folder and computes only what is missing; so does one with more policies, traces or seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.api.simulate import SIMULATION
from edge_deploy.api.simulation_request import GENERATED, SimulateRequest
from edge_deploy.api.simulation_setup import Ready, allowed_of, doubts, make_ready
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from edge_deploy.core.serde import write_json
from partitioner.engine.run import run_tasks
from partitioner.engine.store import load_results, partition_path
from partitioner.engine.task import Task
from partitioner.simulator.cell import Arrivals, cell_task, outcome_of_rows
from partitioner.simulator.compare import BOUNDS, STATIC, Outcome, compare_outcomes
from partitioner.simulator.swept import Cell, SimulationSweep, SweptPair

__all__ = ["simulate_sweep"]

SWEEP, PAGE, CELLS = "sweep.json", "report.html", "cells"
# Traces and their parts count their seeds on from that of the request, so seeds of a sweep keep their distance.
SEED_STEP = 10_000


def simulate_sweep(
    requests: Sequence[SimulateRequest],
    out: Path | str,
    *,
    seeds: int = 1,
    engine: str = "local",
    scheduler: str | None = None,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda stage: None,
) -> SimulationSweep:
    """Simulate every request with every seed into the folder `out`, which may hold a part of it already.

    Args:
        requests: One for each model and pair of devices; `edge_deploy.api.simulation_pairs.pair_up` finds the pairs.
        seeds: How many; the first is the request's own.
        engine, scheduler, jobs: See `partitioner.engine.run.run_tasks`.

    Raises:
        BadInput: A request is not what it must be, or `out` holds something else.
        MissingExtra: pyarrow is not installed.
        DeviceError: The cluster cannot be reached.
    """
    folder = Path(out)
    _check(requests, folder, seeds)
    tasks: dict[tuple[int, int], list[_Planned]] = {}
    ready: dict[tuple[int, int], Ready] = {}
    for number, request in enumerate(requests):
        progress(f"read model and profiles {number + 1} of {len(requests)}")
        problem, allowed = allowed_of(request)
        for place in range(seeds):
            seeded = _seeded(request, request.seed + SEED_STEP * place)
            ready[number, place] = make_ready(seeded, problem, allowed)
            tasks[number, place] = _cells(seeded, ready[number, place])
    names = _names(requests, [ready[number, 0] for number in range(len(requests))])
    every = [planned for mine in tasks.values() for planned in mine]
    shown = max(1, len(every) // 10)
    ran = run_tasks(
        [planned.task for planned in every],
        folder / CELLS,
        engine=engine,
        scheduler=scheduler,
        jobs=jobs,
        progress=lambda done, total: progress(f"{done} of {total} cells") if done % shown == 0 else None,
    )
    swept = []
    for number, request in enumerate(requests):
        progress(f"compare {names[number]}")
        mine = {place: (ready[number, place], tasks[number, place]) for place in range(seeds)}
        swept.append(_compared(names[number], request, mine, folder / CELLS))
    found = SimulationSweep(
        pairs=tuple(swept),
        seeds=tuple(requests[0].seed + SEED_STEP * place for place in range(seeds)),
        scored_on=tuple(dict.fromkeys(planned.source for planned in every)),
        cells=tuple(
            _cell(names[number], ready[number, place], requests[number].seed + SEED_STEP * place, planned)
            for (number, place), mine in tasks.items()
            for planned in mine
        ),
        executed=ran.executed,
        found=ran.found,
        max_latency_s=requests[0].constraints.max_latency_s,
    )
    _write(found, folder)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Planned:
    policy: str
    source: str
    end_s: float
    same_trace: str
    task: Task


def _check(requests: Sequence[SimulateRequest], folder: Path, seeds: int) -> None:
    if not requests or seeds < 1:
        raise BadInput("sweep: needs at least one request and one seed.")
    if (folder / SIMULATION).exists():
        raise BadInput(f"{folder}: holds a single simulation; a sweep needs a folder of its own, choose another.")
    reading = [name for request in requests for name in request.policies if name.startswith("threshold-table:")]
    if reading:
        raise BadInput(
            f"policy {reading[0]}: reads a file, which workers of a sweep may not have; use threshold-table, which "
            "learns its table, or simulate one artifact with one seed."
        )
    require("pyarrow", extra="simulate")


def _seeded(request: SimulateRequest, seed: int) -> SimulateRequest:
    return dataclasses.replace(request, seed=seed, probes=dataclasses.replace(request.probes, seed=seed))


def _cells(request: SimulateRequest, ready: Ready) -> list[_Planned]:
    """Policy by policy, so that each is trained once; a trace that is no generator's is the same with every seed."""
    planned = []
    for policy in (*ready.policies, *BOUNDS):
        for number, (trace, moments) in enumerate(ready.rounds):
            drawn = request.arrivals in ("poisson", "periodic")
            arrivals = Arrivals(
                how=request.arrivals if drawn else "moments",
                rate_hz=request.rate_hz if drawn else 0.0,
                moments=None if drawn else moments,
            )
            task = cell_task(
                policy,
                ready.table,
                ready.trained,
                trace,
                arrivals,
                ready.world,
                seed=request.seed,
                arrival_seed=request.seed + number,
            )
            made = request.traces[number].startswith(GENERATED)
            planned.append(
                _Planned(
                    policy=policy,
                    source=trace.source,
                    end_s=trace.end_s,
                    same_trace=f"{number} {request.seed if made else ''}",
                    task=task,
                )
            )
    return planned


def _names(requests: Sequence[SimulateRequest], ready: Sequence[Ready]) -> list[str]:
    """Model and devices; with the paths where that does not tell them apart."""
    names = [f"{each.edge.artifact} between {each.edge.device} and {each.cloud.device}" for each in ready]
    return [
        name if names.count(name) == 1 else f"{name} ({request.artifact}, {request.edge}, {request.cloud})"
        for name, request in zip(names, requests, strict=True)
    ]


def _compared(
    name: str, request: SimulateRequest, by_seed: dict[int, tuple[Ready, list[_Planned]]], folder: Path
) -> SweptPair:
    outcomes: list[Outcome] = []
    gains: dict[str, list[float]] = {}
    for _, planned in by_seed.values():
        rows = load_results(folder, [each.task for each in planned])
        mine = [
            outcome_of_rows(each.policy, columns, each.end_s, each.same_trace)
            for each, columns in zip(planned, rows, strict=True)
        ]
        policies = dict.fromkeys(each.policy for each in planned)
        one = compare_outcomes(mine, {policy: True for policy in policies if policy not in BOUNDS})
        for score in one.scores:
            gains.setdefault(score.name, []).append(score.gain)
        outcomes += mine
    first = by_seed[0][0]
    adapts = {policy: _adapts(policy) for policy in first.policies}
    seen = [trace for ready, _ in by_seed.values() for trace in (*ready.trained, *(trace for trace, _ in ready.rounds))]
    limit_s = first.world.setting.max_latency_s
    found = compare_outcomes(outcomes, adapts, seed=request.seed, limit_s=limit_s)
    return SweptPair(
        name=name,
        model=first.edge.artifact,
        edge=first.edge.device,
        cloud=first.cloud.device,
        provenance=first.table.provenance,
        cuts=len(first.table.cuts),
        requests=found.score(STATIC).requests,
        scores=found.scores,
        gains={policy: tuple(values) for policy, values in gains.items()},
        blocks=found.blocks,
        pays=found.pays,
        verdict=found.verdict,
        notes=(
            *dict.fromkeys(note for ready, _ in by_seed.values() for note in ready.notes),
            *doubts(first.edge, seen),
        ),
    )


def _adapts(policy: str) -> bool:
    return policy not in (STATIC, "all-edge", "all-cloud") and not policy.startswith("fixed:")


def _cell(name: str, ready: Ready, seed: int, planned: _Planned) -> Cell:
    return Cell(
        model=ready.edge.artifact,
        edge=ready.edge.device,
        cloud=ready.cloud.device,
        trace=planned.source,
        policy=planned.policy,
        seed=seed,
        partition=str(Path(CELLS) / partition_path(Path(), planned.task).name),
    )


def _write(found: SimulationSweep, folder: Path) -> None:
    from edge_deploy.report.document import write_page
    from edge_deploy.report.simulation_sweep_page import simulation_sweep_page

    write_json(found, folder / SWEEP)
    write_page(simulation_sweep_page(found), folder / PAGE)
