"""`make bench-ptq`: INT8 against float on nets of other people, and what ranges, scales and passes each bring.

Needs EDGE_DEPLOY_DATA. Rows are kept in build/bench-ptq and made again only at another commit (or with BENCH=--fresh).
BENCH="mnist_dw grid" makes the rows of one net, or the table of variants, alone; spaces in names are written as _.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edge_deploy.api.convert import convert
from edge_deploy.api.request import convert_request
from edge_deploy.bench.models import DESCRIPTIONS, Net, development_data, nets, stock_rows
from edge_deploy.bench.ptq_nets import Wanted, random_sets, shaped_digits, wanted_nets
from edge_deploy.bench.ptq_variants import variant_rows, variants
from edge_deploy.bench.rows import kept, markdown, revision
from edge_deploy.core.artifact import Artifact
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.tensor import TensorInfo

HOME = Path("build/bench-ptq")
CALIBRATION_SAMPLES = 500
RANDOM_SAMPLES = 200
GRID = ("ResNet-20", "MobileNetV1 0.25")
MOBILENET = "MobileNetV1 0.25"
LEAST_AGREEMENT, LARGEST_LOSS = 0.86, 0.02
AUDIO = ("miniresnet", "miniresnetv2")
PATCH = TensorInfo(name="patch", shape=(1, 64, 50, 1), dtype="float32", layout="NHWC")


def net_row(wanted: Wanted, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """INT8 artifacts of one net in both formats, compared on its evaluation samples."""
    net = wanted.net
    calibrate: Path = DESCRIPTIONS / net.calibrate
    evaluate: Path = DESCRIPTIONS / net.evaluate
    if wanted.shape:
        calibrate, evaluate = shaped_digits(wanted, HOME, limit=CALIBRATION_SAMPLES)
    return _converted(net, calibrate, evaluate, without)


def _converted(net: Net, calibrate: Path, evaluate: Path, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    request = convert_request(
        net.source,
        to=["tflite", "executorch"],
        precision=["int8"],
        fallback="int8",
        calibrate=calibrate,
        calibrate_limit=CALIBRATION_SAMPLES,
        evaluate=evaluate,
        weights=net.weights,
        inputs=net.inputs,
        without_passes=without,
        out=HOME / "artifacts" / net.name.replace(" ", "_"),
        force=True,
    )
    conversion = convert(request, progress=lambda stage: print(f"- {net.name}: {stage}", file=sys.stderr, flush=True))
    return [_facts(artifact) for artifact in conversion.artifacts]


def _facts(artifact: Artifact) -> dict[str, Any]:
    comparison = min(artifact.verification.comparisons, key=lambda found: found.snr_db)
    facts: dict[str, Any] = {
        "artifact": f"{artifact.format} {artifact.spec.name}",
        "agreement": comparison.top1_agreement,
        "samples": comparison.samples,
        "snr_db": comparison.snr_db,
        "passes": ", ".join(record.name for record in artifact.passes if record.applied),
    }
    for found in artifact.verification.differences[:1]:
        facts |= {"source": found.source, "value": found.artifact, "difference": found.difference}
        facts |= {"low": found.low, "high": found.high}
    return facts


def audio_row(data: Path, name: str) -> list[dict[str, Any]]:
    """A net without data: calibrated and compared on random inputs."""
    source = str(next((data / "models" / "esc10_miniresnet_keras").glob(f"{name}_*.h5")))
    calibrate, evaluate = random_sets(PATCH, HOME, count=RANDOM_SAMPLES)
    return _converted(Net(name=name, source=source, calibrate="", evaluate="", stock=()), calibrate, evaluate)


def mobilenet_row(net: Net) -> dict[str, Any]:
    """With our passes, without any, and by the stock converter."""
    ours = net_row(Wanted(net=net, agreement=LEAST_AGREEMENT))
    bare = net_row(
        Wanted(net=net, agreement=0.0), without=("equalise-ranges", "compensated-rounding", "correct-biases")
    )
    return {"ours": ours, "bare": bare, "stock": stock_rows(net, ("tflite",))}


def _line(name: str, row: dict[str, Any], verdict: str) -> list[object]:
    metric = ""
    if "value" in row:
        metric = (
            f"{row['source']:.2%} -> {row['value']:.2%} "
            f"({100 * row['difference']:+.2f}, {100 * row['low']:+.2f} to {100 * row['high']:+.2f})"
        )
    agreement = "" if row["agreement"] is None else f"{row['agreement']:.2%}"
    return [name, row["artifact"], agreement, metric, f"{row['snr_db']:.1f}", row["passes"], verdict]


def _agreement_verdict(row: dict[str, Any], least: float) -> str:
    return f"met (>= {least:.0%})" if row["agreement"] >= least else f"NOT MET (>= {least:.0%})"


def _mobilenet_lines(found: dict[str, Any]) -> list[list[object]]:
    lines = []
    for row in found["ours"]:
        is_met = row["agreement"] >= LEAST_AGREEMENT and -row["difference"] < LARGEST_LOSS
        wanted = f">= {LEAST_AGREEMENT:.0%}, loss under {100 * LARGEST_LOSS:.0f} points"
        lines.append(_line(MOBILENET, row, f"met ({wanted})" if is_met else f"NOT MET ({wanted})"))
    lines += [_line(f"{MOBILENET} without passes", row, "") for row in found["bare"]]
    for row in found["stock"]:
        told = row.get("failed", "")
        agreement = f"{row['agreement']:.2%}" if "agreement" in row else ""
        value = f"{row['value']:.2%}" if "value" in row else told
        lines.append([f"{MOBILENET} by {row['stock']}", "tflite int8", agreement, value, "", "", ""])
    return lines


def _grid(name: str, rows: list[dict[str, Any]]) -> tuple[str, bool]:
    """The table of variants of one net, and whether the rounding search recovers half of plain INT4's loss."""
    lines = [
        [
            row["recipe"],
            row["weight_scale"],
            row["range_method"],
            row["title"],
            f"{row['bytes'] / 1e3:.1f}",
            f"{row['accuracy']:.2%}",
            f"{100 * row['difference']:+.2f} ({100 * row['low']:+.2f} to {100 * row['high']:+.2f})",
            f"{row['agreement']:.2%}",
            f"{row['snr_db']:.1f}",
        ]
        for row in rows
    ]
    columns = (
        "recipe",
        "weight scale",
        "ranges",
        "passes",
        "kB",
        "accuracy",
        "difference (95 %)",
        "agreement",
        "SNR dB",
    )
    plain = next(row for row in rows if row["plain"])
    default = ("int4", "channel", "percentile")
    searched = next(
        row
        for row in rows
        if (row["recipe"], row["weight_scale"], row["range_method"]) == default and row["title"] == "all"
    )
    lost = plain["source"] - plain["accuracy"]
    recovered = (searched["accuracy"] - plain["accuracy"]) / lost if lost > 0 else 1.0
    is_met = recovered >= 0.5
    verdict = (
        f"{name}, INT4: plain loses {100 * lost:.2f} points, of which the rounding search recovers {recovered:.0%}: "
        f"{'met' if is_met else 'NOT MET'} (at least half)"
    )
    return f"{name}, float {plain['source']:.2%}\n\n{markdown(columns, lines)}\n\n{verdict}", is_met


