"""`edge-deploy validate-simulation`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table, progress_bar

__all__ = ["command"]


def command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder with manifest.json, or a .tflite.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="For validation.json and the page.")],
    trace: Annotated[list[str], typer.Option(metavar="TRACE", help="A file, or gen:markov-link. Repeatable.")] = [],  # noqa: B006
    link: Annotated[
        list[str], typer.Option(metavar="UP/DOWN/RTT", help="A link that stays, e.g. 5Mbit/20Mbit/40ms. Repeatable.")
    ] = [],  # noqa: B006
    cut: Annotated[
        list[str], typer.Option(metavar="ID", help="Stay at this cut. Repeatable. Default: up to five, spread.")
    ] = [],  # noqa: B006
    policy: Annotated[
        list[str], typer.Option(metavar="NAME", help="Let it move the cut as well, e.g. hysteresis. Repeatable.")
    ] = [],  # noqa: B006
    halves: Annotated[Path | None, typer.Option(metavar="DIR", help="What `edge-deploy split` wrote.")] = None,
    inputs: Annotated[Path | None, typer.Option(metavar="DATA", help="Samples. Default: random ones.")] = None,
    seconds: Annotated[str, typer.Option(metavar="TIME", help="Of each condition.")] = "20s",
    rate: Annotated[float, typer.Option(metavar="N", help="Requests a second, at random moments.")] = 5.0,
    codec: Annotated[str, typer.Option(metavar="NAME", help="How tensors travel (`list`).")] = "raw",
    edge_cores: Annotated[
        float | None, typer.Option(metavar="N", help="CPU quota of the edge's process, e.g. 0.5.")
    ] = None,
    cloud_cores: Annotated[float | None, typer.Option(metavar="N", help="The same of the cloud's.")] = None,
    link_by: Annotated[
        str,
        typer.Option(metavar="WAY", help="tun (network namespaces, root), proxy, or auto: tun where it can be had."),
    ] = "auto",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the moments of requests.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Hold the simulator against reality.

    Runs edge and cloud as two processes with a shaped link between them, on the same requests as the simulator.

    \b
    Example:
      edge-deploy validate-simulation build/resnet8/tflite-int8 --trace bus.csv
        --policy hysteresis --edge-cores 0.5 --out build/validation
    """
    from edge_deploy.api.validation.validate import validate_simulation
    from edge_deploy.core.serde import write_json
    from edge_deploy.core.units import format_seconds, parse_seconds
    from edge_deploy.report.validation_page import validation_page
    from partitioner.simulator.validation import ValidateRequest

    request = ValidateRequest(
        artifact=artifact,
        inputs=inputs,
        halves=halves,
        cuts=tuple(cut),
        policies=tuple(policy),
        traces=tuple(trace),
        links=tuple(_link(text) for text in link),
        seconds=parse_seconds(seconds, where="--seconds"),
        rate_hz=rate,
        codec=codec,
        edge_cores=edge_cores,
        cloud_cores=cloud_cores,
        seed=seed,
        link_by=link_by,  # type: ignore[arg-type]  # the request checks it
    )
    with progress_bar(4) as progress:
        found = validate_simulation(request, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    write_json(found, out / "validation.json")
    (out / "index.html").write_text(validation_page(found), encoding="utf-8")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each.name,
            str(each.requests),
            format_seconds(each.live_median_s),
            format_seconds(each.simulated_median_s),
            f"{each.median_error:+.1%}",
            format_seconds(each.live_p95_s),
            format_seconds(each.simulated_p95_s),
            f"{each.p95_error:+.1%}",
        )
        for each in found.conditions
    ]
    columns = ("condition", "requests", "live p50", "simulated", "error", "live p95", "simulated", "error")
    print_table(f"{artifact}: simulator against two processes", columns, rows)
    print(f"link: {found.shaped_by}; edge: {found.edge_quota}; cloud: {found.cloud_quota}")
    for one in found.links:
        rates = f"asked {one.asked_bps / 1e6:.3g}, achieved {one.achieved_bps / 1e6:.3g} Mbit/s"
        print(
            f"{one.link}: {rates}, round trip {format_seconds(one.achieved_rtt_s)} of {format_seconds(one.asked_rtt_s)}"
        )
    print(f"error of the median: {found.typical_median_error:.1%} typically, {found.worst_median_error:.1%} at worst")
    print(f"written: {out / 'index.html'}")


def _link(text: str) -> tuple[float, float, float]:
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.units import parse_bits_per_second, parse_seconds

    parts = text.split("/")
    if len(parts) != len(("up", "down", "rtt")):
        raise BadInput(f"--link {text!r}: must be UP/DOWN/RTT, e.g. 5Mbit/20Mbit/40ms.")
    return (
        parse_bits_per_second(parts[0], where="--link"),
        parse_bits_per_second(parts[1], where="--link"),
        parse_seconds(parts[2], where="--link"),
    )
