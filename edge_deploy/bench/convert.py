"""`make bench-convert`: speed and size of our files against the stock toolchains', interleaved, as ratios.

Needs EDGE_DEPLOY_DATA for the CNNs. Rows are kept in build/bench-convert; BENCH=--fresh makes them again, and
BENCH=--whole-command times nothing but whole commands.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from converters.capture import capture, run_float
from converters.contracts import Captured, CaptureRequest, LowerRequest
from converters.lower import lower
from converters.samples import spool
from device_tests.benchmark import benchmark
from edge_deploy.bench.models import DESCRIPTIONS, Net, capture_net, development_data, make_stock, nets
from edge_deploy.bench.rows import kept, markdown, revision
from edge_deploy.bench.whole_command import COLUMNS, command_lines, command_row
from edge_deploy.core.benchmark import BenchmarkReport, percentiles, ratio
from edge_deploy.core.child import run_in_child
from edge_deploy.core.dataset import Sample
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo, encode_input
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.metrics import auc

HOME = Path("build/bench-convert")
SUFFIX = {"tflite": "tflite", "executorch": "pte"}
# Criteo Kaggle's table sizes, each capped, so that 26 tables have about 830 k rows.
CRITEO_KAGGLE = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
    *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)
CAP = 98_500
CLICKS = 4000
OVERHEAD_CALLS = 400


def net_row(net: Net) -> dict[str, Any]:
    """Latency of our INT8 files of one CNN over the best stock INT8 file and over our float file, per format."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        captured, calibration = _captured(net, work)
        row: dict[str, Any] = {}
        for target in ("tflite", "executorch"):
            files = {}
            for recipe in ("float32", "int8", "int4"):
                start = time.perf_counter()
                files[recipe] = _lower(captured, target, recipe, calibration, work / f"{target}-{recipe}")
                row[f"{target} {recipe} s"] = time.perf_counter() - start
            stock = _stock_files(net, captured, target, calibration, work)
            names = ["int8", "float32", "int4", *stock]
            paths = [files["int8"], files["float32"], files["int4"], *stock.values()]
            reports = benchmark(paths, min_seconds=2.0, runs=240, rounds=24)
            row[target] = _ratios(dict(zip(names, reports, strict=True)))
            row[target]["bytes"] = {name: path.stat().st_size for name, path in zip(names, paths, strict=True)}
        return row


def _captured(net: Net, work: Path) -> tuple[Captured, Path]:
    captured = capture_net(net, work)
    dataset = open_dataset(DESCRIPTIONS / net.calibrate, inputs=captured.inputs, limit=100)
    spool(dataset, len(dataset), captured.inputs, work / "calibration.npz")
    return captured, work / "calibration.npz"


def _lower(captured: Captured, target: str, recipe: str, calibration: Path | None, folder: Path) -> Path:
    folder.mkdir()
    spec = spec_for_recipe(recipe, fallback_bits=8)
    lowered = lower(target, LowerRequest(captured=captured, spec=spec, folder=folder, calibration=calibration))
    return folder / next(entry.path for entry in lowered.files if entry.role == "model")


def _stock_files(net: Net, captured: Captured, target: str, calibration: Path, work: Path) -> dict[str, Path]:
    """The stock INT8 files in this format, by the name of their maker; those that fail are told and left out."""
    files = {}
    for stock in net.stock:
        if (stock == "PT2E") != (target == "executorch"):
            continue
        file = work / f"{stock}.{SUFFIX[target]}"
        try:
            make_stock(stock, net, captured, work, calibration, file)
            files[stock] = file
        except EdgeDeployError as error:
            _say(f"{net.name}: {stock} failed: {error}")
    return files


def _ratios(reports: dict[str, BenchmarkReport]) -> dict[str, Any]:
    ours = reports["int8"]
    found: dict[str, Any] = {"p50_us": {name: percentiles(report).p50_s * 1e6 for name, report in reports.items()}}
    for name, report in reports.items():
        if name != "int8":
            compared = ratio(report, ours)  # how many times as long the other takes: our speed over theirs
            found[f"speed over {name}"] = (compared.median, compared.low, compared.high)
    return found


