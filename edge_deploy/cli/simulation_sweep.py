"""`edge-deploy simulate` on several artifacts, pairs of devices or seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_deploy.cli.output import print_json, print_table, progress_bar

if TYPE_CHECKING:
    from edge_deploy.api.simulation_request import SimulateRequest
    from partitioner.simulator.swept import SimulationSweep

__all__ = ["run_sweep"]


def run_sweep(
    like: SimulateRequest,
    artifacts: Sequence[Path],
    pairs: Sequence[tuple[Path, Path]],
    out: Path,
    *,
    seeds: int,
    engine: str,
    scheduler: str | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Simulate what `like` says with every artifact and its pairs, and print the comparison."""
    from edge_deploy.api.simulation_pairs import pair_up
    from edge_deploy.api.simulation_sweep import simulate_sweep

    requests = [
        dataclasses.replace(like, artifact=artifact, edge=edge, cloud=cloud)
        for artifact, edge, cloud in pair_up(artifacts, pairs)
    ]
    with progress_bar(2 * len(requests) + 11) as progress:
        found = simulate_sweep(
            requests, out, seeds=seeds, engine=engine, scheduler=scheduler, jobs=jobs, progress=progress
        )
    if as_json:
        print_json({"sweep": found, "folder": out})
        return
    _print(found)
    print(f"{len(found.cells)} cells: {found.executed} computed now, {found.found} found; written: {out}")


def _print(found: SimulationSweep) -> None:
    from partitioner.simulator.swept import over_pairs

    rows = [
        (
            pair.name,
            f"{pair.score('static').mean_s * 1e3:.1f}",
            f"{pair.score('oracle').gain:.1%}",
            pair.answer,
        )
        for pair in found.pairs
    ]
    title = f"{len(found.scored_on)} traces, {len(found.seeds)} seed(s), simulated"
    print_table(title, ("model and devices", "static ms", "oracle's gain", "adapting pays"), rows)
    limited = found.max_latency_s is not None
    lines = [
        (
            row.policy,
            f"{row.gain:+.1%}",
            f"{row.least:+.1%} to {row.most:+.1%}",
            "" if row.captured is None else f"{row.captured:.0%}",
            f"{row.worse}",
            *((f"{sum(pair.score(row.policy).late for pair in found.pairs)}",) if limited else ()),
        )
        for row in over_pairs(found.pairs)
    ]
    columns = (
        "policy",
        "faster than static",
        "by model, devices and seed",
        "of the oracle's gain",
        "slower than static by over 1 %",
        *(("over the limit",) if limited else ()),
    )
    print_table("policies: medians over models and devices", columns, lines)
    for pair in found.pairs:
        print(f"{pair.name}: {pair.verdict}")
    for note in dict.fromkeys(note for pair in found.pairs for note in pair.notes):
        print(f"note: {note}")
