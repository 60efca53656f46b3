"""`edge-deploy simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.limits import (
    AccuracyDrops,
    CodecMeasured,
    KeepOffEdge,
    KeepOnEdge,
    MaxAccuracyDrop,
    MaxBytes,
    MaxEdgeMemory,
    MaxLatency,
    Private,
    constraints,
)
from edge_deploy.cli.output import AsJson, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from edge_deploy.api.simulate import SimulateRequest, Simulation

__all__ = ["command"]


def command(
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTIFACT", help="An artifact's folder, or a .tflite file; or several."),
    ],
    trace: Annotated[
        list[str],
        typer.Option(
            metavar="TRACE",
            help="Conditions over time to score on: a file, ARCHIVE::MEMBER, or gen:GENERATOR+GENERATOR. Repeatable.",
        ),
    ],
    edge: Annotated[
        Path | None, typer.Option(metavar="PROFILE", help="profile.json of this artifact on the edge, or its folder.")
    ] = None,
    cloud: Annotated[Path | None, typer.Option(metavar="PROFILE", help="The same on the cloud.")] = None,
    pair: Annotated[
        list[str],
        typer.Option(
            metavar="EDGE,CLOUD",
            help="Instead of --edge and --cloud: two profiles. Repeatable; a pair goes with the artifact that it was "
            "made of.",
        ),
    ] = [],  # noqa: B006
    policy: Annotated[
        list[str],
        typer.Option(
            metavar="NAMES",
            help="Policies, with commas or repeated: all-edge, all-cloud, fixed:CUT, static, always-best, "
            "threshold-table[:FILE], hysteresis, predictive, learned. Default: all but fixed.",
        ),
    ] = [],  # noqa: B006
    train: Annotated[
        list[str],
        typer.Option(
            metavar="TRACE",
            help="Traces to learn from, none of the scored ones. Repeatable. Default: the first half of each --trace, "
            "and only the second half is scored.",
        ),
    ] = [],  # noqa: B006
    rate: Annotated[str, typer.Option(metavar="N/TIME", help="Requests, e.g. 5/s, 30/min.")] = "1/s",
    arrivals: Annotated[
        str, typer.Option(metavar="HOW", help="poisson, periodic, or a file with one moment in seconds a line.")
    ] = "poisson",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write simulation.json, report.html and requests.parquet there; of a sweep sweep.json, report.html "
            "and cells/, where it goes on if it was killed.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Simulate with N seeds and compare over them.", min=1)] = 1,
    engine: Annotated[str, typer.Option(metavar="NAME", help="Of a sweep: local or dask.")] = "local",
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of the dask scheduler, e.g. tcp://10.0.0.5:8786.")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", help="Processes of the local engine.", min=1)] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Of requests, generated traces, noise and resampling.")] = 0,
    codec: Annotated[
        str, typer.Option(metavar="NAME", help="How tensors travel, e.g. requantize:int8 (`list`).")
    ] = "raw",
    exits: Annotated[
        list[str],
        typer.Option("--exit", metavar="LAYER=SHARE", help="Share of requests that end after this layer. Repeatable."),
    ] = [],  # noqa: B006
    max_latency: MaxLatency = None,
    max_edge_memory: MaxEdgeMemory = None,
    max_bytes: MaxBytes = None,
    keep_on_edge: KeepOnEdge = [],  # noqa: B006
    keep_off_edge: KeepOffEdge = [],  # noqa: B006
    private: Private = [],  # noqa: B006
    max_accuracy_drop: MaxAccuracyDrop = None,
    accuracy_drop: AccuracyDrops = [],  # noqa: B006
    codec_measured: CodecMeasured = None,
    tick: Annotated[str, typer.Option(metavar="TIME", help="Time between decisions.")] = "1s",
    probe_delay: Annotated[str, typer.Option(metavar="TIME", help="Age of what probes tell, beyond one tick.")] = "0s",
    probe_noise: Annotated[float, typer.Option(metavar="SHARE", help="Noise of measured rates, 0.1 is 10 %.")] = 0.0,
    cold: Annotated[
        str, typer.Option(metavar="TIME", help="The edge is busy that long with loading a half.")
    ] = "500ms",
    warm: Annotated[str, typer.Option(metavar="TIME", help="The same for a half that is kept loaded.")] = "1ms",
    keep_warm: Annotated[
        str, typer.Option(metavar="CUTS", help="Cuts whose halves are kept loaded: all, none, or ids with commas.")
    ] = "all",
    fallback: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Finish a request on the edge when the cloud has not answered by then, or never. Default: three "
            "times what the whole model takes there, at least 1 s.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="Requests the cloud works on at the same time.")] = 4,
    batch: Annotated[int, typer.Option(metavar="N", help="Most requests in a batch of the cloud.")] = 1,
    batch_wait: Annotated[str, typer.Option(metavar="TIME", help="How long a batch waits to fill.")] = "0s",
    cloud_fails: Annotated[
        list[str], typer.Option(metavar="START-END", help="The cloud is down, e.g. 20s-30s. Repeatable.")
    ] = [],  # noqa: B006
    seconds: Annotated[float, typer.Option(metavar="N", help="Length of generated traces.")] = 600.0,
    fill: Annotated[
        list[str],
        typer.Option(
            metavar="FIELD=WHAT",
            help="What a trace does not tell: rtt=50ms, edge_load=0.3, edge_load=diurnal-load. Repeatable.",
        ),
    ] = [],  # noqa: B006
    column: Annotated[
        list[str],
        typer.Option(metavar="FIELD=COLUMN", help="Column of a CSV, e.g. uplink=UL_bitrate:kbps. Repeatable."),
    ] = [],  # noqa: B006
    interval: Annotated[
        str | None, typer.Option(metavar="TIME", help="Between rows of a CSV without a column of time.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend bad rows of traces instead of refusing them.")] = False,
    requests: Annotated[bool, typer.Option(help="Write a row for every request to requests.parquet.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find out whether moving the cut is worth it.

    Simulates every request of every policy along traces, and compares them with the best static cut and with oracles.

    \b
    Examples:
      edge-deploy simulate build/net/tflite-int8 --edge pi/profile.json
        --cloud server/profile.json --trace gen:markov-link+outages --out build/sim
      edge-deploy simulate build/a/tflite-int8 build/b/tflite-int8
        --pair pi/a.json,server/a.json --pair pi/b.json,server/b.json
        --trace bus.csv --seeds 5 --jobs 2 --out build/sweep
    """
    from edge_deploy.api.simulate import simulate_policies
    from edge_deploy.api.simulation_request import DEFAULT_POLICIES, SimulateRequest, parse_span
    from edge_deploy.cli.pairs import numbers, words
    from edge_deploy.cli.simulation_sweep import run_sweep
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.units import parse_seconds
    from partitioner.measured import Probes
    from partitioner.setting import Setting

    pairs = _pairs(edge, cloud, pair)
    policies = tuple(name.strip() for text in policy for name in text.split(",") if name.strip())
    request = SimulateRequest(
        artifact=artifacts[0],
        edge=pairs[0][0],
        cloud=pairs[0][1],
        traces=tuple(trace),
        policies=policies or DEFAULT_POLICIES,
        train=tuple(train),
        rate_hz=_per_second(rate),
        arrivals=arrivals,
        codec=codec,
        exits=numbers(exits, "--exit"),
        codec_measured=codec_measured,
        constraints=constraints(
            max_latency=max_latency,
            max_edge_memory=max_edge_memory,
            max_bytes=max_bytes,
            keep_on_edge=keep_on_edge,
            keep_off_edge=keep_off_edge,
            private=private,
            max_accuracy_drop=max_accuracy_drop,
            accuracy_drop=accuracy_drop,
        ),
        setting=Setting(
            tick_s=parse_seconds(tick, where="--tick"),
            cold_s=parse_seconds(cold, where="--cold"),
            warm_s=parse_seconds(warm, where="--warm"),
            warm=_kept(keep_warm),
        ),
        fallback_after_s=_patience(fallback),
        probes=Probes(delay_s=parse_seconds(probe_delay, where="--probe-delay"), noise=probe_noise, seed=seed),
        workers=workers,
        batch_limit=batch,
        batch_wait_s=parse_seconds(batch_wait, where="--batch-wait"),
        cloud_fails=tuple(parse_span(text) for text in cloud_fails),
        seconds=seconds,
        fill=words(fill, "--fill"),
        columns=words(column, "--column"),
        interval_s=None if interval is None else parse_seconds(interval, where="--interval"),
        repair=repair,
        seed=seed,
    )
    if len(artifacts) > 1 or pair or seeds > 1 or jobs > 1 or engine != "local" or scheduler:
        if out is None:
            raise BadInput("--out DIR: is needed by a sweep (several artifacts, --pair, --seeds, --jobs or --engine).")
        if force or not requests:
            raise BadInput(
                "--force, --no-requests: a sweep keeps all cells and goes on in DIR; delete it to begin anew."
            )
        run_sweep(
            request, artifacts, pairs, out, seeds=seeds, engine=engine, scheduler=scheduler, jobs=jobs, as_json=as_json
        )
        return
    with progress_bar(_stages(request)) as progress:
        found = simulate_policies(request, out, force=force, requests_file=requests, progress=progress)
    if as_json:
        print_json({"simulation": found, "folder": out})
        return
    _print(found)
    if out is not None:
        print(f"written: {out}")