def dlrm_row() -> dict[str, Any]:
    """Size, latency and AUC of our INT4 DLRM over ai-edge-quantizer's: 26 tables, about 830 k rows of 16."""
    rows = tuple(min(size, CAP) for size in CRITEO_KAGGLE)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        inputs = (
            TensorInfo(name="dense", shape=(1, 13), dtype="float32"),
            TensorInfo(name="sparse", shape=(1, 26), dtype="int64", id_bounds=rows),
        )
        arguments = {"rows": list(rows), "folder": work}
        run_in_child("edge_deploy.bench.stock:planted_dlrm", arguments, stage="a DLRM with planted clicks")
        (work / "captured").mkdir()
        source = CaptureRequest(
            source="planted_dlrm:model", weights=work / "weights.pt", inputs=inputs, search_path=(str(work),)
        )
        captured = capture(source, work / "captured")
        feeds, answers = work / "feeds.npz", work / "answers.npz"
        generator = np.random.default_rng(7)
        samples = [
            Sample(
                inputs={
                    "dense": generator.standard_normal(13).astype(np.float32),
                    "sparse": generator.integers(0, rows),
                }
            )
            for _ in range(CLICKS)
        ]
        spool(samples, CLICKS, captured.inputs, feeds)
        run_float(captured, feeds, answers)
        with np.load(answers, allow_pickle=False) as archive:
            probability = archive[archive.files[0]].reshape(-1)
        clicks = (generator.random(CLICKS) < probability).astype(int)
        paths = {recipe: _lower(captured, "tflite", recipe, None, work / recipe) for recipe in ("float32", "int4")}
        paths["ai-edge-quantizer int4"] = work / "stock.tflite"
        arguments = {"program": captured.program, "folder": work, "out": work / "stock.tflite"}
        run_in_child("edge_deploy.bench.stock:ai_edge_quantizer_dlrm", arguments, stage="ai-edge-quantizer INT4")
        scores = {name: _scores(path, samples, captured) for name, path in paths.items()}
        reports = benchmark(list(paths.values()), min_seconds=2.0, runs=240, rounds=24)
        ours, theirs = reports[1], reports[2]
        compared = ratio(ours, theirs)
        return {
            "rows": sum(rows),
            "bytes": {name: path.stat().st_size for name, path in paths.items()},
            "p50_us": {name: percentiles(r).p50_s * 1e6 for name, r in zip(paths, reports, strict=True)},
            "auc": {"source": auc(clicks, probability), **{name: auc(clicks, s) for name, s in scores.items()}},
            "latency over theirs": (compared.median, compared.low, compared.high),
            "size over theirs": paths["int4"].stat().st_size / (work / "stock.tflite").stat().st_size,
        }


def _scores(path: Path, samples: list[Sample], captured: Captured) -> np.ndarray:
    from runtimes.session import open_session

    session = open_session(path, trusted=True)
    by_shape = {info.shape[1:]: info for info in captured.inputs}
    found = []
    for sample in samples:
        feed = {}
        for info in session.signature.inputs:
            source = by_shape[info.shape[1:]]
            feed[info.name] = encode_input(sample.inputs[source.name][None], source=source, target=info)
        found.append(next(iter(session.run(feed).values())).reshape(-1)[0])
    return np.asarray(found)


def overhead_row() -> dict[str, Any]:
    """Microseconds that a session adds to the bare interpreter, from array to array, on two layers in both formats."""
    return dict(run_in_child("edge_deploy.bench.overhead:measure", {}, stage="session overhead"))


def _say(line: str) -> None:
    print(f"- {line}", file=sys.stderr, flush=True)


