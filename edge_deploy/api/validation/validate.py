"""Replay the same requests live and in the simulator, condition by condition, and compare the latencies."""

from __future__ import annotations

import dataclasses
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from converters.samples import save_arrays
from edge_deploy.api.cuts import list_cuts
from edge_deploy.api.run import inputs_of
from edge_deploy.api.split import split
from edge_deploy.api.validation.link_check import achieved
from edge_deploy.api.validation.processes import EdgeProcess, edge_process
from edge_deploy.api.validation.shaped import Shaped, shaped_cloud
from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.errors import BadInput
from edge_deploy.core.units import format_seconds
from partitioner.controller import train
from partitioner.cut_table import CutTable
from partitioner.live.halves import read_whole
from partitioner.live.happened import BY_CLOUD, HOW, Happened
from partitioner.live.record import Run, read_run
from partitioner.policy import Training
from partitioner.setting import Setting
from partitioner.simulator.arrivals import poisson
from partitioner.simulator.simulate import PARTS, Served, simulate
from partitioner.simulator.validation import Condition, Validated, ValidateRequest, Validation
from partitioner.simulator.world import World
from partitioner.traces.read import read_trace
from runtimes.calling import zeros_for
from runtimes.shaping.link import ShapedLink, constant_link, trace_link
from runtimes.shaping.quota import CpuQuota

__all__ = ["validate_simulation"]

UNSHAPED = constant_link(uplink_bps=1e11, downlink_bps=1e11, rtt_s=0.0)
TIMED, TIMED_S, PINGS, SAMPLES = 40, 12.0, 30, 64
CHECK_S = 6.0
SPREAD = 3
Found = TypeVar("Found")


def validate_simulation(
    request: ValidateRequest, *, progress: Callable[[str], None] = lambda stage: None
) -> Validation:
    """Measure both sides on a link that is not shaped, simulate, run for real, compare.

    The simulator is told nothing of the shaped runs: only what the halves take and send, and what a message costs
    between the two processes, all measured before.

    Raises:
        BadInput: The artifact, its halves, a trace or the inputs are not what they must be.
        ToolchainError: One of the processes ended.
    """
    conditions_of = _links(request)
    with tempfile.TemporaryDirectory(prefix="edge-deploy-validation-") as scratch:
        work = Path(scratch)
        halves = request.halves
        if halves is None:
            progress("split")
            cuts = request.cuts or _spread(request.artifact)
            halves = work / "halves"
            split(
                request.artifact,
                cuts=(ALL_CLOUD, *(cut for cut in cuts if cut not in (ALL_CLOUD, ALL_EDGE))),
                out=halves,
            )
        _write_inputs(request, work / "inputs.npz")
        with (
            CpuQuota(request.cloud_cores, name="cloud") as cloud_quota,
            CpuQuota(request.edge_cores, name="edge") as edge_quota,
            shaped_cloud(request, halves, cloud_quota, UNSHAPED, work) as shaped,
        ):
            given = {
                "artifact": str(request.artifact),
                "halves": str(halves),
                "host": shaped.host,
                "port": shaped.port,
                "token": shaped.token,
                "inputs": str(work / "inputs.npz"),
                "codec": request.codec,
                "fallback_s": request.fallback_after_s,
            }
            with edge_process(given, edge_quota, inside=shaped.inside) as edge:
                runs = _Runs(request, edge, shaped, edge_quota, work)
                progress("time both sides")
                base_rtt_s = edge.ask(do="ping", count=PINGS)
                table = runs.timed_table(edge.ask(do="cuts"), base_rtt_s, progress)
                chosen = request.cuts or table.cuts
                found = []
                for name, trace in conditions_of:
                    for condition in (
                        *(Condition(link=name, trace=trace, cut=cut) for cut in chosen),
                        *(Condition(link=name, trace=trace, policy=policy) for policy in request.policies),
                    ):
                        progress(condition.name)
                        found.append(runs.both_ways(condition, table, base_rtt_s))
        links = []
        for name, trace in conditions_of:
            progress(f"what {name} really gives")
            links.append(achieved(name, trace, seconds=min(CHECK_S, request.seconds), by_tun=shaped.by_tun))
    return Validation(
        artifact=str(request.artifact),
        codec=request.codec,
        seconds=request.seconds,
        rate_hz=request.rate_hz,
        shaped_by=shaped.how,
        notes=(shaped.note,) if shaped.note else (),
        edge_quota=edge_quota.how,
        cloud_quota=cloud_quota.how,
        machine=f"{platform.machine()}, {platform.system()} {platform.release()}",
        base_rtt_s=base_rtt_s,
        table={
            cut: (float(table.edge_s[i]), float(table.cloud_s[i]), int(table.up_bytes[i]), int(table.down_bytes[i]))
            for i, cut in enumerate(table.cuts)
        },
        conditions=tuple(found),
        links=tuple(links),
    )


