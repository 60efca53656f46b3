"""Whether an artifact is still as good as its float model on fresh samples, or it is time to recalibrate."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.capture import capture, run_float
from converters.contracts import Captured
from converters.debugger.diagnose import Opened
from converters.debugger.overflow import LayerOverflow, overflow
from edge_deploy.api.debug_case import measured_answers
from edge_deploy.api.judge import paired_differences
from edge_deploy.api.monitor_samples import features_of, spool_samples, unseen_shares
from edge_deploy.api.monitor_values import Check, Limits, MonitorReport, MonitorRequest
from edge_deploy.core.artifact import Artifact, PairedDifference
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.features import FeatureSpec
from runtimes.folder import check_files, read_artifact

__all__ = ["monitor", "stability_index"]

BINS = 10
LEAST_SAMPLES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One set of samples through both models; scores are [samples, values]."""

    labels: np.ndarray
    float_scores: np.ndarray
    scores: np.ndarray
    overflow: tuple[LayerOverflow, ...]
    unseen: dict[str, float]
    note: str


def monitor(request: MonitorRequest, *, progress: Callable[[str], None] = lambda stage: None) -> MonitorReport:
    """Compare an artifact with its float model on fresh samples, and where given with what it did on a reference.

    Raises:
        BadInput: Not an artifact, or samples or a source that do not fit it, or fewer than 20 samples.
        ToolchainError: A runtime failed.
    """
    artifact = read_artifact(request.folder)
    check_files(request.folder, artifact)
    features = features_of(request.folder)
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        work = Path(scratch)
        (work / "captured").mkdir()
        progress("capture the float model")
        captured = capture(replace(request.source, batches=_batches(artifact)), work / "captured")
        if tuple(info.name for info in captured.inputs) != tuple(info.name for info in artifact.source_inputs):
            raise BadInput(f"{request.source.source}: has other inputs than the source of {request.folder}.")
        progress(f"run both models on {request.data.name}")
        fresh = _look(request, request.data, artifact, captured, features, work)
        reference = None
        if request.reference is not None:
            progress(f"run both models on {request.reference.name}")
            reference = _look(request, request.reference, artifact, captured, features, work)
    checks, differences, notes = _judge(fresh, reference, artifact, request.limits)
    return MonitorReport(
        artifact=artifact.name,
        data=request.data.name,
        samples=len(fresh.scores),
        checks=tuple(sorted(checks, key=lambda check: not check.is_over)),
        differences=differences,
        notes=notes,
    )


def _batches(artifact: Artifact) -> tuple[int, ...]:
    return tuple(dict.fromkeys(max(each.inputs[0].shape[0], 1) for each in artifact.signatures))


def _look(
    request: MonitorRequest,
    data: Path,
    artifact: Artifact,
    captured: Captured,
    features: FeatureSpec | None,
    work: Path,
) -> _Look:
    feeds, answers = work / "feeds.npz", work / "answers.npz"
    labels = spool_samples(data, captured, features, request.schema, request.limit, feeds)
    if len(labels) < LEAST_SAMPLES:
        raise BadInput(f"{data}: {len(labels)} samples: at least {LEAST_SAMPLES} are needed to tell anything.")
    run_float(captured, feeds, answers)
    scores = measured_answers(request.folder, feeds=feeds, answers=answers, work=work)
    with np.load(answers, allow_pickle=False) as archive:
        float_scores = archive[captured.outputs[0].name]
    layers, note = _overflow(request, artifact, captured, feeds)
    return _Look(
        labels=labels,
        float_scores=float_scores.reshape(len(labels), -1),
        scores=scores.reshape(len(labels), -1),
        overflow=layers,
        unseen=unseen_shares(features, feeds) if features is not None else {},
        note=note,
    )


def _overflow(
    request: MonitorRequest, artifact: Artifact, captured: Captured, feeds: Path
) -> tuple[tuple[LayerOverflow, ...], str]:
    if artifact.spec.is_float:
        return (), "ranges: the artifact computes in float, nothing can overflow"
    opened = Opened(
        name=artifact.name,
        target=artifact.format,
        folder=request.folder.resolve(),
        spec=artifact.spec,
        outcomes=artifact.outcomes,
    )
    try:
        layers = overflow(captured, opened, feeds, limit=request.layer_samples)
    except Unsupported as error:
        return (), f"ranges: could not be looked at ({error})"
    return layers, "" if layers else "ranges: no layer of the artifact has a fixed one, nothing can overflow"


