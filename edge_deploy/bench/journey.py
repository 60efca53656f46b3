"""The picture in the README, `make bench-journey`: one cell of the matrix drawn, docs/partition-journey.svg.

Needs EDGE_DEPLOY_DATA. The model's blocks are those that the Scission tables measured on a Raspberry Pi 4 and on a
desktop with a GPU; the links are measured 3G traces. How load slows the edge down is the matrix's assumption, and
latencies are simulated.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from edge_deploy.bench.matrix import PROBES
from edge_deploy.bench.matrix_cells import cut_table, traces_of_class
from edge_deploy.core.units import format_seconds
from edge_deploy.report.journey_picture import journey_picture
from edge_deploy.report.plan_layers import AlongLayers
from edge_deploy.report.plan_map import CutMap
from edge_deploy.report.simulation_drawings import AlongTrace
from partitioner.controller import train
from partitioner.cost import cost
from partitioner.cut_table import CutTable
from partitioner.policy import Training
from partitioner.setting import Setting
from partitioner.simulator.arrivals import poisson
from partitioner.simulator.compare import compare
from partitioner.simulator.simulate import Served
from partitioner.simulator.world import World

__all__ = ["draw", "main"]

MODEL, EDGE, CLOUD, TRACES = "mobilenetv2", "raspi4", "6700k(GPU)", "hsdpa-3g"
RATE_HZ = 1.0
SHOWN = ("oracle", "static", "learned")
RTT_S = 0.05


def main(arguments: list[str] | None = None) -> int:
    """Draw and write; 2 without data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/partition-journey.svg"))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--traces", default=TRACES)
    options = parser.parse_args(arguments)
    if not os.environ.get("EDGE_DEPLOY_DATA"):
        print("EDGE_DEPLOY_DATA: must name the folder of the development data.", file=sys.stderr)
        return 2
    text = draw(Path(os.environ["EDGE_DEPLOY_DATA"]), options.model, options.traces)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(f"written: {options.out}")
    return 0


def draw(data: Path, model: str, traces: str) -> str:
    """The picture's text; the trace is the scored one on which the oracle moves the cut most often."""
    table = cut_table(data / "tables" / "scission_qub", model, EDGE, CLOUD)
    split = traces_of_class(data, traces, "scored")
    whole_s = float(table.edge_s[-1])
    rate_hz = min(RATE_HZ, 0.1 / whole_s)
    setting = Setting(rate_hz=rate_hz, fallback_after_s=max(1.0, 3 * whole_s), cold_s=0.5, warm_s=0.001)
    training = Training(traces=split.train, setting=setting, probes=PROBES)
    policies = [train(name, table, training) for name in ("static", "learned")]
    rounds = [(trace, poisson(rate_hz, trace.end_s, seed)) for seed, trace in enumerate(split.score)]
    kept: dict[tuple[int, str], Served] = {}

    def keep(number: int, served: Served) -> None:
        kept[number, served.name] = served

    found = compare(policies, rounds, World(setting=setting, probes=PROBES), keep=keep)
    number = max(range(len(rounds)), key=lambda place: kept[place, "oracle"].switches)
    trace = rounds[number][0]
    served = {name: kept[number, name] for name in SHOWN}
    along = AlongTrace(
        source=trace.source,
        end_s=trace.end_s,
        time_s=trace.time_s,
        uplink_bps=trace.values["uplink_bps"],
        edge_load=trace.values["edge_load"],
        cuts=table.cuts,
        decided={name: (each.ticks_s, each.decided) for name, each in served.items()},
        latency={name: (each.arrival_s, each.latency_s) for name, each in served.items()},
    )
    static, learned, oracle = (found.score(name) for name in ("static", "learned", "oracle"))
    said = (
        f"The liveliest of {len(rounds)} scored traces ({traces}). Mean of all, simulated: static "
        f"{format_seconds(static.mean_s)}, learned {format_seconds(learned.mean_s)} ({learned.gain:.0%} less; 95 %: "
        f"{learned.gain_low:.0%} to {learned.gain_high:.0%}), oracle {format_seconds(oracle.mean_s)}."
    )
    here = (float(np.median(trace.values["uplink_bps"])), float(np.median(trace.values["edge_load"])))
    return journey_picture(
        f"Partitioning {model} between a Raspberry Pi 4 and a desktop",
        _layers(table, policies[0].first),
        f"{model}: blocks measured on a Raspberry Pi 4 (edge) and a desktop with a GPU (cloud), INT8 boundaries. "
        "The line is the best static cut.",
        _map(table, here),
        f"At a round trip of {RTT_S * 1e3:.0f} ms; 026: 26 blocks on the edge. Load L is assumed to make the edge 1 + "
        "L times slower. The ring: median of the trace below.",
        along,
        SHOWN,
        said,
    )


def _layers(table: CutTable, chosen: int) -> AlongLayers:
    count = len(table.cuts)
    return AlongLayers(
        names=("(input)", *(f"block {place}" for place in range(1, count))),
        up_bytes=tuple(int(size) for size in table.up_bytes),
        legal=(True,) * count,
        edge_s=(0.0, *np.diff(table.edge_s).tolist()),
        cloud_s=(0.0, *(-np.diff(table.cloud_s)).tolist()),
        chosen=chosen,
    )


def _map(table: CutTable, here: tuple[float, float]) -> CutMap:
    uplinks, loads = np.geomspace(1e5, 1e8, 121), np.linspace(0, 1, 41)
    link, load = (values.ravel() for values in np.meshgrid(uplinks, loads))
    conditions = {"uplink_bps": link, "downlink_bps": link, "rtt_s": np.full(len(link), RTT_S), "edge_load": load}
    best = cost(table, conditions).total_s.argmin(axis=1).reshape(len(loads), len(uplinks))
    return CutMap(
        uplink_bps=tuple(uplinks.tolist()),
        edge_load=tuple(loads.tolist()),
        cuts=tuple(tuple(table.cuts[cut] for cut in row) for row in best.tolist()),
        here=here,
    )


if __name__ == "__main__":
    sys.exit(main())
