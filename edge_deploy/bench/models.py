"""`make bench-models`: models from other people, converted to both formats and compared with the stock converters.

Needs EDGE_DEPLOY_DATA. Rows are kept in build/bench-models and made again only at another commit (or with
BENCH=--fresh). BENCH="ResNet-20 --to=tflite" makes one model's rows, or those of one format, alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.capture import capture, run_float
from converters.contracts import Captured, CaptureRequest
from converters.samples import spool
from converters.verify import compare_arrays
from edge_deploy.api.convert import convert
from edge_deploy.api.request import convert_request, parse_input
from edge_deploy.bench.rows import kept, markdown, revision
from edge_deploy.core.artifact import Artifact
from edge_deploy.core.child import run_in_child
from edge_deploy.core.errors import BadInput, EdgeDeployError
from edge_deploy.core.tensor import encode_input
from edge_deploy.zoo.datasets import open_dataset

HOME = Path("build/bench-models")
CALIBRATION_SAMPLES = 1000  # at most; the same ones for us and for the stock converters
FORMATS = ("tflite", "executorch")
DESCRIPTIONS = Path(__file__).resolve().parents[1] / "zoo" / "descriptions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """One CNN with its data and the stock converters that can take it."""

    name: str
    source: str
    calibrate: str
    evaluate: str
    stock: tuple[str, ...]
    weights: str | None = None
    inputs: tuple[str, ...] = ()


def development_data() -> Path:
    """The folder of development models and data sets.

    Raises:
        BadInput: EDGE_DEPLOY_DATA does not name it.
    """
    data = os.environ.get("EDGE_DEPLOY_DATA")
    if not data or not Path(data).is_dir():
        raise BadInput("EDGE_DEPLOY_DATA: must name the folder of development models and data sets.")
    return Path(data)


def nets(data: Path) -> tuple[Net, ...]:
    """The CNNs of the acceptance table."""
    models = data / "models"

    def cifar_resnet(depth: int, checkpoint: str) -> Net:
        return Net(
            name=f"ResNet-{depth}",
            source=f"edge_deploy.zoo.resnet:resnet{depth}",
            weights=str(models / "cifar10_resnet_pytorch" / checkpoint),
            inputs=("image:1,3,32,32",),
            calibrate="cifar10_train4k_normalised.toml",
            evaluate="ic01_normalised.toml",
            stock=("TensorFlow", "ai-edge-quantizer", "PT2E"),
        )

    return (
        Net(
            name="ResNet-8",
            source=str(next((models / "mlperf_tiny_ic_resnet8").glob("*.h5"))),
            calibrate="cifar10_train4k.toml",
            evaluate="ic01.toml",
            stock=("TensorFlow",),
        ),
        cifar_resnet(20, "resnet20-12fca82f.th"),
        cifar_resnet(44, "resnet44-014dd654.th"),
        Net(
            name="MobileNetV1 0.25",
            source=str(next((models / "imagenet_mobilenetv1_025_224_keras").glob("*.h5"))),
            calibrate="imagenet_sample_calibrate.toml",
            evaluate="imagenet_sample_evaluate.toml",
            stock=("TensorFlow",),
        ),
    )


def capture_net(net: Net, work: Path) -> Captured:
    """Capture the net into a new folder in `work`."""
    (work / "captured").mkdir()
    declared = tuple(parse_input(text) for text in net.inputs)
    weights = Path(net.weights) if net.weights else None
    return capture(CaptureRequest(source=net.source, weights=weights, inputs=declared), work / "captured")


def net_row(net: Net, formats: tuple[str, ...] = FORMATS) -> dict[str, Any]:
    """Convert one net to these formats at every precision, and with their stock converters on the same calibration."""
    request = convert_request(
        net.source,
        to=list(formats),
        precision=["float32", "int8", "int4"],
        fallback="int8",
        calibrate=DESCRIPTIONS / net.calibrate,
        calibrate_limit=CALIBRATION_SAMPLES,
        evaluate=DESCRIPTIONS / net.evaluate,
        weights=net.weights,
        inputs=net.inputs,
        out=HOME / net.name,
        force=True,
    )
    conversion = convert(request, progress=lambda stage: _say(f"{net.name}: {stage}"))
    return {"ours": [_facts(artifact) for artifact in conversion.artifacts], "stock": stock_rows(net, formats)}


def _facts(artifact: Artifact) -> dict[str, Any]:
    comparison = artifact.verification.comparisons[0]
    found = artifact.verification.differences[0]
    return {
        "artifact": f"{artifact.format} {artifact.spec.name}",
        "bytes": artifact.device_bytes,
        "agreement": comparison.top1_agreement,
        "snr_db": comparison.snr_db,
        "metric": found.metric,
        "source": found.source,
        "value": found.artifact,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
    }


def stock_rows(net: Net, formats: tuple[str, ...]) -> list[dict[str, Any]]:
    """What each stock converter of the net makes of it, on the same calibration samples."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        captured = capture_net(net, work)
        calibration = open_dataset(DESCRIPTIONS / net.calibrate, inputs=captured.inputs, limit=CALIBRATION_SAMPLES)
        evaluation = open_dataset(DESCRIPTIONS / net.evaluate, inputs=captured.inputs)
        feeds, answers, cal = work / "feeds.npz", work / "answers.npz", work / "calibration.npz"
        labels = spool(evaluation, len(evaluation), captured.inputs, feeds)
        spool(calibration, len(calibration), captured.inputs, cal)
        run_float(captured, feeds, answers)
        rows = []
        # A net without PT2E's file is compared with TensorFlow's in both formats.
        for stock in (each for each in net.stock if each != "PT2E" or "executorch" in formats):
            _say(f"{net.name}: {stock}")
            file = work / ("stock.pte" if stock == "PT2E" else "stock.tflite")
            try:
                make_stock(stock, net, captured, work, cal, file)
                rows.append({"stock": stock, **_stock_figures(file, captured.inputs[0], feeds, answers, labels)})
            except EdgeDeployError as error:
                rows.append({"stock": stock, "failed": str(error)[:300]})
        return rows


