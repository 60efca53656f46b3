"""All of the doctor's checks on one captured model and its calibration samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration.coverage import unreached_channels
from converters.calibration.finding import Finding, most_serious_first
from converters.calibration.inputs import copied_samples, unvaried_inputs
from converters.calibration.layout import misplaced_channels
from converters.calibration.scaling import from_biases, from_norms, from_saturation
from converters.calibration.stability import unsettled_ranges
from converters.calibration.statistics import ModelStatistics
from converters.contracts import Captured
from edge_deploy.core.child import Child, run_in_child
from edge_deploy.core.serde import from_json
from edge_deploy.core.tensor import TensorInfo

__all__ = ["check_samples_alone", "diagnose", "observe"]

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "0"}


def observe(
    captured: Captured, feeds: Path, *, limit: int | None = None, child: Child | None = None
) -> ModelStatistics:
    """Run the calibration samples through the float model, in a child process.

    Args:
        feeds: npz with one array for each source input, samples on axis 0.
        limit: Run that many samples at most.
        child: A process of `converters.capture.source_child`, to use instead of a fresh one.

    Raises:
        BadInput: Samples do not fit the inputs.
        ToolchainError: The runtime failed.
    """
    answer = run_in_child(
        "converters.calibration.diagnose:observe_in_this_process",
        {"captured": captured, "feeds": feeds.resolve(), "limit": limit},
        stage=f"calibration check of {captured.name}",
        environment=QUIET,
        child=child,
    )
    return from_json(ModelStatistics, answer, where=f"calibration check of {captured.name}")


def observe_in_this_process(captured: Mapping[str, Any], feeds: str, limit: int | None = None) -> ModelStatistics:
    """The child's side of `observe`."""
    from converters.tflite.calibrate import load_samples

    model = from_json(Captured, captured, where="captured model")
    samples = {name: array[:limit] for name, array in load_samples(Path(feeds)).items()}
    count = len(next(iter(samples.values())))
    if model.float_tflite is None:
        from converters.calibration.observe_torch import observe_program

        layers, norms = observe_program(model, Path(feeds), count)
        return ModelStatistics(samples=count, layers=layers, norms=norms)
    from converters.calibration.observe_tflite import observe_file

    layers = observe_file(model.float_tflite, samples, model.inputs)
    if model.source == "keras" and model.state is not None:
        from converters.calibration.observe_keras import observe_norms

        norms = observe_norms(_keras_path(model.state), samples)
        return ModelStatistics(samples=count, layers=layers, norms=norms)
    return ModelStatistics(samples=count, layers=layers)


def _keras_path(state: Path) -> Path:
    """Where the Keras file is, by what its source noted (see `converters.sources.keras`)."""
    return Path(json.loads(state.read_text(encoding="utf-8"))["path"])


def check_samples_alone(samples: Mapping[str, np.ndarray], inputs: tuple[TensorInfo, ...]) -> list[Finding]:
    """What can be said without running the model."""
    findings = [*unvaried_inputs(samples), *copied_samples(samples)]
    for info in inputs:
        if info.name in samples:
            findings += misplaced_channels(samples[info.name], info)
    return findings


def diagnose(
    samples: Mapping[str, np.ndarray], inputs: tuple[TensorInfo, ...], statistics: ModelStatistics
) -> tuple[Finding, ...]:
    """Everything found, the most serious first.

    Args:
        samples: Arrays [samples, ...] by input name.
        statistics: What `observe` found of the same samples.
    """
    spans = {
        info.name: (float(samples[info.name].min()), float(samples[info.name].max()))
        for info in inputs
        if info.dtype.startswith("float") and samples[info.name].size
    }
    scale = list(from_norms(statistics.norms, spans))
    if not statistics.norms:
        scale += from_biases(statistics.layers, spans)
    return most_serious_first(
        [
            *check_samples_alone(samples, inputs),
            *scale,
            *from_saturation(statistics.layers),
            *unreached_channels(statistics.layers, statistics.samples),
            *unsettled_ranges(statistics.layers, statistics.samples),
        ]
    )
