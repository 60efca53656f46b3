"""`edge-deploy profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from edge_deploy.core.profile import ModelProfile, Slowdown
    from partitioner.predictor.coefficients import Coefficients

__all__ = ["command"]

MOST_LAYERS_SHOWN = 15


def command(
    artifact: Annotated[
        Path | None,
        typer.Argument(
            metavar="[ARTIFACT]", help="Artifact folder or .tflite file; profiles with --fit.", show_default=False
        ),
    ] = None,
    more: Annotated[
        list[Path], typer.Argument(metavar="[PROFILE...]", help="With --fit: further profiles.", show_default=False)
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write the profile; default: profile.json in an artifact's folder."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to run: a device that `edge-deploy list` shows, or a .toml file.")
    ] = "host",
    threads: Annotated[int, typer.Option(metavar="N", help="Threads of the runtime.")] = 1,
    signature: Annotated[
        str | None, typer.Option(metavar="NAME", help="Signature to call, e.g. batch_64; default: the first.")
    ] = None,
    runs: Annotated[int, typer.Option(metavar="N", help="Plain runs at least, in all rounds together.")] = 60,
    rounds: Annotated[int, typer.Option(metavar="N", help="Turns that plain runs, layers and loads take.")] = 6,
    by: Annotated[
        str,
        typer.Option(
            metavar="HOW", help="profiler: the runtime's own; prefixes: time cut-off heads; auto: both as needed."
        ),
    ] = "auto",
    under_load: Annotated[
        bool, typer.Option("--under-load", help="Also sweep CPU load and memory pressure; keep other work away.")
    ] = False,
    cpu_levels: Annotated[
        str, typer.Option(metavar="SHARES", help="With --under-load: shares of every core.")
    ] = "0.25,0.5,0.75,1",
    memory_levels: Annotated[
        str, typer.Option(metavar="SHARES", help="With --under-load: shares of the free memory; empty for none.")
    ] = "0.5,1",
    fit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Fit a static predictor to measured PROFILEs and write its coefficients."),
    ] = None,
    estimate_with: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Do not measure: estimate with the coefficients of another device."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure or estimate seconds per layer on a device.

    \b
    Examples:
      edge-deploy profile build/resnet8/tflite-int8
      edge-deploy profile build/resnet8/tflite-int8 --under-load --out pi4.json
      edge-deploy profile --fit pi4-fit.json a/profile.json b/profile.json
      edge-deploy profile build/new/tflite-int8 --estimate-with pi4-fit.json
    """
    import sys

    from edge_deploy.api import profile as api
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.serde import write_json

    def say(line: str) -> None:
        print(f"- {line}", file=sys.stderr, flush=True)

    given = [path for path in (artifact, *more) if path is not None]
    if fit is not None:
        _show_fit(api.fit(given, fit), fit, as_json)
        return
    if len(given) != 1:
        raise BadInput(f"profile: {len(given)} artifacts given: must be one; only --fit takes several profiles.")
    where = api.place(given[0], out, estimated=estimate_with is not None)
    cpu, memory = _shares(cpu_levels, "--cpu-levels"), _shares(memory_levels, "--memory-levels")
    if estimate_with is not None:
        if under_load:
            raise BadInput("--under-load: cannot be estimated; leave it out or leave out --estimate-with.")
        profile = api.estimate(given[0], estimate_with, signature=signature)
    else:
        profile = api.profile(
            given[0],
            device=device,
            threads=threads,
            signature=signature,
            rounds=rounds,
            runs=runs,
            how=by,  # type: ignore[arg-type]  # checked there
            progress=say,
        )
    if under_load:
        profile = api.under_load(
            given[0],
            profile,
            signature=signature,
            device=device,
            cpu_levels=cpu,
            memory_levels=memory,
            rounds=rounds,
            progress=say,
        )
    write_json(profile, where)
    if not profile.adds_up:
        print(f"warning: {profile.notes[-1]}", file=sys.stderr)
    if as_json:
        print_json({"profile": profile, "adds_up": profile.adds_up, "file": where})
        return
    _show(profile)
    print(f"\nwritten to {where}")


def _shares(text: str, option: str) -> tuple[float, ...]:
    from edge_deploy.core.errors import BadInput

    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise BadInput(f"{option} {text}: must be numbers with commas between, e.g. 0.5,1.") from error


def _show(profile: ModelProfile) -> None:
    slowest = sorted(profile.layer_s.items(), key=lambda item: -item[1])[:MOST_LAYERS_SHOWN]
    rows = [(name, f"{seconds * 1e6:.1f}", f"{100 * seconds / (profile.sum_s or 1):.1f}") for name, seconds in slowest]
    left = len(profile.layer_s) - len(slowest)
    if left > 0:
        rest = sum(profile.layer_s.values()) - sum(seconds for _, seconds in slowest)
        rows.append((f"{left} more layers", f"{rest * 1e6:.1f}", f"{100 * rest / (profile.sum_s or 1):.1f}"))
    rows.append(
        ("(no layer)", f"{profile.overhead_s * 1e6:.1f}", f"{100 * profile.overhead_s / (profile.sum_s or 1):.1f}")
    )
    title = f"{profile.artifact} on {profile.device}, {profile.kernels}: {profile.provenance} ({profile.source})"
    print_table(title, ("layer", "us", "% of sum"), rows)
    print(
        f"\nsum {profile.sum_s * 1e3:.4g} ms, whole {profile.whole_s * 1e3:.4g} ms: "
        + ("they add up" if profile.adds_up else "THEY DO NOT ADD UP")
    )
    for name, curve in (("CPU load", profile.cpu), ("memory pressure", profile.memory)):
        if len(curve.at) > 1:
            print(f"slowdown by {name}: {_curve(curve)}")
    for codec, (encode, decode) in profile.codec_s_per_byte.items():
        print(f"codec {codec}: encodes in {encode * 1e9:.2f} and decodes in {decode * 1e9:.2f} ns a byte")
    for note in profile.notes:
        print(f"note: {note}")


def _curve(curve: Slowdown) -> str:
    return ", ".join(f"{at:.0%} {factor:.2f}x" for at, factor in zip(curve.at, curve.factor, strict=True))


def _show_fit(coefficients: Coefficients, where: Path, as_json: bool) -> None:
    if as_json:
        print_json({"coefficients": coefficients, "file": where})
        return
    rows = [(name, *(f"{value:.3g}" for value in values)) for name, values in coefficients.classes.items()]
    print_table(f"{coefficients.device}, {coefficients.kernels}", ("class", *coefficients.features), rows)
    print(f"\nfitted on {', '.join(coefficients.fitted_on)}; median error of a layer {coefficients.median_error:.0%}")
    print(f"written to {where}")
