"""Seconds per unit of work on one device: fitted once to measured profiles, used for models that never ran there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.profile import ModelProfile
from partitioner.predictor.features import FEATURES, Work, feature_row, graph_work
from partitioner.predictor.nonnegative import nonnegative_least_squares
from partitioner.profiles.events import io_bytes

__all__ = ["ANY", "Coefficients", "Sample", "estimate_profile", "fit_coefficients", "fit_profiles", "predict"]

ANY = "any"
# A class with fewer measured layers says too little of its own.
LEAST_LAYERS = 8
# Errors count in relation to the measured time, of layers below this share of their model's mean in relation to that:
# a layer that hardly counts must not bend the line.
FLOOR_SHARE = 0.2
# Profilers count whole microseconds: what they say of shorter layers is rounding.
RESOLUTION_S = 2e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """The static predictor of one device, runtime and number of threads.

    Attributes:
        features: Names of the columns, as they were when it was fitted.
        classes: Seconds per unit of each feature, by class of layer; "any" is for classes without their own.
        overhead_s: Of one call, beside the layers; `overhead_s_per_mb`: for each million bytes of inputs and outputs.
        fitted_on: Names of the models.
        layers: How many layers were measured.
        median_error: Median of |estimate - measured| / measured over the layers it was fitted on that take more than a
            fifth of their model's mean layer.
    """

    device: str
    kernels: str
    threads: int
    features: tuple[str, ...]
    classes: dict[str, tuple[float, ...]]
    overhead_s: float
    fitted_on: tuple[str, ...]
    layers: int
    median_error: float
    overhead_s_per_mb: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"coefficients: class {name} has {len(values)} values: must be {len(self.features)}."
            for name, values in self.classes.items()
            if len(values) != len(self.features)
        ]
        if self.features != FEATURES:
            problems.append(
                f"coefficients: features {', '.join(self.features)}: must be {', '.join(FEATURES)}; fit again."
            )
        if ANY not in self.classes:
            problems.append(f"coefficients: class {ANY!r} is missing.")
        if any(not np.isfinite(value) or value < 0 for values in self.classes.values() for value in values):
            problems.append("coefficients: must be finite and not negative.")
        if problems:
            raise BadInput(*problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Layers that were timed together, one of them or more: their seconds, and what each does.

    Attributes:
        floor_s: Errors of shorter samples count as if they took that long.
    """

    works: tuple[Work, ...]
    seconds: float
    floor_s: float


def fit_profiles(measured: Sequence[tuple[LayerGraph, ModelProfile]]) -> Coefficients:
    """Fit to the layers of measured models, all of one device.

    Raises:
        BadInput: No profile, devices or kernels that differ, an estimate among them, or a profile of another graph.
    """
    problems = []
    if not measured:
        raise BadInput("predictor: no profile given.")
    for name in ("device", "kernels", "threads"):
        found = sorted({str(getattr(profile, name)) for _, profile in measured})
        if len(found) > 1:
            problems.append(f"predictor: profiles of different {name} ({', '.join(found)}): fit each apart.")
    samples: list[Sample] = []
    for graph, profile in measured:
        if profile.provenance == "estimated":
            problems.append(f"predictor: the profile of {profile.artifact} is an estimate: fit to measurements.")
        missing = [layer.name for layer in graph.layers if layer.name not in profile.layer_s]
        if missing:
            problems.append(f"predictor: the profile of {profile.artifact} has no layer {', '.join(missing[:3])}.")
            continue
        mean_s = sum(profile.layer_s.values()) / max(len(graph.layers), 1)
        samples += [
            Sample(works=(work,), seconds=profile.layer_s[layer.name], floor_s=max(FLOOR_SHARE * mean_s, RESOLUTION_S))
            for layer, work in zip(graph.layers, graph_work(graph), strict=True)
        ]
    if problems:
        raise BadInput(*problems)
    first = measured[0][1]
    return fit_coefficients(
        samples,
        device=first.device,
        kernels=first.kernels,
        threads=first.threads,
        overhead=_overhead(measured),
        fitted_on=tuple(profile.artifact for _, profile in measured),
    )


