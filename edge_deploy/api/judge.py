"""Decide whether an artifact is as good as its source: sanity, agreement between thread counts, the paired metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from converters.verify import logistic
from edge_deploy.core.artifact import Comparison, PairedDifference, Verification
from edge_deploy.core.errors import VerificationFailed
from edge_deploy.core.tensor import Meaning
from edge_deploy.zoo.metrics import paired_difference

__all__ = ["judge", "paired_differences"]

LEAST_SNR_DB = 0.0  # below, the error is larger than the signal: garbage, whatever the precision
THREADS_TOLERANCE_DB = 6.0


def judge(
    comparisons: Sequence[Comparison],
    labels: np.ndarray,
    source_scores: np.ndarray,
    artifact_scores: np.ndarray,
    *,
    meaning: Meaning | None,
    max_drop: float | None,
    strict: bool,
) -> Verification:
    """The evidence with its verdict.

    Args:
        labels: [samples]; NaN where there is none.
        source_scores: First output of the float model [samples, classes] or [samples, 1].
        artifact_scores: The same of the artifact.
        max_drop: Refuse when the metric falls by more than this.
        strict: Judge by the lower end of the 95 % interval.

    Raises:
        VerificationFailed: Not finite, garbage, different at 1 and 2 threads, or worse than `max_drop`.
    """
    _refuse_garbage(comparisons)
    labelled = np.isfinite(labels)
    differences: tuple[PairedDifference, ...] = ()
    if labelled.any():
        differences = paired_differences(
            labels[labelled], source_scores[labelled], artifact_scores[labelled], meaning=meaning
        )
    if max_drop is None:
        return Verification(comparisons=tuple(comparisons), differences=differences)
    if not differences:
        raise VerificationFailed("--max-drop: the evaluation data has no labels; add them as y or in the description.")
    verdict, note = _verdict(differences[0], max_drop, strict=strict)
    return Verification(comparisons=tuple(comparisons), differences=differences, verdict=verdict, notes=(note,))


def _refuse_garbage(comparisons: Sequence[Comparison]) -> None:
    problems = []
    for comparison in comparisons:
        place = f"{comparison.kernels}, {comparison.threads} threads, signature {comparison.signature}"
        if not comparison.finite:
            problems.append(f"{place}: outputs are not finite.")
        elif comparison.snr_db < LEAST_SNR_DB:
            problems.append(
                f"{place}: SNR {comparison.snr_db:.1f} dB against the float model: the file computes something else."
            )
    spread = [comparison.snr_db for comparison in comparisons if comparison.signature == comparisons[0].signature]
    if not problems and max(spread) - min(spread) > THREADS_TOLERANCE_DB and min(spread) < 60:
        problems.append(
            f"outputs depend on the number of threads (SNR {min(spread):.1f} to {max(spread):.1f} dB): "
            "a kernel is wrong."
        )
    if problems:
        raise VerificationFailed(*problems)


def paired_differences(
    labels: np.ndarray, source: np.ndarray, artifact: np.ndarray, *, meaning: Meaning | None
) -> tuple[PairedDifference, ...]:
    """Accuracy of several outputs; AUC and log loss of a single one with labels 0 and 1; nothing for others.

    Args:
        labels: [samples].
        source: First output of the float model [samples, ...]; `artifact`: the same of the artifact.

    Raises:
        VerificationFailed: Labels that are no class of the model.
    """
    rows = len(labels)
    source, artifact = source.reshape(rows, -1), artifact.reshape(rows, -1)
    if source.shape[1] > 1:
        if labels.max() >= source.shape[1] or labels.min() < 0:
            raise VerificationFailed(
                f"labels run from {labels.min():g} to {labels.max():g}; the model has {source.shape[1]} classes."
            )
        return (paired_difference("accuracy", labels.astype(np.int64), source, artifact),)
    if not np.isin(labels, (0, 1)).all():
        return ()  # a single output with other labels than 0 and 1 is a regression
    one, other = source[:, 0], artifact[:, 0]
    if meaning != "probability" and (one.min() < 0 or one.max() > 1):
        one, other = logistic(one), logistic(other)
    if len(set(labels.tolist())) < 2:
        return (paired_difference("log_loss", labels, one, other),)
    return tuple(paired_difference(metric, labels, one, other) for metric in ("auc", "log_loss"))


def _verdict(
    difference: PairedDifference, max_drop: float, *, strict: bool
) -> tuple[Literal["passed", "not resolved"], str]:
    sign = -1.0 if difference.metric == "log_loss" else 1.0
    change = sign * difference.difference
    low, high = sorted((sign * difference.low, sign * difference.high))
    seen = f"{difference.metric} changed by {change:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
    judged = low if strict else change
    if judged < -max_drop:
        by = "the interval's lower end" if strict else "the measured difference"
        raise VerificationFailed(f"{seen}: {by} is below -{max_drop:g}; nothing was kept.")
    if low <= -max_drop <= high:
        return "not resolved", f"{seen}: not resolved against -{max_drop:g}; more samples would tell."
    return "passed", f"{seen}: within -{max_drop:g}."
