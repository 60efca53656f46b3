"""Which passes an artifact is made with: each is measured on calibration samples that the quantization has not seen.

All that were asked for are taken together first; then each is left out in turn, and stays out unless the error grows
without it. Folding alone stays in any case: in float it changes nothing, and it spares operators. What was measured
goes into the manifest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.contracts import LowerRequest
from converters.samples import save_arrays
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.layer_errors import snr_db
from edge_deploy.core.layer_rule import LayerRule
from edge_deploy.core.passes import EQUALISE, FIRST_LAST, FOLD, PASSES, PassRecord

__all__ = ["Trial", "settle_passes", "trial_of", "with_rules"]

FITTED, HELD = 128, 128
"""Samples that trials are quantized with, and judged on, at most."""
LEAST_HELD = 4
SMALLEST = 1e-12  # probability whose logarithm is taken
LEAST_CHANGE_DB = 0.01
NOTHING = {
    FOLD: "nothing to fold: the source has none, or its converter did it",
    EQUALISE: "only for INT8 activations",
}

Trial = Callable[[LowerRequest, Path], tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[PassRecord, ...]]]
"""Float and quantized outputs of a request on the samples of an npz, and what the target says of its passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Score:
    snr_db: float
    agreement: float | None
    accuracy: float | None
    told: tuple[PassRecord, ...]


def with_rules(request: LowerRequest) -> LowerRequest:
    """The request with rules in place of the pass that is one: 8 bits for the first and the last layer."""
    spec = request.spec
    if FIRST_LAST not in spec.passes or spec.weight_bits != 4:
        return request
    rules = tuple(LayerRule(position=place, weight_bits=8, source=f"pass {FIRST_LAST}") for place in ("first", "last"))
    # The user's own rules come later and win.
    return replace(request, spec=replace(spec, rules=(*rules, *spec.rules)))


def settle_passes(request: LowerRequest, trial: Trial) -> tuple[LowerRequest, tuple[PassRecord, ...]]:
    """The request with those passes that lower the error, and a record of every pass that was asked for.

    Args:
        trial: Quantizes as the target does, without what only costs time.
    """
    candidates = [name for name in PASSES if name in request.spec.passes]
    if request.spec.weight_bits != 4 and FIRST_LAST in candidates:
        candidates.remove(FIRST_LAST)
    spec = replace(request.spec, passes=tuple(candidates))
    request = replace(request, spec=spec)
    if not candidates or request.calibration is None or not spec.needs_ranges:
        return request, ()
    with tempfile.TemporaryDirectory(prefix="edge-deploy-passes-") as scratch:
        parts = _split(request, Path(scratch))
        if parts is None:
            note = "not measured: too few calibration samples"
            return request, tuple(PassRecord(name=name, applied=True, detail=note) for name in candidates)
        bench = _Bench(
            request=request, trial=trial, scratch=Path(scratch), fitted=parts[0], held=parts[1], labels=parts[2]
        )
        return _leave_out(bench, candidates)


def _leave_out(bench: _Bench, candidates: list[str]) -> tuple[LowerRequest, tuple[PassRecord, ...]]:
    kept = list(candidates)
    current = bench.score(kept)
    told = {record.name: record for record in current.told}
    records = {}
    for name in candidates:
        if name in (FOLD, EQUALISE) and not (name in told and told[name].applied):
            if name == EQUALISE:
                kept.remove(name)
            detail = told[name].detail if name in told else NOTHING[name]
            records[name] = PassRecord(name=name, applied=False, detail=detail)
            continue
        try:
            without = bench.score([other for other in kept if other != name])
        except EdgeDeployError as error:  # what the pass makes possible cannot be had without it
            records[name] = PassRecord(name=name, applied=True, detail=f"needed: {str(error)[:200]}")
            continue
        # Folding is exact in float and spares operators, which counts more than a tenth of a decibel.
        gains = name == FOLD or current.snr_db > without.snr_db + LEAST_CHANGE_DB
        detail = told[name].detail if name in told else ""
        if not gains:
            is_idle = current.snr_db == without.snr_db and not detail
            why = "changes nothing" if is_idle else "does not lower the error on held calibration samples"
            detail = why + (f" ({detail})" if detail else "")
        records[name] = PassRecord(
            name=name,
            applied=gains,
            detail=detail,
            samples=bench.samples,
            before_snr_db=without.snr_db,
            after_snr_db=current.snr_db,
            before_agreement=without.agreement,
            after_agreement=current.agreement,
            before_accuracy=without.accuracy,
            after_accuracy=current.accuracy,
        )
        if not gains:
            kept.remove(name)
            current = without
    request = replace(bench.request, spec=replace(bench.request.spec, passes=tuple(kept)))
    return request, tuple(records[name] for name in candidates)


