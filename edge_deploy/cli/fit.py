"""`edge-deploy fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from edge_deploy.api.fit_values import FitReport

__all__ = ["command"]

DOES_NOT_FIT = 7
LAYERS = 8


def command(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="An artifact's folder, a .tflite or .pte file, or a model.c.")
    ],
    device: Annotated[
        str,
        typer.Option(metavar="NAME", help="A device that `edge-deploy list devices` shows, an address, or a .toml."),
    ],
    npu: Annotated[
        str | None,
        typer.Option(metavar="NPU", help="Estimate for this Ethos-U, e.g. ethos-u55-128; default: the device's own."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a model fits a device, and what would help.

    Exits with 7 where it does not fit, or does not run there.
    """
    from edge_deploy.api.fit import fit

    report = fit(artifact, device=device, npu=npu)
    if as_json:
        print_json({"fit": report, "fits": report.fits})
    else:
        _print(report)
    if not report.fits:
        raise typer.Exit(DOES_NOT_FIT)


def _print(report: FitReport) -> None:
    rows = [
        (
            need.what,
            f"{need.amount.bytes}",
            "" if need.room_bytes is None else f"{need.room_bytes}",
            "yes" if need.fits else f"no, {need.amount.bytes - (need.room_bytes or 0)} too many",
            need.amount.provenance,
            need.amount.how,
        )
        for need in report.needs
    ]
    title = f"{report.artifact} on {report.device.name} as {report.footprint.form}: "
    title += "fits" if report.fits else "does not run" if report.footprint.refused else "does not fit"
    print_table(title, ("memory", "needs B", "has B", "fits", "known by", "what it is"), rows)
    if report.footprint.refused:
        print(f"refused: {report.footprint.refused}")
    _print_layers(report)
    if report.alternatives:
        others = [
            (
                _short(each.name),
                "" if each.flash_bytes is None else f"{each.flash_bytes}",
                "" if each.ram_bytes is None else f"{each.ram_bytes}",
                {True: "yes", False: "no", None: "not known"}[each.fits],
                each.provenance,
                each.how,
            )
            for each in report.alternatives
        ]
        print_table("what would need less", ("instead", "flash B", "RAM B", "fits", "known by", "how"), others)
    _print_npu(report)
    for note in (*report.footprint.notes, *report.notes):
        print(f"note: {note}")


def _print_layers(report: FitReport) -> None:
    stages, peak = report.footprint.stages, report.footprint.peak
    if peak is None:
        return
    most = sorted(range(len(stages)), key=lambda place: -stages[place].live_bytes)[:LAYERS]
    rows = [
        (
            f"{_short(stages[place].layer)}{' (the peak)' if place == peak else ''}",
            stages[place].op,
            f"{stages[place].live_bytes}",
            f"{stages[place].weight_bytes}",
        )
        for place in sorted({*most, peak})
    ]
    print_table("layers with the most values alive", ("layer", "operator", "alive B", "weights B"), rows)


def _print_npu(report: FitReport) -> None:
    found = report.npu
    if found is None:
        return
    slowest = sorted((each for each in found.layers if each.cycles), key=lambda each: -each.cycles)[:LAYERS]
    rows = [
        (_short(each.layer), each.op, each.target, f"{each.cycles:,.0f}", f"{each.macs:,}", f"{each.sram_bytes}")
        for each in slowest
    ]
    title = (
        f"estimated by {found.compiler} for {found.accelerator} ({found.system}): {found.cycles:,.0f} cycles, "
        f"{found.seconds * 1e6:.0f} us at {found.clock_hz / 1e6:g} MHz, SRAM {found.sram_bytes} B; slowest layers"
    )
    print_table(title, ("layer", "operator", "on", "cycles", "MACs", "SRAM B"), rows)
    for reason in found.reasons:
        print(f"stays on the CPU: {reason}")


def _short(name: str) -> str:
    """The first of the names that a converter joined."""
    return name.partition(";")[0]