def main(arguments: list[str]) -> int:
    """Make or complete the tables and print them as Markdown; 1 when something wanted is not met."""
    data = development_data()
    fresh = "--fresh" in arguments
    only = {word.replace(" ", "_") for word in arguments if not word.startswith("--")}

    def is_asked(name: str) -> bool:
        return not only or name.replace(" ", "_") in only

    rows = HOME / "rows"
    lines: list[list[object]] = []
    for wanted in wanted_nets(data, HOME):
        name = wanted.net.name
        if is_asked(name):
            found = kept(rows, name, lambda wanted=wanted: net_row(wanted), fresh=fresh)  # type: ignore[misc]  # bound early
            lines += [_line(name, row, _agreement_verdict(row, wanted.agreement)) for row in found]
    known = {net.name: net for net in nets(data)}
    if is_asked(MOBILENET):
        found = kept(rows, MOBILENET, lambda: mobilenet_row(known[MOBILENET]), fresh=fresh)
        lines += _mobilenet_lines(found)
    for name in AUDIO:
        if is_asked(name):
            found = kept(rows, name, lambda name=name: audio_row(data, name), fresh=fresh)  # type: ignore[misc]  # bound early
            lines += [_line(f"esc10 {name}, random inputs", row, "stated") for row in found]
    columns = ("model", "artifact", "agreement", "accuracy (95 %)", "SNR dB", "passes applied", "wanted")
    print(f"revision {revision()}; {CALIBRATION_SAMPLES} calibration samples at most\n")
    print(markdown(columns, lines))
    all_met = not any("NOT MET" in str(line[-1]) for line in lines)
    for name in GRID if is_asked("grid") else ():
        net = known[name]
        found = kept(rows, f"grid {name}", lambda net=net: variant_rows(net, variants()), fresh=fresh)  # type: ignore[misc]  # bound early
        text, is_met = _grid(name, found)
        all_met = all_met and is_met
        print(f"\n{text}")
    return int(not all_met)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeDeployError as error:
        sys.exit(f"error: {error}")