def _net_lines(name: str, row: dict[str, Any]) -> list[list[object]]:
    lines: list[list[object]] = []
    for target in ("tflite", "executorch"):
        found = row[target]
        stock = {key: value for key, value in found.items() if key.startswith("speed over")}
        stock = {key: value for key, value in stock.items() if not key.endswith(("float32", "int4"))}
        best = min(stock.items(), key=lambda item: item[1][0], default=None)
        lines.append(
            [
                name,
                target,
                f"{found['p50_us']['int8']:.0f}",
                _interval(found["speed over float32"]),
                _interval(found["speed over int4"]),
                "" if best is None else f"{best[0].removeprefix('speed over ')}: {_interval(best[1])}",
                "" if best is None else ("met" if best[1][0] >= 0.97 else "NOT met (0.97)"),
                f"{row[f'{target} int8 s']:.0f}",
            ]
        )
    return lines


def _interval(value: list[float] | tuple[float, ...]) -> str:
    return f"{value[0]:.2f}x ({value[1]:.2f} to {value[2]:.2f})"


def main(arguments: list[str]) -> int:
    """Make or complete the tables and print them as Markdown; 1 when something wanted is not met."""
    data = development_data()
    fresh = "--fresh" in arguments

    def row(name: str, make: Callable[[], Any]) -> Any:
        _say(name)
        return kept(HOME / "rows", name, make, fresh=fresh)

    first = nets(data)[0]
    whole = command_lines(first.name, row("whole command", lambda: command_row(first)))
    if "--whole-command" in arguments:
        print(f"revision {revision()}\n\n{markdown(COLUMNS, whole)}")
        return int("NOT met" in str(whole))
    found = {net.name: row(net.name, lambda net=net: net_row(net)) for net in nets(data)}  # type: ignore[misc]  # bound early
    dlrm, overhead = row("dlrm", dlrm_row), row("overhead", overhead_row)
    print(f"revision {revision()}; host timings, one thread; medians of 24 interleaved rounds, 95 % intervals\n")
    columns = ("net", "format", "INT8 p50 us", "speed over our float", "speed over our INT4", "over stock INT8")
    lines = [line for name, each in found.items() for line in _net_lines(name, each)]
    print(markdown((*columns, "wanted >= 0.97", "INT8 lowered in s"), lines))
    size, latency = dlrm["size over theirs"], dlrm["latency over theirs"]
    print(f"\nDLRM, 26 tables, {dlrm['rows']} rows x 16, INT4 against ai-edge-quantizer's INT4:\n")
    verdicts = [
        ["size", f"{size:.3f}", "met" if size <= 0.55 else "NOT met (0.55)"],
        ["latency", _interval(latency), "met" if latency[0] <= 0.55 else "NOT met (0.55)"],
    ]
    print(markdown(("", "ours over theirs", "wanted <= 0.55"), verdicts))
    print()
    figures = [
        [name, f"{dlrm['bytes'][name] / 1e6:.2f}", f"{dlrm['p50_us'][name]:.1f}", f"{dlrm['auc'][name]:.4f}"]
        for name in dlrm["bytes"]
    ]
    print(markdown(("file", "MB", "p50 us", f"AUC (source {dlrm['auc']['source']:.4f})"), figures))
    print("\nSession overhead over the bare interpreter:\n")
    print(markdown(("model", "bare us", "session us", "added us (95 %)", "wanted"), _overhead_lines(overhead)))
    print(f"\nConversion to INT8 from model file to report, evaluation included:\n\n{markdown(COLUMNS, whole)}")
    return int("NOT met" in str(lines) + str(verdicts) + str(_overhead_lines(overhead)) + str(whole))


def _overhead_lines(overhead: dict[str, Any]) -> list[list[object]]:
    lines: list[list[object]] = []
    for name, each in overhead.items():
        limit = max(0.05 * each["bare_us"], 2.0)
        met = "met" if each["added_us"] <= limit else f"NOT met ({limit:.1f})"
        interval = f"{each['added_us']:.2f} ({each['low_us']:.2f} to {each['high_us']:.2f})"
        lines.append([name, f"{each['bare_us']:.2f}", f"{each['session_us']:.2f}", interval, met])
    return lines


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeDeployError as error:
        sys.exit(f"error: {error}")
