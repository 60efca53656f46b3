"""`edge-deploy plan`."""

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
from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table

if TYPE_CHECKING:
    from edge_deploy.api.plan import PlanRequest
    from edge_deploy.core.conditions import Conditions
    from edge_deploy.core.partition_plan import PartitionPlan

__all__ = ["command"]

SHOWN = 10


def command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact's folder, or a .tflite file.")],
    edge: Annotated[
        Path, typer.Option(metavar="PROFILE", help="profile.json of this artifact on the edge, or its folder.")
    ],
    cloud: Annotated[Path, typer.Option(metavar="PROFILE", help="The same on the cloud.")],
    uplink: Annotated[str, typer.Option(metavar="RATE", help="From edge to cloud, e.g. 20Mbit; 0 when it is down.")],
    rtt: Annotated[str, typer.Option(metavar="TIME", help="Round trip of a small message, e.g. 30ms.")],
    downlink: Annotated[
        str | None, typer.Option(metavar="RATE", help="From cloud to edge; default: as fast as the uplink.")
    ] = None,
    edge_load: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the edge's CPU that others use, 0 to 1.")
    ] = 0.0,
    edge_memory: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the edge's free memory that others take, 0 to 1.")
    ] = 0.0,
    cloud_load: Annotated[float, typer.Option(metavar="SHARE", help="The same of the cloud's CPU.")] = 0.0,
    cloud_memory: Annotated[float, typer.Option(metavar="SHARE", help="The same of the cloud's memory.")] = 0.0,
    cloud_queue: Annotated[str, typer.Option(metavar="TIME", help="Wait of a request in the cloud.")] = "0s",
    objective: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="latency, throughput (the slowest stage), energy, or weights: latency=1,energy=0.2."
        ),
    ] = "latency",
    codec: Annotated[
        str, typer.Option(metavar="NAME", help="How tensors travel, e.g. requantize:int8 (`list`).")
    ] = "raw",
    max_latency: MaxLatency = None,
    max_edge_memory: MaxEdgeMemory = None,
    max_bytes: MaxBytes = None,
    keep_on_edge: KeepOnEdge = [],  # noqa: B006
    keep_off_edge: KeepOffEdge = [],  # noqa: B006
    private: Private = [],  # noqa: B006
    max_accuracy_drop: MaxAccuracyDrop = None,
    accuracy_drop: AccuracyDrops = [],  # noqa: B006
    codec_measured: CodecMeasured = None,
    exits: Annotated[
        list[str],
        typer.Option("--exit", metavar="LAYER=SHARE", help="Share of requests that end after this layer. Repeatable."),
    ] = [],  # noqa: B006
    solver: Annotated[
        str | None, typer.Option(metavar="NAME", help="enumerate or min-cut; default: the best of both.")
    ] = None,
    middle: Annotated[
        Path | None, typer.Option(metavar="PROFILE", help="A third tier: profile of what stands between the two.")
    ] = None,
    far_uplink: Annotated[
        str | None, typer.Option(metavar="RATE", help="From --middle to the cloud and back; --uplink then leads to it.")
    ] = None,
    far_rtt: Annotated[str | None, typer.Option(metavar="TIME", help="Round trip from --middle to the cloud.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the best cut over uplink, edge load and round trip as JSON for apps."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the map of best cuts and the layers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose where to cut a model between edge and cloud.

    Weighs all legal prefixes and the best of all other cuts, all-edge and all-cloud among them.

    \b
    Example:
      edge-deploy plan build/resnet8/tflite-int8 --edge pi/profile.json
        --cloud server/profile.json --uplink 20Mbit --rtt 30ms --edge-load 0.5
    """
    from edge_deploy.api.plan import PlanRequest, plan_partition, tabulate_plans
    from edge_deploy.cli.pairs import numbers
    from edge_deploy.core.conditions import Conditions
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.units import parse_seconds

    now = Conditions(
        uplink_bps=_rate(uplink, "--uplink"),
        downlink_bps=_rate(downlink if downlink is not None else uplink, "--downlink"),
        rtt_s=parse_seconds(rtt, where="--rtt"),
        edge_load=edge_load,
        edge_memory=edge_memory,
        cloud_load=cloud_load,
        cloud_memory=cloud_memory,
        cloud_queue_s=parse_seconds(cloud_queue, where="--cloud-queue"),
    )
    limits = constraints(
        max_latency=max_latency,
        max_edge_memory=max_edge_memory,
        max_bytes=max_bytes,
        keep_on_edge=keep_on_edge,
        keep_off_edge=keep_off_edge,
        private=private,
        max_accuracy_drop=max_accuracy_drop,
        accuracy_drop=accuracy_drop,
    )
    request = PlanRequest(
        artifact=artifact,
        edge=edge,
        cloud=cloud,
        objective=objective,
        codec=codec,
        constraints=limits,
        solver=solver,
        exits=numbers(exits, "--exit"),
        codec_measured=codec_measured,
    )
    if middle is not None:
        found = _three_tiers(request, now, middle, far_uplink, far_rtt)
        if table is not None or html is not None:
            raise BadInput("--table and --html: are for two tiers; leave out --middle.")
    else:
        if far_uplink is not None or far_rtt is not None:
            raise BadInput("--far-uplink and --far-rtt: describe the link behind --middle; give its profile.")
        found = plan_partition(request, now)
    if table is not None:
        from edge_deploy.core.serde import write_json

        write_json(tabulate_plans(request, _any_downlink(now, downlink)), table)
    if html is not None:
        from edge_deploy.api.plan_report import write_plan_report

        write_plan_report(request, found, html)
    if as_json:
        print_json(found)
        return
    _print(found)
    for what, path in (("table", table), ("page", html)):
        if path is not None:
            print(f"{what}: {path}")


def _three_tiers(
    request: PlanRequest, near: Conditions, middle: Path, far_uplink: str | None, far_rtt: str | None
) -> PartitionPlan:
    from edge_deploy.api.plan import plan_over_three_tiers
    from edge_deploy.core.conditions import Conditions
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.units import parse_seconds
    from partitioner.three_tiers import Links

    if far_uplink is None or far_rtt is None:
        raise BadInput("--middle: the link behind it is needed: --far-uplink 100Mbit --far-rtt 20ms.")
    rate = _rate(far_uplink, "--far-uplink")
    far = Conditions(uplink_bps=rate, downlink_bps=rate, rtt_s=parse_seconds(far_rtt, where="--far-rtt"))
    return plan_over_three_tiers(request, middle, Links(near=near, far=far))


def _print(plan: PartitionPlan) -> None:
    print(f"{plan.why}; {plan.provenance}")
    if plan.considered:
        _print_considered(plan)
    else:
        _print_parts(plan)
    for warning in plan.warnings:
        print(f"note: {warning}")
    for cut, layers in zip(plan.cuts, plan.edge_layers, strict=True):
        print(f"{cut}: " + _on_the_edge(cut, layers))


def _on_the_edge(cut: str, layers: tuple[str, ...]) -> str:
    from edge_deploy.core.cut import ALL_EDGE

    if not layers:
        return "every layer runs in the cloud"
    if cut == ALL_EDGE:
        return f"all {len(layers)} layers run on the edge"
    return f"{len(layers)} layers run before it, the last of them {layers[-1]}"


def _print_considered(plan: PartitionPlan) -> None:
    rows: list[tuple[str, ...]] = []
    for item in plan.considered[:SHOWN]:
        cost = item.cost
        crossing = cost.uplink_s + cost.encode_s + cost.rtt_s + cost.downlink_s
        rows.append(
            (
                item.cut,
                *(_milliseconds(seconds) for seconds in (cost.total_s, cost.edge_s, crossing)),
                _milliseconds(cost.queue_s + cost.cloud_s),
                human_bytes(cost.up_bytes),
                human_bytes(cost.edge_bytes),
                *(() if cost.energy_j is None else (f"{cost.energy_j * 1e3:.3g}",)),
                item.refused or "yes",
            )
        )
    energy = () if plan.cost.energy_j is None else ("mJ",)
    columns = ("cut", "total ms", "edge ms", "link ms", "cloud ms", "bytes up", "edge memory", *energy, "allowed")
    more = len(plan.considered) - SHOWN
    print_table(f"considered, best first{f' ({more} more in --json)' if more > 0 else ''}", columns, rows)


def _print_parts(plan: PartitionPlan) -> None:
    cost = plan.cost
    parts = ("edge_s", "encode_s", "uplink_s", "middle_s", "rtt_s", "queue_s", "cloud_s", "downlink_s")
    rows = [(name.removesuffix("_s"), _milliseconds(getattr(cost, name))) for name in parts]
    print_table("parts", ("part", "ms"), rows)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _rate(text: str, where: str) -> float:
    from edge_deploy.core.units import parse_bits_per_second

    return 0.0 if text.strip() == "0" else parse_bits_per_second(text, where=where)


def _any_downlink(now: Conditions, downlink: str | None) -> Conditions:
    """In a table the downlink follows the uplink unless it was given."""
    import dataclasses

    return now if downlink is not None else dataclasses.replace(now, downlink_bps=0.0)
