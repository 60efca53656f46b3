"""One net at one precision in many ways: passes on and off, ranges, one scale for each tensor or channel. On TFLite."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.capture import run_float
from converters.contracts import Captured, LowerRequest
from converters.samples import spool
from converters.verify import compare_arrays
from edge_deploy.bench.models import DESCRIPTIONS, Net, capture_net
from edge_deploy.core.child import run_in_child
from edge_deploy.core.passes import BIASES, DEFAULT, EQUALISE, FIRST_LAST, FOLD, ROUNDING
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import from_json
from edge_deploy.core.tensor import TensorInfo, encode_input
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.metrics import paired_difference

__all__ = ["Variant", "variant_rows", "variants"]

SAMPLES = 256
"""Calibration samples, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to quantize.

    Attributes:
        plain: Weights at the nearest step of a scale that keeps the extremes, whatever the passes say.
    """

    title: str
    recipe: str
    passes: tuple[str, ...]
    weight_scale: str = "channel"
    range_method: str = "percentile"
    plain: bool = False


def variants() -> tuple[Variant, ...]:
    """The whitepaper's table in kind (arXiv:1806.08342, tables 3 to 5), with our passes."""
    sets: dict[str, tuple[str, ...]] = {
        "no pass": (FOLD,),
        f"+ {EQUALISE}": (FOLD, EQUALISE),
        f"+ {BIASES}": (FOLD, BIASES),
        f"+ {ROUNDING}": (FOLD, ROUNDING),
        "all": DEFAULT,
    }
    without = {f"all - {name}": tuple(n for n in DEFAULT if n != name) for name in (EQUALISE, BIASES, ROUNDING)}
    found = []
    for recipe in ("int8", "int4"):
        for scale in ("tensor", "channel"):
            tried = {**sets, **without} if scale == "channel" else sets
            found += [
                Variant(title=title, recipe=recipe, passes=passes, weight_scale=scale)
                for title, passes in tried.items()
            ]
        found += [
            Variant(title="all", recipe=recipe, passes=DEFAULT, range_method=method)
            for method in ("min-max", "kl", "mse")
        ]
    found.append(Variant(title=f"all + {FIRST_LAST}", recipe="int4", passes=(*DEFAULT, FIRST_LAST)))
    found.append(Variant(title="plain", recipe="int4", passes=(FOLD,), plain=True))
    return tuple(found)


def variant_rows(net: Net, asked: tuple[Variant, ...]) -> list[dict[str, Any]]:
    """Accuracy, agreement with float and SNR of each variant on the net's evaluation samples."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        captured = capture_net(net, work)
        calibration = open_dataset(DESCRIPTIONS / net.calibrate, inputs=captured.inputs, limit=SAMPLES)
        spool(calibration, len(calibration), captured.inputs, work / "calibration.npz")
        evaluation = open_dataset(DESCRIPTIONS / net.evaluate, inputs=captured.inputs)
        labels = spool(evaluation, len(evaluation), captured.inputs, work / "feeds.npz")
        np.save(work / "labels.npy", labels)
        run_float(captured, work / "feeds.npz", work / "answers.npz")
        arguments = {"captured": captured, "work": work, "asked": list(asked)}
        rows: list[dict[str, Any]] = run_in_child(
            "edge_deploy.bench.ptq_variants:rows_here", arguments, stage=f"variants of {net.name}"
        )
        return rows


def rows_here(captured: Mapping[str, Any], work: str, asked: list[Any]) -> list[dict[str, Any]]:
    """The child's part of `variant_rows`."""
    model = from_json(Captured, captured, where="captured")
    return [_row(model, Path(work), from_json(Variant, each, where="variant")) for each in asked]


def _row(captured: Captured, work: Path, variant: Variant) -> dict[str, Any]:
    from runtimes.session import open_session

    with tempfile.TemporaryDirectory(dir=work) as folder:
        file = _lower(captured, work, variant, Path(folder))
        with np.load(work / "feeds.npz") as archive:
            images = archive[archive.files[0]]
        with np.load(work / "answers.npz") as archive:
            want = archive[archive.files[0]]
        session = open_session(file, trusted=True)
        info, output = session.signature.inputs[0], session.signature.outputs[0].name
        encoded = encode_input(images, source=captured.inputs[0], target=replace(info, layout="NHWC"))
        got = np.concatenate([session.run({info.name: encoded[i : i + 1]})[output] for i in range(len(encoded))])
        size = file.stat().st_size
    found = compare_arrays({"y": want}, {"y": got}, kernels=session.kernels, threads=1)
    paired = paired_difference("accuracy", np.load(work / "labels.npy"), want, got)
    return {
        **{name: getattr(variant, name) for name in ("title", "recipe", "weight_scale", "range_method", "plain")},
        "bytes": size,
        "agreement": found.top1_agreement,
        "snr_db": found.snr_db,
        "source": paired.source,
        "accuracy": paired.artifact,
        "difference": paired.difference,
        "low": paired.low,
        "high": paired.high,
    }


def _lower(captured: Captured, work: Path, variant: Variant, folder: Path) -> Path:
    from converters.passes.settle import with_rules
    from converters.targets import tflite

    spec = spec_for_recipe(
        variant.recipe,
        fallback_bits=8,
        passes=variant.passes,
        weight_scale=variant.weight_scale,
        range_method=variant.range_method,
    )
    request = LowerRequest(captured=captured, spec=spec, folder=folder, calibration=work / "calibration.npz")
    if variant.plain:
        return _plain(request)
    tflite.lower(with_rules(request))
    return folder / tflite.MODEL


def _plain(request: LowerRequest) -> Path:
    """Scales that keep the extremes and weights at the nearest step: scales as if they were learned are not touched."""
    from converters.quantize.uniform import symmetric_scales
    from converters.tflite import quantizer, weights
    from converters.tflite.calibrate import calibrate, load_samples
    from converters.tflite.flatbuffer import write_model
    from converters.tflite.from_torch import adapted, float_tflite
    from converters.tflite.structure import views

    captured = request.captured
    source = captured.float_tflite or float_tflite(captured, captured.folder)
    model = quantizer.prepare(source)
    named = request.folder / "float.tflite"
    write_model(model, named)
    inputs: tuple[TensorInfo, ...] = captured.inputs
    if captured.float_tflite is None:
        inputs = tuple(adapted(info) for info in inputs)
    assert request.calibration is not None
    samples = load_samples(request.calibration)
    calibration = calibrate(named, samples, captured.inputs, request.spec, file_inputs=inputs)
    learned = {
        node.layer: symmetric_scales(view.values(node.inputs[1]), axis=weights.weight_axis(node), bits=4)
        for view in views(model)
        for node in view.nodes
        if node.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    }
    made = quantizer.quantize_static(model, request.spec, calibration.ranges, learned_weights=learned)
    file = request.folder / "plain.tflite"
    write_model(made.model, file)
    return file