def make_stock(stock: str, net: Net, captured: Captured, work: Path, calibration: Path, file: Path) -> None:
    """Convert the net with a stock toolchain, in a child process, into `file`.

    Args:
        stock: "TensorFlow", "PT2E" or "ai-edge-quantizer".
        calibration: npz in the source's terms.

    Raises:
        ToolchainError: It failed.
    """
    program = captured.program
    name = f"{net.name} by {stock}"
    module = "edge_deploy.bench.stock"
    if stock == "TensorFlow" and program is None:
        arguments = {"model": net.source, "calibration": calibration, "out": file}
        run_in_child(f"{module}:tensorflow_int8", arguments, stage=name)
    elif stock == "PT2E":
        arguments = {"program": program, "calibration": calibration, "out": file}
        run_in_child(f"{module}:pt2e_int8", arguments, stage=name)
    else:
        nhwc = work / "calibration_nhwc.npz"
        with np.load(calibration, allow_pickle=False) as archive:
            np.savez(nhwc, **{key: archive[key].transpose(0, 2, 3, 1) for key in archive.files})
        folder = work / f"float by litert-torch for {stock}"
        folder.mkdir()
        made = run_in_child(f"{module}:litert_torch_float", {"program": program, "folder": folder}, stage=name)
        function = "tensorflow_int8_of_graph" if stock == "TensorFlow" else "ai_edge_quantizer_int8"
        run_in_child(f"{module}:{function}", {"float_tflite": made, "calibration": nhwc, "out": file}, stage=name)


def _stock_figures(file: Path, source: Any, feeds: Path, answers: Path, labels: np.ndarray) -> dict[str, Any]:
    from runtimes.session import open_session

    session = open_session(file)
    with np.load(feeds, allow_pickle=False) as archive:
        images = archive[archive.files[0]]
    with np.load(answers, allow_pickle=False) as archive:
        want = archive[archive.files[0]]
    info = session.signature.inputs[0]
    encoded = encode_input(images, source=source, target=_with_layout(info, source))
    output = session.signature.outputs[0].name
    got = np.concatenate([session.run({info.name: encoded[i : i + 1]})[output] for i in range(len(encoded))])
    comparison = compare_arrays({"y": want}, {"y": got}, kernels=session.kernels, threads=1)
    accuracy = float((got.argmax(1) == labels).mean())
    return {
        "bytes": file.stat().st_size,
        "agreement": comparison.top1_agreement,
        "snr_db": comparison.snr_db,
        "value": accuracy,
    }


