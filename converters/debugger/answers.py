"""Answers of one model held against another's: SNR, agreement, and the score where there are labels."""

from __future__ import annotations

import numpy as np

from converters.debugger.finding import Likeness
from converters.verify import logistic
from edge_deploy.core.layer_errors import snr_db
from edge_deploy.core.tensor import Meaning
from edge_deploy.zoo.metrics import accuracy, auc

__all__ = ["metric_of", "score_of", "likeness"]


def metric_of(labels: np.ndarray, answers: np.ndarray) -> str:
    """ "accuracy", "auc", or "" where labels do not make either.

    Args:
        labels: [samples]; NaN where there is none.
        answers: [samples, values].
    """
    if not np.isfinite(labels).all() or not labels.size:
        return ""
    if answers.shape[1] > 1:
        return "accuracy" if labels.min() >= 0 and labels.max() < answers.shape[1] else ""
    return "auc" if set(labels.tolist()) == {0.0, 1.0} else ""


def score_of(metric: str, labels: np.ndarray, answers: np.ndarray, meaning: Meaning | None = None) -> float | None:
    """The score of answers [samples, values]; None without a metric."""
    if not metric or not np.isfinite(answers).all():
        return None
    if metric == "accuracy":
        return accuracy(labels, answers)
    values = answers[:, 0]
    return auc(labels, values if meaning == "probability" else logistic(values))


def likeness(
    want: np.ndarray, got: np.ndarray, labels: np.ndarray, *, metric: str, meaning: Meaning | None = None
) -> Likeness:
    """Answers `got` against the float model's answers `want`, both [samples, values]."""
    agreement = None
    if want.shape[1] > 1:
        agreement = float((want.argmax(1) == got.argmax(1)).mean())
    distance = snr_db(float(np.square(want).sum()), float(np.square(want - got).sum()))
    return Likeness(snr_db=distance, top1_agreement=agreement, score=score_of(metric, labels, got, meaning))
