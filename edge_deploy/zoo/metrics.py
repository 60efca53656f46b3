"""Quality of scores against labels, and how sure a measured difference between two models is. NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from edge_deploy.core.artifact import PairedDifference
from edge_deploy.core.errors import BadInput

__all__ = [
    "Metric",
    "accuracy",
    "auc",
    "calibration",
    "log_loss",
    "normalized_entropy",
    "paired_difference",
]

Metric: TypeAlias = Literal["accuracy", "auc", "log_loss"]
RESAMPLES = 2000
CHUNK_ELEMENTS = 1 << 21
SMALLEST_PROBABILITY = 1e-7


def accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Share of right answers: argmax of scores [N, C], or probabilities [N] or [N, 1] at least 0.5.

    Raises:
        BadInput: As many labels as scores are needed, at least one.
    """
    labels, scores = _checked(labels, scores)
    return float(_hits(labels, scores).mean())


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve by mean ranks; tied scores count one half (Mann-Whitney U). 0.5 for a single class."""
    labels, scores = _binary(labels, scores)
    positives = int(labels.sum())
    negatives = labels.size - positives
    if positives == 0 or negatives == 0:
        return 0.5
    rank_sum = _mean_ranks(scores)[labels > 0].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean negative log-likelihood (natural logarithm) of probabilities [N], [N, 1] or [N, C]."""
    labels, scores = _checked(labels, scores)
    return float(_losses(labels, scores).mean())


def normalized_entropy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Log loss over the entropy of the base rate: below 1 is better than the constant (He et al., ADKDD 2014)."""
    labels, scores = _binary(labels, scores)
    rate = float(np.clip(labels.mean(), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    return float(_losses(labels, scores).mean() / entropy)


def calibration(labels: np.ndarray, scores: np.ndarray) -> float:
    """Sum of predicted probabilities over the number of positives: 1 is perfect, infinite without positives."""
    labels, scores = _binary(labels, scores)
    positives = float(labels.sum())
    return float(scores.sum() / positives) if positives else float("inf")


def paired_difference(
    metric: Metric,
    labels: np.ndarray,
    source_scores: np.ndarray,
    artifact_scores: np.ndarray,
    *,
    seed: int = 0,
) -> PairedDifference:
    """A metric of two models on the same samples and the 95 % interval of artifact - source.

    The interval is the percentile bootstrap over samples (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993), resampling both models together; for AUC it is DeLong's (DeLong, DeLong and Clarke-Pearson, Biometrics
    1988, in the rank form of Sun and Xu, IEEE SPL 2014), which needs no resampling.

    Args:
        labels: [N]; 0/1, or class indices.
        source_scores: [N], [N, 1] or [N, C]; probabilities where the metric is "log_loss", or "accuracy" of a
            single score.
        artifact_scores: Of the same shape.

    Raises:
        BadInput: Shapes differ, a score is not finite, or labels do not fit the metric.
    """
    if np.shape(source_scores) != np.shape(artifact_scores):
        raise BadInput(
            f"{metric}: scores of shape {np.shape(source_scores)} and {np.shape(artifact_scores)}: must be equal."
        )
    if metric == "auc":
        return _auc_difference(labels, source_scores, artifact_scores)
    per_sample: Callable[[np.ndarray, np.ndarray], np.ndarray] = {"accuracy": _hits, "log_loss": _losses}[metric]
    labels, source = _checked(labels, source_scores)
    _, artifact = _checked(labels, artifact_scores)
    ours, theirs = per_sample(labels, artifact), per_sample(labels, source)
    low, high = _bootstrap_interval(ours - theirs, seed)
    return PairedDifference(
        metric=metric,
        samples=labels.size,
        source=float(theirs.mean()),
        artifact=float(ours.mean()),
        difference=float((ours - theirs).mean()),
        low=low,
        high=high,
    )


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels).reshape(-1), np.asarray(scores, np.float64)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim not in (1, 2) or len(scores) != labels.size or not labels.size:
        raise BadInput(f"scores of shape {scores.shape} for {labels.size} labels: must be [N] or [N, classes], N >= 1.")
    if not np.isfinite(scores).all():
        raise BadInput(f"scores: {int((~np.isfinite(scores)).sum())} values are NaN or infinite.")
    classes = 2 if scores.ndim == 1 else scores.shape[1]
    rounded = np.rint(labels.astype(np.float64))
    if (rounded != labels).any() or rounded.min() < 0 or rounded.max() >= classes:
        raise BadInput(f"labels from {labels.min()} to {labels.max()}: must be whole numbers in [0, {classes}).")
    return rounded.astype(np.int64), scores


def _binary(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = _checked(labels, scores)
    if scores.ndim == 2:
        if scores.shape[1] != 2:
            raise BadInput(f"scores for {scores.shape[1]} classes: this metric needs a single score or two classes.")
        scores = scores[:, 1]
    return labels, scores


def _hits(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    answers = scores.argmax(axis=1) if scores.ndim == 2 else scores >= 0.5
    right: np.ndarray = (answers == labels).astype(np.float64)
    return right


def _losses(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    if scores.min() < 0 or scores.max() > 1:
        raise BadInput(f"scores from {scores.min():.4g} to {scores.max():.4g}: log loss needs probabilities.")
    likelihood = (
        scores[np.arange(len(scores)), labels] if scores.ndim == 2 else np.where(labels > 0, scores, 1 - scores)
    )
    losses: np.ndarray = -np.log(np.clip(likelihood, SMALLEST_PROBABILITY, 1.0))
    return losses


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return ranks


def _bootstrap_interval(differences: np.ndarray, seed: int) -> tuple[float, float]:
    # The mean of a resample depends only on how often each distinct difference is drawn; for accuracy there are three.
    values, counts = np.unique(differences, return_counts=True)
    generator = np.random.default_rng(seed)
    size = differences.size
    if values.size <= 64:
        means = generator.multinomial(size, counts / size, RESAMPLES) @ values / size
    else:
        chunk = max(1, CHUNK_ELEMENTS // size)
        parts = [
            differences[generator.integers(0, size, (min(chunk, RESAMPLES - start), size))].mean(axis=1)
            for start in range(0, RESAMPLES, chunk)
        ]
        means = np.concatenate(parts)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _auc_difference(labels: np.ndarray, source: np.ndarray, artifact: np.ndarray) -> PairedDifference:
    truth, first = _binary(labels, source)
    _, second = _binary(labels, artifact)
    values = (auc(truth, first), auc(truth, second))
    positive = truth > 0
    m, n = int(positive.sum()), int((~positive).sum())
    half_width = 0.0
    if m > 1 and n > 1:
        parts = [_placements(scores, positive) for scores in (first, second)]
        gain_positive = parts[1][0] - parts[0][0]
        gain_negative = parts[1][1] - parts[0][1]
        variance = gain_positive.var(ddof=1) / m + gain_negative.var(ddof=1) / n
        half_width = 1.959964 * float(np.sqrt(variance))
    elif first.tolist() != second.tolist():
        half_width = 1.0  # with a single sample of a class nothing is known of the spread
    difference = values[1] - values[0]
    return PairedDifference(
        metric="auc",
        samples=truth.size,
        source=values[0],
        artifact=values[1],
        difference=difference,
        low=difference - half_width,
        high=difference + half_width,
    )


def _placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    ranks = _mean_ranks(scores)
    m, n = int(positive.sum()), int((~positive).sum())
    of_positives = (ranks[positive] - _mean_ranks(scores[positive])) / n
    of_negatives = 1 - (ranks[~positive] - _mean_ranks(scores[~positive])) / m
    return of_positives, of_negatives
