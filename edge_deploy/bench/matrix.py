"""The matrix of policies, `make bench-matrix`: models x pairs of devices x classes of traces, always the same cells.

Needs EDGE_DEPLOY_DATA. Every policy learns from some traces of a class and is scored on others; the share of the way
from the static cut to the oracle that it captures is given with its interval. The policy that has to hold everywhere
was fixed before scoring: see CHAMPION. Cells are kept in build/bench-matrix and made again only when the partitioner's
sources or the cells change, so a run that was stopped goes on where it was. BENCH="--part dev" looks at training
traces alone, BENCH="--part fresh" at nets, pairs and traces that no choice was made on, BENCH="--jobs 2" uses two
processes, BENCH="--markdown" prints the cells as a table.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import partitioner
from edge_deploy.bench.matrix_cells import CELLS, CLASSES, PARTS, cut_table, traces_of_class
from edge_deploy.bench.rows import markdown
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import to_json
from partitioner.controller import train
from partitioner.measured import Probes
from partitioner.policy import Training
from partitioner.setting import Setting
from partitioner.simulator.arrivals import poisson
from partitioner.simulator.compare import compare
from partitioner.simulator.world import World

__all__ = ["CHAMPION", "Cell", "cells", "main", "run_cell", "summary"]

# Chosen on training traces alone: of hysteresis and learned, the one that is nowhere much worse than static (it leaves
# the static cut only for a gain beyond its own uncertainty), at the same median share.
CHAMPION = "learned"
POLICIES = ("all-edge", "all-cloud", "static", "always-best", "threshold-table", "hysteresis", "predictive", "learned")
# The edge alone would be busy for this share of the time.
BUSY = 0.1
LEAST_HZ, MOST_HZ = 0.1, 2.0
ENOUGH_REQUESTS, MOST_TIMES = 1500, 3
# An oracle that gains less leaves nothing to adapt for.
SOMETHING, MUCH = 0.01, 0.10
ENOUGH, TOO_BAD = 0.60, 0.01
PROBES = Probes(noise=0.05, load_noise=0.02)
OUT = Path("build/bench-matrix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model between two devices under one class of traces."""

    model: str
    edge: str
    cloud: str
    traces: str
    part: str

    @property
    def name(self) -> str:
        """For people and files."""
        plain = "_".join((self.model, self.edge, self.cloud, self.traces, self.part))
        return plain.replace("(", "-").replace(")", "")


def cells(part: str) -> list[Cell]:
    """All of one of PARTS, in a fixed order."""
    models, pairs = CELLS[part]
    return [
        Cell(model=model, edge=edge, cloud=cloud, traces=traces, part=part)
        for model, (edge, cloud), traces in itertools.product(models, pairs, CLASSES)
    ]


def run_cell(cell: Cell, data: Path) -> dict[str, Any]:
    """Train, simulate, compare."""
    table = cut_table(data / "tables" / "scission_qub", cell.model, cell.edge, cell.cloud)
    split = traces_of_class(data, cell.traces, cell.part)
    whole_s = float(table.edge_s[-1])
    rate_hz = min(max(BUSY / whole_s, LEAST_HZ), MOST_HZ)
    setting = Setting(rate_hz=rate_hz, fallback_after_s=max(1.0, 3 * whole_s), cold_s=0.5, warm_s=0.001)
    world = World(setting=setting, probes=PROBES)
    training = Training(traces=split.train, setting=setting, probes=PROBES)
    policies = [train(name, table, training) for name in POLICIES]
    # Slow edges get few requests a trace: they come again with other requests, so that chance does not decide.
    expected = rate_hz * sum(trace.end_s for trace in split.score)
    again = min(max(math.ceil(ENOUGH_REQUESTS / expected), 1), MOST_TIMES)
    rounds = [
        (trace, poisson(rate_hz, trace.end_s, seed))
        for seed, (_, trace) in enumerate(itertools.product(range(again), split.score))
    ]
    found = compare(policies, [(trace, arrivals) for trace, arrivals in rounds if len(arrivals)], world)
    static = policies[POLICIES.index("static")]
    made: dict[str, Any] = {"cell": to_json(cell), "rate_hz": rate_hz, "static": table.cuts[static.first]}
    return made | dict(to_json(found))