def fit_coefficients(
    samples: Sequence[Sample],
    *,
    device: str,
    kernels: str = "",
    threads: int = 1,
    overhead: tuple[float, float] = (0.0, 0.0),
    fitted_on: tuple[str, ...] = (),
) -> Coefficients:
    """Non-negative least squares on relative errors, one set of coefficients for each class with enough layers.

    Args:
        overhead: Seconds of one call, and for each million bytes of its inputs and outputs.

    Raises:
        BadInput: No sample.
    """
    if not samples:
        raise BadInput("predictor: no measured layer.")
    counts: dict[str, int] = {}
    for sample in samples:
        for work in sample.works:
            counts[work.name] = counts.get(work.name, 0) + 1
    own = [name for name, count in counts.items() if count >= LEAST_LAYERS]
    seconds = np.array([sample.seconds for sample in samples])
    weight = 1 / np.maximum(np.maximum(seconds, [sample.floor_s for sample in samples]), 1e-12)
    classes = {ANY: _fit(samples, [ANY], {}, seconds, weight)[ANY]}
    # Classes of few layers keep the pooled coefficients; the others are fitted together, as samples may mix them.
    classes |= _fit(samples, own, classes, seconds, weight) if own else {}
    fitted = Coefficients(
        device=device,
        kernels=kernels,
        threads=threads,
        features=FEATURES,
        classes=classes,
        overhead_s=overhead[0],
        overhead_s_per_mb=overhead[1],
        fitted_on=fitted_on,
        layers=len(samples),
        median_error=0.0,
    )
    guesses = np.array([predict(fitted, sample.works).sum() for sample in samples])
    counted = seconds >= np.array([sample.floor_s for sample in samples])
    errors = np.abs(guesses - seconds)[counted & (seconds > 0)] / seconds[counted & (seconds > 0)]
    values = {name: getattr(fitted, name) for name in Coefficients.__dataclass_fields__}
    return Coefficients(**{**values, "median_error": float(np.median(errors)) if errors.size else 0.0})


def predict(coefficients: Coefficients, works: Sequence[Work]) -> np.ndarray:
    """Seconds of each layer, shape (layers,)."""
    return np.array([feature_row(work) @ np.array(_of(coefficients.classes, work)) for work in works], dtype=np.float64)


def estimate_profile(
    coefficients: Coefficients, graph: LayerGraph, *, artifact: str, sha256: str = "", batch: int = 1
) -> ModelProfile:
    """A profile that says it is estimated, and from what."""
    works = graph_work(graph)
    seconds = predict(coefficients, works)
    layer_s = {layer.name: float(value) for layer, value in zip(graph.layers, seconds, strict=True)}
    overhead_s = coefficients.overhead_s + coefficients.overhead_s_per_mb * io_bytes(graph) / 1e6
    unknown = sorted({work.name for work in works if work.name not in coefficients.classes})
    notes = [f"median error of a layer it was fitted on: {coefficients.median_error:.0%}"]
    if unknown:
        notes.append(f"no coefficients of their own: {', '.join(unknown)}; taken from related or from all layers")
    if artifact in coefficients.fitted_on:
        notes.append("the predictor was fitted on a model of this name too: use the measured profile where it applies")
    return ModelProfile(
        artifact=artifact,
        sha256=sha256,
        device=coefficients.device,
        kernels=coefficients.kernels,
        provenance="estimated",
        source=f"static predictor fitted on {len(coefficients.fitted_on)} models: {', '.join(coefficients.fitted_on)}",
        layer_s=layer_s,
        overhead_s=overhead_s,
        whole_s=sum(layer_s.values()) + overhead_s,
        threads=coefficients.threads,
        batch=batch,
        notes=tuple(notes),
    )


def _fit(
    samples: Sequence[Sample],
    names: Sequence[str],
    known: Mapping[str, tuple[float, ...]],
    seconds: np.ndarray,
    weight: np.ndarray,
) -> dict[str, tuple[float, ...]]:
    """Coefficients of `names` together; layers of other classes count as far as `known` explains them."""
    width = len(FEATURES)
    place = {name: index * width for index, name in enumerate(names)}
    rows = np.zeros((len(samples), width * len(names)))
    left = seconds.copy()
    for index, sample in enumerate(samples):
        for work in sample.works:
            name = ANY if ANY in place else work.name
            if name in place:
                rows[index, place[name] : place[name] + width] += feature_row(work)
            else:
                left[index] -= float(feature_row(work) @ np.array(_of(known, work)))
    found = nonnegative_least_squares(rows * weight[:, None], np.maximum(left, 0.0) * weight)
    return {name: tuple(found[at : at + width].tolist()) for name, at in place.items()}


def _overhead(measured: Sequence[tuple[LayerGraph, ModelProfile]]) -> tuple[float, float]:
    """What a call costs, in relation to each model's own time, so that the largest does not decide alone."""
    weight = 1 / np.array([max(profile.whole_s, 1e-9) for _, profile in measured])
    rows = np.array([[1.0, io_bytes(graph) / 1e6] for graph, _ in measured])
    found = nonnegative_least_squares(
        rows * weight[:, None], np.array([profile.overhead_s for _, profile in measured]) * weight
    )
    return float(found[0]), float(found[1])


def _of(classes: Mapping[str, tuple[float, ...]], work: Work) -> tuple[float, ...]:
    """The class's own coefficients, those of the same class in another type of number, or the pooled ones."""
    for name in (work.name, work.kind, f"{work.kind}-float", f"{work.kind}-uint8"):
        if name in classes:
            return classes[name]
    return classes[ANY]
