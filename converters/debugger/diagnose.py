"""Look into an artifact in a child process: errors of layers, what they do to the answer, and answers without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from converters.contracts import Captured
from converters.debugger.answers import likeness, metric_of, score_of
from converters.debugger.cause import name_cause
from converters.debugger.contracts import Rig
from converters.debugger.experiments import FLOAT, Experiment, Experiments, run_experiments
from converters.debugger.finding import Diagnosis, LayerDiagnosis, Likeness, WhatIf
from converters.debugger.measure import SiteStatistics
from converters.debugger.rigs import bits_of, open_recommender, open_rig
from edge_deploy.core.artifact import LayerOutcome
from edge_deploy.core.child import run_in_child
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.serde import from_json
from edge_deploy.core.tensor import Meaning

__all__ = ["Opened", "diagnose"]

ARTIFACT, INT8, ALL = "artifact", "int8", "all"
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Files of one model in one format, and what its layers are.

    Attributes:
        folder: With the files that the target writes.
    """

    name: str
    target: str
    folder: Path
    spec: QuantSpec
    outcomes: tuple[LayerOutcome, ...]


def diagnose(
    captured: Captured, artifact: Opened, feeds: Path, labels: np.ndarray, measured: np.ndarray, *, int8: Opened | None
) -> Diagnosis:
    """Compare an artifact with its float model, layer by layer.

    Args:
        feeds: npz with one array [samples, ...] for each source input.
        labels: [samples]; NaN where there is none.
        measured: The artifact's first output on these samples as its runtime gives it, [samples, ...].
        int8: The same model at INT8, to say what a layer of fewer bits would be; None leaves that out.

    Raises:
        Unsupported, BadInput, ToolchainError: As `open_rig` and `Rig.see`.
    """
    with TemporaryDirectory(prefix="edge-deploy-") as scratch:
        scores, known = Path(scratch, "scores.npy"), Path(scratch, "labels.npy")
        np.save(scores, measured)
        np.save(known, labels)
        arguments = {
            "captured": captured,
            "artifact": artifact,
            "int8": int8,
            "feeds": feeds,
            "labels": known,
            "measured": scores,
        }
        answer = run_in_child(
            "converters.debugger.diagnose:diagnose_here",
            arguments,
            stage=f"{artifact.name}: layers against the float model",
            environment=QUIET,
        )
    return from_json(Diagnosis, answer, where="diagnosis")


def diagnose_here(captured: Any, artifact: Any, int8: Any, feeds: str, labels: str, measured: str) -> Diagnosis:
    """The child's part of `diagnose`."""
    model = from_json(Captured, captured, where="captured model")
    opened = from_json(Opened, artifact, where="artifact")
    other = from_json(Opened, int8, where="artifact at INT8") if int8 is not None else None
    with np.load(feeds, allow_pickle=False) as archive:
        samples = {info.name: archive[info.name] for info in model.inputs}
    count = len(next(iter(samples.values())))
    with TemporaryDirectory(prefix="edge-deploy-") as scratch:
        rigs = {ARTIFACT: _open(model, opened, Path(scratch, ARTIFACT), count)}
        if other is not None:
            rigs[INT8] = _open(model, other, Path(scratch, INT8), count)
        elif model.recommender is not None and opened.spec.for_device == "phone":
            rigs[INT8] = open_recommender(
                model, dict.fromkeys(bits_of(opened.outcomes), 8), opened.spec.table_scale, opened.target, samples=count
            )
        bits = bits_of(opened.outcomes)
        experiments = _experiments(rigs, bits)
        found = run_experiments(rigs, samples, experiments)
        method = rigs[ARTIFACT].method
    real = np.load(measured, allow_pickle=False).astype(np.float64)
    judge = _Judge(want=found.answers[""], labels=np.load(labels, allow_pickle=False), meaning=model.outputs[0].meaning)
    return Diagnosis(
        artifact=opened.name,
        format=opened.target,
        recipe=opened.spec.recipe,
        samples=count,
        method=method,
        metric=judge.metric,
        float_score=score_of(judge.metric, judge.labels, judge.want, judge.meaning),
        measured=judge(real.reshape(count, -1)),
        estimated=judge(found.answers[ALL]),
        layers=(layers := _layers(found, opened.outcomes, judge)),
        cause=name_cause(layers),
    )


def _open(model: Captured, opened: Opened, work: Path, samples: int) -> Rig:
    work.mkdir()
    return open_rig(model, opened.folder, opened.target, opened.spec, opened.outcomes, work, samples=samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """Holds answers against the float model's."""

    want: np.ndarray
    labels: np.ndarray
    meaning: Meaning | None

    @property
    def metric(self) -> str:
        """What is computed from labels."""
        return metric_of(self.labels, self.want)

    def __call__(self, got: np.ndarray) -> Likeness:
        """Likeness of answers [samples, values]."""
        return likeness(self.want, got, self.labels, metric=self.metric, meaning=self.meaning)


def _experiments(rigs: Mapping[str, Rig], bits: Mapping[str, int]) -> list[Experiment]:
    sites = rigs[ARTIFACT].sites
    everything = {site.layer: ARTIFACT for site in sites}
    found = [Experiment(name=ALL, choices=everything)]
    for site in sites:
        found.append(Experiment(name=f"alone {site.layer}", choices={site.layer: ARTIFACT}))
        width = bits.get(site.layer, 32)
        if width < 32:
            found.append(Experiment(name=f"float32 {site.layer}", choices={**everything, site.layer: FLOAT}))
        if width < 8 and INT8 in rigs:
            found.append(Experiment(name=f"int8 {site.layer}", choices={**everything, site.layer: INT8}))
    return found


def _layers(found: Experiments, outcomes: Sequence[LayerOutcome], judge: _Judge) -> tuple[LayerDiagnosis, ...]:
    """In topological order, inputs first."""
    known = {outcome.layer: outcome for outcome in outcomes}
    statistics = found.statistics[ARTIFACT]
    noise = {layer: float(np.square(found.answers[f"alone {layer}"] - judge.want).sum()) for layer in statistics}
    total = sum(noise.values()) or 1.0
    return tuple(
        _layer(each, known.get(layer), noise[layer] / total, found, judge) for layer, each in statistics.items()
    )


def _layer(
    seen: SiteStatistics, outcome: LayerOutcome | None, share: float, found: Experiments, judge: _Judge
) -> LayerDiagnosis:
    site, grid = seen.site, seen.site.grid
    what_if = tuple(
        WhatIf(precision=precision, likeness=judge(found.answers[f"{precision} {site.layer}"]))
        for precision in ("int8", "float32")
        if f"{precision} {site.layer}" in found.answers
    )
    return LayerDiagnosis(
        layer=site.layer,
        op=site.op,
        kind=site.kind,
        dtype=site.dtype,
        weight_bits=outcome.weight_bits if outcome is not None else 0.0,
        got=outcome.got if outcome is not None else "",
        own_snr_db=seen.own_snr_db,
        own_mse=seen.own_noise / seen.own_values if seen.own_values else None,
        snr_db=seen.snr_db,
        mse=seen.noise / seen.values if seen.values else None,
        low=seen.low if seen.values else 0.0,
        high=seen.high if seen.values else 0.0,
        stored_low=grid.low if grid is not None else None,
        stored_high=grid.high if grid is not None else None,
        clipped=seen.clipped / seen.values if seen.values else 0.0,
        alone_snr_db=judge(found.answers[f"alone {site.layer}"]).snr_db,
        noise_share=share,
        what_if=what_if,
    )