def summary(rows: list[dict[str, Any]]) -> str:
    """What the matrix shows, for the policies and for the champion."""
    by = {name: [_score(row, name) for row in rows] for name in POLICIES[2:]}
    oracle = np.array([_score(row, "oracle")["gain"] for row in rows])
    paying = np.array([_score(row, "oracle-paying")["gain"] for row in rows])
    much, some = oracle > MUCH, oracle > SOMETHING
    lines = [
        f"{len(rows)} cells; the oracle gains over {MUCH:.0%} in {much.sum()} ({much.mean():.0%}), over "
        f"{SOMETHING:.0%} in {some.sum()}; the one that pays for switches over {MUCH:.0%} in {(paying > MUCH).sum()}.",
        "",
    ]
    table = []
    for name, scores in by.items():
        shares = np.array([np.nan if s["captured"] is None else s["captured"] for s in scores])
        gains = np.array([s["gain"] for s in scores])
        low, high = _median_interval(shares[some])
        worst = int(gains.argmin())
        table.append(
            (
                name,
                f"{np.nanmedian(shares[some]):.0%} ({low:.0%} to {high:.0%})",
                f"{np.nanmedian(shares[much]):.0%}",
                f"{np.median(gains[some]):.1%}",
                f"{-gains.min():+.2%}",
                rows[worst]["cell"]["model"]
                + ", "
                + rows[worst]["cell"]["edge"]
                + ", "
                + rows[worst]["cell"]["traces"],
                f"{int((gains < -TOO_BAD).sum())}",
                f"{sum(bool(row['pays']) for row in rows)}" if name == "static" else "",
            )
        )
    columns = (
        "policy",
        f"median share of the gap, cells over {SOMETHING:.0%} (95 %)",
        f"median share, cells over {MUCH:.0%}",
        "median gain there",
        "most worse than static",
        "in",
        f"cells worse by over {TOO_BAD:.0%}",
        "cells in which adapting pays",
    )
    lines.append(markdown(columns, table))
    shares = np.array([np.nan if s["captured"] is None else s["captured"] for s in by[CHAMPION]])
    gains = np.array([s["gain"] for s in by[CHAMPION]])
    in_much, in_some = (float(np.nanmedian(shares[which])) for which in (much, some))
    checks = (
        (much.mean() >= 1 / 3, f"the oracle gains over {MUCH:.0%} in a third of the cells: {much.mean():.0%}"),
        (
            in_much >= ENOUGH,
            f"{ENOUGH:.0%} of the gap in the median cell with over {MUCH:.0%} to gain: {in_much:.0%} (with over "
            f"{SOMETHING:.0%} to gain: {in_some:.0%})",
        ),
        (
            gains.min() >= -TOO_BAD,
            f"nowhere more than {TOO_BAD:.0%} worse than static: at most {max(-gains.min(), 0):.2%}",
        ),
    )
    lines += ["", f"{CHAMPION}, fixed before scoring:"]
    lines += [f"- {'met' if ok else 'NOT MET'}: {text}" for ok, text in checks]
    return "\n".join(lines)


def _median_interval(shares: np.ndarray) -> tuple[float, float]:
    """Cells are resampled; 95 %."""
    shares = shares[np.isfinite(shares)]
    picks = np.random.default_rng(0).integers(0, len(shares), (2000, len(shares)))
    low, high = np.quantile(np.median(shares[picks], axis=1), (0.025, 0.975))
    return float(low), float(high)


def _score(row: dict[str, Any], name: str) -> dict[str, Any]:
    return next(score for score in row["scores"] if score["name"] == name)


def _table(rows: list[dict[str, Any]]) -> str:
    columns = ("model", "edge", "cloud", "traces", "static cut", "oracle gains", *POLICIES[3:], "pays")
    table = []
    for row in rows:
        cell = row["cell"]
        gain = _score(row, "oracle")["gain"]
        shares = [_share(_score(row, name)) for name in POLICIES[3:]]
        pays = "yes" if row["pays"] else "no"
        table.append(
            (cell["model"], cell["edge"], cell["cloud"], cell["traces"], row["static"], f"{gain:.1%}", *shares, pays)
        )
    return markdown(columns, table)


def _share(score: dict[str, Any]) -> str:
    if score["captured"] is None:
        return f"gain {score['gain']:+.1%}"
    return f"{score['captured']:.0%} ({_percent(score['captured_low'])} to {_percent(score['captured_high'])})"


def _percent(share: float) -> str:
    """Where a resample leaves nothing to gain, shares have no end."""
    return f"{share:.0%}" if abs(share) < 10 else "below -999%" if share < 0 else "over 999%"


def _kept(cell: Cell, data: Path, version: str) -> dict[str, Any]:
    """From a former run, or made now."""
    file = OUT / f"{cell.name}.{version}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    made = run_cell(cell, data)
    OUT.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(made), encoding="utf-8")
    partial.replace(file)
    return made


def _version() -> str:
    """Digest of all that a cell depends on: the partitioner's sources and the definition of the cells."""
    home = Path(partitioner.__file__).parent
    files = [*sorted(home.glob("*.py")), *sorted(home.glob("policies/*.py")), *sorted(home.glob("simulator/*.py"))]
    files += [*sorted(home.glob("bounds/*.py")), Path(__file__), Path(__file__).with_name("matrix_cells.py")]
    digest = hashlib.sha256()
    for file in files:
        if not file.name.endswith("_test.py"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _results(todo: list[Cell], data: Path, jobs: int) -> Iterator[dict[str, Any]]:
    version = _version()
    if jobs == 1:
        yield from (_kept(cell, data, version) for cell in todo)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_kept, todo, itertools.repeat(data), itertools.repeat(version))


def main() -> None:
    """Run what is missing and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default="scored", help="dev: training traces alone; fresh: other nets")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--markdown", action="store_true", help="print every cell")
    parser.add_argument("--every", type=int, default=1, help="only every N-th cell, for a quick look")
    options = parser.parse_args()
    data = os.environ.get("EDGE_DEPLOY_DATA")
    if not data:
        raise BadInput("EDGE_DEPLOY_DATA: must name the folder of development tables and traces.")
    todo = cells(options.part)[:: options.every]
    begun = time.perf_counter()
    rows = []
    for row in _results(todo, Path(data), options.jobs):
        rows.append(row)
        print(f"\r{len(rows)} of {len(todo)} cells, {time.perf_counter() - begun:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    if options.markdown:
        print(_table(rows), end="\n\n")
    print(summary(rows))


if __name__ == "__main__":
    main()
