"""A recorded run looked at: a Chrome trace, and the simulator's page with the run beside policies and bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_deploy.core.publish import published_folder
from edge_deploy.report.document import write_page
from edge_deploy.report.simulation_drawings import AlongTrace
from edge_deploy.report.simulation_page import simulation_page
from partitioner.controller import train
from partitioner.live.chrome_trace import chrome_trace
from partitioner.live.record import Run, read_run
from partitioner.live.replay import cuts_in_force, recorded_outcome, recorded_table, recorded_trace
from partitioner.policies.fixed import Fixed
from partitioner.policy import Training
from partitioner.setting import Setting
from partitioner.simulator.compare import BOUNDS, Comparison, Outcome, compare_outcomes, outcome_of, simulate_bound
from partitioner.simulator.simulate import Served, simulate
from partitioner.simulator.world import World

__all__ = ["LIVE", "Replay", "replay"]

LIVE = "live run"
TRACE, PAGE = "trace.json", "report.html"
STATIC = "static"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What was made of a record.

    Attributes:
        compared: The run beside simulated policies and bounds, on the conditions that were measured.
    """

    folder: Path
    requests: int
    compared: Comparison


def replay(
    record: Path | str, out: Path | str, *, policies: Sequence[str] = ("always-best", "hysteresis"), force: bool = False
) -> Replay:
    """Write `trace.json` for Perfetto or chrome://tracing, and `report.html`.

    Args:
        record: What `edge-deploy run --record` wrote.
        policies: To be simulated beside the run, with static; see `partitioner.controller.train`.

    Raises:
        BadInput: It is no record, or holds no request.
    """
    run = read_run(record)
    trace, table = recorded_trace(run), recorded_table(run)
    mine = recorded_outcome(run, trace, LIVE)
    rate_hz = len(mine.arrival_s) / trace.end_s
    setting = Setting(tick_s=run.start.tick_s, fallback_after_s=run.start.fallback_after_s, rate_hz=rate_hz)
    world = World(setting=setting)
    training = Training(traces=(trace,), setting=setting)
    made = [train(name, table, training) for name in dict.fromkeys((STATIC, *policies))]
    served: list[Served] = [simulate(policy, trace, mine.arrival_s, world) for policy in made]
    served += [simulate_bound(name, table, trace, mine.arrival_s, world) for name in BOUNDS]

    def outcomes() -> Iterator[Outcome]:
        yield mine
        for each in served:
            yield outcome_of(each, trace.end_s, id(trace))

    adapts = {LIVE: not run.start.policy.startswith("fixed:"), **{p.name: not isinstance(p, Fixed) for p in made}}
    found = compare_outcomes(outcomes(), adapts)
    decided = {each.name: (each.ticks_s, each.decided) for each in served} | {LIVE: cuts_in_force(run, table)}
    latency = {each.name: (each.arrival_s, each.latency_s) for each in served}
    latency[LIVE] = (mine.arrival_s, mine.latency_s)
    along = AlongTrace(
        source=trace.source,
        end_s=trace.end_s,
        time_s=trace.time_s,
        uplink_bps=trace.values["uplink_bps"],
        edge_load=trace.values["edge_load"],
        cuts=table.cuts,
        decided=decided,
        latency=latency,
    )
    title = f"{run.start.artifact} with {run.start.cloud}"
    with published_folder(Path(out), force=force) as folder:
        (folder / TRACE).write_text(json.dumps(chrome_trace(run)), encoding="utf-8")
        page = simulation_page(title, _lead(run), _shown(found), along, _spread(latency), _facts(run, found))
        write_page(page, folder / PAGE)
    return Replay(folder=Path(out), requests=len(run.requests), compared=found)


def _shown(found: Comparison) -> Comparison:
    """The page's verdict is about the run, which is no simulation."""
    mine = found.score(LIVE)
    oracle = found.score("oracle")
    said = (
        f"The live run took {mine.mean_s * 1e3:.3g} ms a request on average (p95 {mine.p95_s * 1e3:.3g} ms); simulated "
        f"on the conditions that it measured, the best static cut takes {found.score(STATIC).mean_s * 1e3:.3g} ms and "
        f"an oracle {oracle.mean_s * 1e3:.3g} ms."
    )
    return replace(found, verdict=said)


def _lead(run: Run) -> str:
    policy = run.start.policy
    return (
        f"{len(run.requests)} requests were really run with {policy}; the other policies and the bounds are simulated "
        "on the conditions that the run measured, trained on the same."
    )


def _spread(
    latency: dict[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    shares = np.concatenate((np.linspace(0, 0.95, 96), 1 - np.geomspace(0.05, 0.0005, 30)))
    drawn = {}
    for name, (_, values) in latency.items():
        ordered = np.sort(values)
        at = ordered[np.minimum((shares * len(ordered)).astype(np.int64), len(ordered) - 1)]
        finite = np.isfinite(at)
        drawn[name] = (tuple(at[finite].tolist()), tuple(shares[finite].tolist()))
    return drawn


def _facts(run: Run, found: Comparison) -> list[tuple[str, str]]:
    mine = found.score(LIVE)
    start = run.start
    gone = sum(not changed.reachable for changed in run.cloud)
    ways: dict[str, list[float]] = {}
    for _, switched in run.switches:
        ways.setdefault(switched.way, []).append(switched.stopped_s)
    return [
        ("model", f"{start.artifact}, sha256 {start.sha256[:12]}"),
        ("cloud", f"{start.cloud}; gone {gone} times"),
        ("began", start.began),
        ("requests", f"{mine.requests}: {mine.fallbacks} fell back to the edge, {mine.lost} lost"),
        *(
            (f"switches, {way}", f"{len(stops)}; the edge stood still for {max(stops) * 1e3:.3g} ms at most")
            for way, stops in ways.items()
        ),
        ("codec", start.codec),
        ("without an answer", f"answered on the edge after {start.fallback_after_s:g} s"),
        ("record", "the last line was cut off: the run was killed" if run.torn else "complete"),
    ]