class _Runs:
    """Sessions of the edge's process, one after the other; the link is shaped only while requests are played."""

    def __init__(
        self, request: ValidateRequest, edge: EdgeProcess, shaped: Shaped, quota: CpuQuota, work: Path
    ) -> None:
        self._request, self._edge, self._shaped, self._quota, self._work = request, edge, shaped, quota, work
        self._number = 0

    def timed_table(self, cuts: Sequence[str], base_rtt_s: float, progress: Callable[[str], None]) -> CutTable:
        """Every cut by requests over the link as it is, one after the other: medians."""
        rows = []
        rate_hz = self._request.rate_hz
        for cut in cuts:
            progress(f"time cut {cut}")
            sent = self._shaped.counts()
            taken, run = self._recorded(
                cut, "", lambda: self._edge.ask(do="alone", count=TIMED, rate_hz=rate_hz, most_s=TIMED_S)
            )
            happened = _in_order(run)
            got = self._shaped.counts()
            count = len(happened)
            total_s = float(np.median(taken))
            crossed = [one for one in happened if one.how == BY_CLOUD]
            if cut == ALL_EDGE or not crossed:
                rows.append((total_s, 0.0, 0, 0))
                continue
            beyond_s = float(np.median([one.done_s - one.headed_s for one in crossed]))
            rows.append(
                (
                    total_s - beyond_s,
                    max(beyond_s - base_rtt_s, 0.0),
                    round((got["up"] - sent["up"]) / count),
                    round((got["down"] - sent["down"]) / count),
                )
            )
        edge_s, cloud_s, up, down = (np.array(column) for column in zip(*rows, strict=True))
        crosses = np.array([cut != ALL_EDGE for cut in cuts])
        nothing = np.zeros(len(cuts))
        return CutTable(
            cuts=tuple(cuts),
            codec=self._request.codec,
            edge_s=edge_s,
            cloud_s=cloud_s,
            encode_s=nothing,  # in the seconds of the cloud, as everything beyond the head
            decode_s=nothing,
            up_bytes=up,
            down_bytes=down,
            edge_bytes=nothing,
            exit_share=nothing,
            crosses=crosses,
            provenance="measured",
        )

    def both_ways(self, condition: Condition, table: CutTable, base_rtt_s: float) -> Validated:
        """The same arrivals live and simulated."""
        request = self._request
        arrivals = poisson(request.rate_hz, request.seconds, request.seed)
        held_before_s = self._quota.throttled_s()
        played, run = self._played(condition.cut, condition.policy, arrivals, trace_link(condition.trace))
        happened = _in_order(run)
        held_s = self._quota.throttled_s() - held_before_s
        values = {**condition.trace.values, "rtt_s": condition.trace.values["rtt_s"] + base_rtt_s}
        trace = dataclasses.replace(condition.trace, values=values)
        setting = Setting(fallback_after_s=request.fallback_after_s)
        policy = train(condition.policy or f"fixed:{condition.cut}", table, Training(traces=(trace,), setting=setting))
        made = np.maximum.accumulate([moment for moment, _ in played])
        simulated = simulate(policy, trace, made, World(setting=setting, workers=1), seed=request.seed)
        live_s = np.array([latency for _, latency in played])
        return Validated(
            name=condition.name,
            requests=len(played),
            live_median_s=float(np.median(live_s)),
            live_p95_s=float(np.percentile(live_s, 95)),
            simulated_median_s=float(np.median(simulated.latency_s)),
            simulated_p95_s=float(np.percentile(simulated.latency_s, 95)),
            answered={
                how: (sum(one.how == number for one in happened), int((simulated.how == number).sum()))
                for number, how in HOW.items()
            },
            parts=_parts(happened, simulated),
            throttled_s=held_s,
            switches=(len(run.switches), simulated.switches),
            quantiles=(_quantiles(live_s), _quantiles(simulated.latency_s)),
        )

    def _played(
        self, cut: str, policy: str, arrivals: np.ndarray, link: ShapedLink
    ) -> tuple[list[tuple[float, float]], Run]:
        def play() -> list[tuple[float, float]]:
            try:
                self._shaped.follow(link)
                begin_s = time.perf_counter()
                played = self._edge.ask(do="play", begin_s=begin_s, arrivals=arrivals.tolist())
                return [(moment, latency) for moment, latency in played]
            finally:
                self._shaped.follow(UNSHAPED)

        return self._recorded(cut, policy, play)

    def _recorded(self, cut: str, policy: str, act: Callable[[], Found]) -> tuple[Found, Run]:
        """What `act` gives while a session is open, and the session's record."""
        self._number += 1
        record = self._work / f"{self._number}.jsonl"
        self._edge.ask(do="open", cut=cut, policy=policy, record=str(record))
        try:
            found = act()
        finally:
            self._edge.ask(do="close")
        return found, read_run(record)


