"""`make bench-ranges`: how the range of an activation is set, against the SNR and agreement of INT8 TFLite files.

Needs EDGE_DEPLOY_DATA. The default of `--ranges` was chosen on the first three nets and confirmed on the others. The
entropy ranges were made to work on the three MNIST nets (what counts as a spike, how many values a bin needs); every
other net is one that they were not tuned on. KWS DS-CNN was looked at for neither.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.capture import run_float
from converters.contracts import Captured, LowerRequest
from converters.lower import lower
from converters.samples import spool
from converters.verify import compare_arrays
from edge_deploy.bench.models import DESCRIPTIONS, Net, capture_net, development_data, nets
from edge_deploy.bench.rows import kept, markdown, revision
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import encode_input
from edge_deploy.zoo.datasets import open_dataset

HOME = Path("build/bench-ranges")
SAMPLES = 500
METHODS = (
    ("min-max", 100.0),
    ("percentile", 99.999),
    ("percentile", 99.99),
    ("percentile", 99.9),
    ("kl", 100.0),
    ("mse", 100.0),
)


def keyword_net(data: Path) -> Net:
    """A net that nothing was chosen on."""
    source = str(data / "models" / "mlperf_tiny_kws_dscnn" / "kws_ref_model")
    return Net(
        name="KWS DS-CNN",
        source=source,
        calibrate="kws01_calibrate.toml",
        evaluate="kws01_evaluate.toml",
        stock=(),
    )


def mnist_nets(data: Path) -> tuple[Net, ...]:
    """Nets that the default was not chosen on."""
    return tuple(
        Net(
            name=name,
            source=str(data / "models" / "tinymaix_mnist" / f"{name}.h5"),
            calibrate="mnist_train12k.toml",
            evaluate="mnist_evaluate.toml",
            stock=(),
        )
        for name in ("mnist_valid", "mnist_dw", "mnist_resnet")
    )


def net_row(net: Net) -> list[dict[str, Any]]:
    """SNR and top-1 agreement with float of one net's INT8 file for each way of setting ranges."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        captured = capture_net(net, work)
        calibration = open_dataset(DESCRIPTIONS / net.calibrate, inputs=captured.inputs, limit=SAMPLES)
        spool(calibration, len(calibration), captured.inputs, work / "calibration.npz")
        evaluation = open_dataset(DESCRIPTIONS / net.evaluate, inputs=captured.inputs)
        spool(evaluation, len(evaluation), captured.inputs, work / "feeds.npz")
        run_float(captured, work / "feeds.npz", work / "answers.npz")
        return [_figures(captured, method, percentile, work) for method, percentile in METHODS]


def _figures(captured: Captured, method: str, percentile: float, work: Path) -> dict[str, Any]:
    from runtimes.session import open_session

    folder = work / f"{method}-{percentile}"
    folder.mkdir()
    spec = spec_for_recipe("int8", fallback_bits=8, range_method=method, percentile=percentile)
    request = LowerRequest(captured=captured, spec=spec, folder=folder, calibration=work / "calibration.npz")
    lower("tflite", request)
    with np.load(work / "feeds.npz") as archive:
        images = archive[archive.files[0]]
    with np.load(work / "answers.npz") as archive:
        want = archive[archive.files[0]]
    session = open_session(folder / "model.tflite")
    info, output = session.signature.inputs[0], session.signature.outputs[0].name
    encoded = encode_input(images, source=captured.inputs[0], target=replace(info, layout="NHWC"))
    got = np.concatenate([session.run({info.name: encoded[i : i + 1]})[output] for i in range(len(encoded))])
    found = compare_arrays({"y": want}, {"y": got}, kernels=session.kernels, threads=1)
    return {"method": _title(method, percentile), "snr_db": found.snr_db, "agreement": found.top1_agreement}


def _title(method: str, percentile: float) -> str:
    return f"{method} {percentile:g} %" if method == "percentile" else method


def main(arguments: list[str]) -> int:
    """Make or complete the table and print it as Markdown."""
    data = development_data()
    chosen_on = {net.name: net for net in nets(data)}
    order = [*(chosen_on[name] for name in ("ResNet-8", "ResNet-20", "MobileNetV1 0.25", "ResNet-44"))]
    lines: list[list[object]] = []
    for net in (*order, keyword_net(data), *mnist_nets(data)):
        rows = kept(HOME / "rows", net.name, lambda net=net: net_row(net), fresh="--fresh" in arguments)  # type: ignore[misc]  # bound early
        tuned = ", ".join(
            what
            for what, names in (("default", order[:3]), ("kl", mnist_nets(data)))
            if net.name in {each.name for each in names}
        )
        lines.append(
            [net.name, tuned or "nothing", *(f"{row['snr_db']:.1f} dB, {row['agreement']:.1%}" for row in rows)]
        )
    print(f"revision {revision()}; {SAMPLES} calibration samples at most\n")
    print(markdown(("net", "tuned on it", *(_title(method, percentile) for method, percentile in METHODS)), lines))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeDeployError as error:
        sys.exit(f"error: {error}")