def _judge(
    fresh: _Look, reference: _Look | None, artifact: Artifact, limits: Limits
) -> tuple[list[Check], tuple[PairedDifference, ...], tuple[str, ...]]:
    notes = [fresh.note] if fresh.note else []
    checks = []
    labelled = np.isfinite(fresh.labels)
    differences: tuple[PairedDifference, ...] = ()
    if labelled.any():
        differences = paired_differences(
            fresh.labels[labelled],
            fresh.float_scores[labelled],
            fresh.scores[labelled],
            meaning=artifact.source_outputs[0].meaning,
        )
    if differences:
        checks.append(_quality(differences[0], limits.drop))
    else:
        notes.append("quality: the samples have no labels that accuracy or AUC could be told from")
    checks.append(_shift(fresh, limits.shift))
    if reference is not None:
        checks.append(_drift(fresh, reference, limits.drift))
    else:
        notes.append("drift of scores: needs --reference, samples like those the artifact was made for")
    usual = {layer.layer: layer.clipped for layer in reference.overflow} if reference is not None else {}
    checks += [_overflowing(layer, usual.get(layer.layer), limits.overflow) for layer in fresh.overflow]
    known = reference.unseen if reference is not None else {}
    checks += [_unknown(name, share, known.get(name), limits.unseen) for name, share in fresh.unseen.items()]
    if not fresh.unseen and artifact.kind == "recommender":
        notes.append("unseen ids: no feature has a vocabulary (hashed and plain ids are all known)")
    return checks, differences, tuple(notes)


def _quality(found: PairedDifference, limit: float) -> Check:
    lost, resolved = -found.difference, found.high < 0
    if found.metric == "log_loss":
        lost, resolved = found.difference, found.low > 0
    return Check(
        kind="quality",
        what=found.metric,
        value=lost,
        limit=limit,
        is_over=lost > limit and resolved,
        text=f"{found.metric}: float {found.source:.4f}, artifact {found.artifact:.4f}, difference "
        f"{found.difference:+.4f} (95 % {found.low:+.4f} to {found.high:+.4f})",
    )


def _shift(look: _Look, limit: float) -> Check:
    spread = float(look.float_scores.std())
    moved = float((look.scores - look.float_scores).mean())
    if look.scores.shape[1] > 1:  # probabilities add up to 1: only the winner's can move
        winners = look.float_scores.argmax(axis=1)[:, None]
        before, after = (np.take_along_axis(each, winners, axis=1) for each in (look.float_scores, look.scores))
        spread, moved = float(before.std()), float((after - before).mean())
    value = abs(moved) / spread if spread > 0 else 0.0 if moved == 0 else float("inf")
    return Check(
        kind="shift",
        what="scores",
        value=value,
        limit=limit,
        is_over=value > limit,
        text=f"mean score against the float model's: {moved:+.4g}, {value:.3f} standard deviations",
    )


def _drift(fresh: _Look, reference: _Look, limit: float) -> Check:
    value = stability_index(_main_score(reference.scores), _main_score(fresh.scores))
    return Check(
        kind="drift",
        what="scores",
        value=value,
        limit=limit,
        is_over=value > limit,
        text=f"scores against the reference's: stability index {value:.3f}",
    )


def _main_score(scores: np.ndarray) -> np.ndarray:
    """The score, or the winner's of several."""
    best: np.ndarray = scores.max(axis=1)
    return best


def stability_index(reference: np.ndarray, fresh: np.ndarray) -> float:
    """Population stability index over deciles of the reference (Siddiqi, Credit Risk Scorecards, 2006).

    sum (p - q) ln(p / q), each share with half a sample added; below 0.1 little has moved, above 0.25 much.

    Args:
        reference: Scores [n].
        fresh: Scores [m].
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    p, q = (
        (np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1) + 0.5)
        / (len(scores) + 0.5 * (len(edges) + 1))
        for scores in (reference, fresh)
    )
    return float(((q - p) * np.log(q / p)).sum())


def _overflowing(layer: LayerOverflow, usual: float | None, limit: float) -> Check:
    return Check(
        kind="overflow",
        what=layer.layer,
        value=layer.clipped,
        reference=usual,
        limit=limit,
        is_over=layer.clipped > limit + (usual or 0.0),
        text=f"{layer.layer}: {layer.clipped:.3%} of its values, {layer.low:.4g} to {layer.high:.4g}, leave "
        f"{layer.stored_low:.4g} to {layer.stored_high:.4g}" + _beside(usual),
    )


def _unknown(name: str, share: float, usual: float | None, limit: float) -> Check:
    return Check(
        kind="unseen",
        what=name,
        value=share,
        reference=usual,
        limit=limit,
        is_over=share > limit + (usual or 0.0),
        text=f"{name}: {share:.1%} of its values are not in the vocabulary" + _beside(usual),
    )


def _beside(usual: float | None) -> str:
    return "" if usual is None else f" (reference: {usual:.3%})"