def _split(request: LowerRequest, scratch: Path) -> tuple[Path, Path, np.ndarray | None] | None:
    """Files of the samples to quantize with and of those to judge on, which are spread evenly over the set."""
    assert request.calibration is not None
    with np.load(request.calibration, allow_pickle=False) as archive:
        count = len(archive[archive.files[0]])
        held = np.unique(np.linspace(0, count - 1, min(HELD, count // 3)).round().astype(int))
        if len(held) < LEAST_HELD:
            return None
        rest = np.setdiff1d(np.arange(count), held)
        fitted = rest[np.unique(np.linspace(0, len(rest) - 1, min(FITTED, len(rest))).round().astype(int))]
        files = scratch / "fitted.npz", scratch / "held.npz"
        for rows, file in zip((fitted, held), files, strict=True):
            save_arrays({name: archive[name][rows] for name in archive.files}, file)
    labels = np.load(request.labels)[held] if request.labels is not None else None
    return *files, labels


@dataclass(slots=True, kw_only=True)
class _Bench:
    request: LowerRequest
    trial: Trial
    scratch: Path
    fitted: Path
    held: Path
    labels: np.ndarray | None
    samples: int = 0
    runs: int = 0

    def score(self, passes: list[str]) -> _Score:
        folder = self.scratch / f"trial-{self.runs}"
        folder.mkdir()
        self.runs += 1
        spec = replace(self.request.spec, passes=tuple(passes))
        asked = replace(self.request, spec=spec, folder=folder, calibration=self.fitted)
        want, got, told = self.trial(with_rules(asked), self.held)
        pairs = [(want[name].astype(np.float64), got[name].astype(np.float64)) for name in want]
        pairs = [_before_softmax(a, b.reshape(a.shape)) for a, b in pairs]
        noise = sum(float(np.square(a - b.reshape(a.shape)).sum()) for a, b in pairs)
        signal = sum(float(np.square(a).sum()) for a, _ in pairs)
        self.samples = len(pairs[0][0])
        quality = snr_db(signal, noise) if np.isfinite(noise) else -np.inf
        first = [each.reshape(len(each), -1) for each in pairs[0]]
        agreement = accuracy = None
        if pairs[0][0].ndim == 2 and first[0].shape[1] > 1:
            answers = [each.argmax(axis=1) for each in first]
            agreement = float((answers[0] == answers[1]).mean())
            if self.labels is not None and np.isfinite(self.labels).any():
                known = np.isfinite(self.labels)
                accuracy = float((answers[1] == self.labels)[known].mean())
        return _Score(snr_db=quality, agreement=agreement, accuracy=accuracy, told=told)


def _before_softmax(want: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of probabilities, less their mean: else the few samples that the net is unsure of are all that counts."""
    is_softmax = (
        want.ndim == 2 and want.shape[1] > 1 and want.min() >= 0 and np.allclose(want.sum(axis=1), 1, atol=1e-3)
    )
    if not is_softmax:
        return want, got
    # An INT8 probability is a multiple of 1/256, so that smaller ones cannot be told.
    is_coarse = np.array_equal(np.rint(got * 256), got * 256)
    logits = [np.log(np.maximum(each, 1 / 512 if is_coarse else SMALLEST)) for each in (want, got)]
    return logits[0] - logits[0].mean(axis=1, keepdims=True), logits[1] - logits[1].mean(axis=1, keepdims=True)


def trial_of(module: Any) -> Trial | None:
    """The trial that a target offers; None where it has no passes."""
    return getattr(module, "try_out", None)