def _in_order(run: Run) -> tuple[Happened, ...]:
    """Requests as they were made; the first one of a session warms it up, and is in the record only."""
    return tuple(sorted(run.requests, key=lambda one: one.arrived_s)[1:])


def _parts(happened: Sequence[Happened], simulated: Served) -> dict[str, tuple[float, float]]:
    """Means over requests that the cloud answered: on the edge, on the way and beyond the head."""
    crossed = [one for one in happened if one.how == BY_CLOUD]
    by_cloud = simulated.how == BY_CLOUD
    if not crossed or not by_cloud.any():
        return {}
    edge = sum(simulated.parts_s[PARTS.index(part)][by_cloud].mean() for part in ("edge_wait", "edge"))
    beyond = simulated.latency_s[by_cloud].mean() - edge
    return {
        "edge": (float(np.mean([one.headed_s - one.arrived_s for one in crossed])), float(edge)),
        "beyond the edge": (float(np.mean([one.done_s - one.headed_s for one in crossed])), float(beyond)),
    }


def _quantiles(seconds: np.ndarray) -> tuple[float, ...]:
    return tuple(np.percentile(seconds, np.arange(101)).tolist())


def _links(request: ValidateRequest) -> list[tuple[str, Trace]]:
    found = []
    for uplink_bps, downlink_bps, rtt_s in request.links:
        values = {name: np.zeros(1) for name in CONDITION_FIELDS}
        values |= {"uplink_bps": np.array([uplink_bps]), "downlink_bps": np.array([downlink_bps])}
        values["rtt_s"] = np.array([rtt_s])
        name = f"{uplink_bps / 1e6:g} Mbit/s up, {downlink_bps / 1e6:g} down, {format_seconds(rtt_s)}"
        found.append((name, Trace(time_s=np.zeros(1), end_s=request.seconds, values=values, source=name)))
    for text in request.traces:
        trace = read_trace(text)
        used = trace.time_s < request.seconds
        # What a trace says of loads and queues is not replayed: a quota is what holds the processes back.
        kept = {
            name: values[used] if name in ("uplink_bps", "downlink_bps", "rtt_s") else np.zeros(used.sum())
            for name, values in trace.values.items()
        }
        end_s = max(request.seconds, float(trace.time_s[used][-1]) + 1e-3)
        found.append((Path(text).name, dataclasses.replace(trace, time_s=trace.time_s[used], end_s=end_s, values=kept)))
    return found


def _spread(artifact: Path | str) -> tuple[str, ...]:
    """All-cloud, one to three prefixes spread over the model, all-edge."""
    legal = [item.cut.id for item in list_cuts(artifact).cuts if not item.refused]
    inner = [cut for cut in legal if cut not in (ALL_CLOUD, ALL_EDGE)]
    picked = [inner[round(place)] for place in np.linspace(0, len(inner) - 1, min(SPREAD, len(inner)))] if inner else []
    return (ALL_CLOUD, *dict.fromkeys(picked), ALL_EDGE)


def _write_inputs(request: ValidateRequest, path: Path) -> None:
    signature = read_whole(request.artifact).signature
    if request.inputs is not None:
        feeds = []
        for feed in inputs_of(request.artifact, request.inputs):
            feeds.append(feed)
            if len(feeds) == SAMPLES:
                break
    else:
        feeds = [zeros_for(signature)]
        random = np.random.default_rng(request.seed)
        for name, array in feeds[0].items():
            if array.dtype.kind == "f":
                feeds[0][name] = random.uniform(0, 1, array.shape).astype(array.dtype)
    if not feeds:
        raise BadInput(f"{request.inputs}: holds no samples.")
    save_arrays({name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}, path)