def _pairs(edge: Path | None, cloud: Path | None, pair: list[str]) -> list[tuple[Path, Path]]:
    from edge_deploy.core.errors import BadInput

    if pair and (edge is not None or cloud is not None):
        raise BadInput("--pair: stands instead of --edge and --cloud; give one or the other.")
    if not pair and (edge is None or cloud is None):
        missing = " and ".join(f"--{name}" for name, path in (("edge", edge), ("cloud", cloud)) if path is None)
        raise BadInput(f"{missing}: missing; profiles of both sides are needed (`edge-deploy profile` makes them).")
    if edge is not None and cloud is not None:
        return [(edge, cloud)]
    found = []
    for text in pair:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 2 or not all(parts):
            raise BadInput(f"--pair {text!r}: must be EDGE,CLOUD: two profiles with a comma between.")
        found.append((Path(parts[0]), Path(parts[1])))
    return found


def _stages(request: SimulateRequest) -> int:
    return 1 + len(request.policies) + len(request.traces) * (len(request.policies) + 3)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds >= 0.01 else f"{seconds * 1e3:.3g}"


def _gain(share: float) -> str:
    return f"{share:+.1%}" if share > -9 else f"{1 - share:,.0f} times as slow"


def _print(found: Simulation) -> None:
    print(found.verdict)
    limited = found.setting.max_latency_s != float("inf")
    rows = [
        (
            score.name,
            _milliseconds(score.mean_s),
            _milliseconds(score.p50_s),
            _milliseconds(score.p95_s),
            f"{_gain(score.gain)} ({_gain(score.gain_low)} to {_gain(score.gain_high)})",
            ""
            if score.captured is None
            else f"{score.captured:.0%} ({score.captured_low:.0%} to {score.captured_high:.0%})",
            f"{score.switches}",
            f"{score.fallbacks}",
            f"{score.lost}",
            *((f"{score.late}",) if limited else ()),
        )
        for score in found.scores
    ]
    columns = (
        "policy",
        "mean ms",
        "p50 ms",
        "p95 ms",
        "faster than static (95 %)",
        "of the oracle's gain (95 %)",
        "switches",
        "fallbacks",
        "lost",
        *(("over the limit",) if limited else ()),
    )
    title = f"{found.artifact} between {found.edge} and {found.cloud}, simulated; static cut {found.static_cut}"
    print_table(title, columns, rows)
    made_up: dict[tuple[str, str], list[str]] = {}
    for used in found.scored_on:
        for name, how in used.filled.items():
            made_up.setdefault((name, how), []).append(used.source)
    for (name, how), sources in made_up.items():
        if how not in ("constant 0", "constant 0 s"):
            whose = sources[0] if len(sources) == 1 else f"{len(sources)} traces"
            print(f"note: {whose}: {name} is made up: {how}.")
    for used in found.scored_on:
        for mended in used.repairs:
            print(f"note: {used.source}: mended: {mended}")
    for note in found.notes:
        print(f"note: {note}")


def _per_second(text: str) -> float:
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.units import parse_seconds

    count, _, unit = text.partition("/")
    try:
        return float(count) / parse_seconds(f"1 {unit or 's'}", where="--rate")
    except (ValueError, BadInput):
        raise BadInput(f"--rate {text!r}: must be a number of requests in a time, e.g. 5/s or 30/min.") from None


def _kept(text: str) -> tuple[str, ...] | None:
    if text == "all":
        return None
    return () if text == "none" else tuple(cut.strip() for cut in text.split(","))


def _patience(text: str | None) -> float | None:
    from edge_deploy.core.units import parse_seconds

    if text is None:
        return None
    return float("inf") if text == "never" else parse_seconds(text, where="--fallback")