def _with_layout(info: Any, source: Any) -> Any:
    same = tuple(info.shape[1:]) == tuple(source.shape[1:])
    other = "NHWC" if source.layout == "NCHW" else "NCHW"
    return replace(info, layout=source.layout if same else other)


def click_row(name: str, data: Path) -> dict[str, Any]:
    """Train a DLRM on a click log and convert it to both formats at every precision."""
    from edge_deploy.zoo.click_models import train_click_model

    folder = HOME / f"{name}-trained"
    trained = train_click_model(name, folder, data=data)
    request = convert_request(
        trained.source,
        to=["tflite", "executorch"],
        precision=["float32", "int8", "int4"],
        weights=folder / "weights.pt",
        inputs=trained.inputs,
        search_path=[str(folder)],
        calibrate=folder / "calibration.npz",
        evaluate=folder / "eval.npz",
        features=folder / "features.json",
        out=HOME / name,
        force=True,
    )
    conversion = convert(request, progress=lambda stage: _say(f"{name}: {stage}"))
    return {"ours": [_facts(artifact) for artifact in conversion.artifacts], "stock": []}


def _say(line: str) -> None:
    print(f"- {line}", file=sys.stderr, flush=True)


def _print(name: str, row: dict[str, Any]) -> list[list[object]]:
    lines: list[list[object]] = []
    for ours in row["ours"]:
        agreement = "" if ours["agreement"] is None else f"{ours['agreement']:.1%}"
        lines.append(
            [
                name,
                ours["artifact"],
                f"{ours['bytes'] / 1e3:.1f}",
                f"{ours['metric']} {ours['source']:.4f} -> {ours['value']:.4f}",
                f"{ours['difference']:+.4f} ({ours['low']:+.4f} to {ours['high']:+.4f})",
                agreement,
                f"{ours['snr_db']:.1f}",
                _wanted(ours, row),
            ]
        )
    for stock in row["stock"]:
        if "failed" in stock:
            lines.append([name, f"{stock['stock']} int8 (stock)", "", "failed", stock["failed"], "", "", ""])
        else:
            lines.append(
                [
                    name,
                    f"{stock['stock']} int8 (stock)",
                    f"{stock['bytes'] / 1e3:.1f}",
                    f"accuracy {stock['value']:.4f}",
                    "",
                    f"{stock['agreement']:.1%}",
                    f"{stock['snr_db']:.1f}",
                    "",
                ]
            )
    return lines


def _wanted(ours: dict[str, Any], row: dict[str, Any]) -> str:
    if ours["metric"] == "auc":
        limit = {"int8": 0.002, "int4": 0.005}.get(ours["artifact"].split()[1])
        return "" if limit is None else ("met" if ours["difference"] >= -limit else f"NOT met (-{limit})")
    stock = [each["agreement"] for each in row["stock"] if "agreement" in each]
    if not ours["artifact"].endswith("int8") or not stock:
        return ""
    return "met" if ours["agreement"] >= max(stock) - 0.01 else f"NOT met ({max(stock) - 0.01:.1%})"


def main(arguments: list[str]) -> int:
    """Make or complete the table and print it as Markdown; 1 when something wanted is not met."""
    data = development_data()
    fresh = "--fresh" in arguments
    only = [word for word in arguments if not word.startswith("--")]
    formats = tuple(name for name in FORMATS if f"--to={name}" in arguments) or FORMATS
    suffix = "" if formats == FORMATS else f"-{formats[0]}"
    found: dict[str, Any] = {}
    for net in nets(data):
        if not only or net.name in only:
            found[net.name] = kept(
                HOME / "rows",
                f"{net.name}{suffix}",
                lambda net=net: net_row(net, formats),  # type: ignore[misc]  # bound early
                fresh=fresh,
            )
    for name in ("bank_marketing", "movielens_100k"):
        if not only or name in only:
            found[name] = kept(HOME / "rows", name, lambda name=name: click_row(name, data), fresh=fresh)  # type: ignore[misc]  # bound early
    columns = ("model", "artifact", "kB", "float -> artifact", "difference (95 %)", "agreement", "SNR dB", "wanted")
    lines = [line for name, row in found.items() for line in _print(name, row)]
    print(f"revision {revision()}\n")
    print(markdown(columns, lines))
    return int(any("NOT met" in str(line[-1]) for line in lines))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeDeployError as error:
        sys.exit(f"error: {error}")
