"""Metrics against brute force, and intervals against what they promise."""

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.zoo import metrics


def scored_labels(size, seed, noise=1.0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=size)
    labels = (generator.random(size) < 1 / (1 + np.exp(-1.5 * logits))).astype(np.float32)
    other = logits + noise * generator.normal(size=size)
    return labels, 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-other))


def test_auc_is_the_share_of_rightly_ordered_pairs_with_ties_as_halves():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 200), generator.integers(0, 20, 200) / 20
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None]
    pairs = (positive > negative).mean() + (positive == negative).mean() / 2
    assert metrics.auc(labels, scores) == pytest.approx(pairs, abs=1e-12)
    assert metrics.auc(labels, np.zeros(200)) == 0.5
    assert metrics.auc(np.ones(5), np.arange(5) / 5) == 0.5


def test_accuracy_takes_class_scores_and_probabilities():
    assert metrics.accuracy(np.array([0, 1, 2]), np.eye(3)) == 1.0
    assert metrics.accuracy(np.array([0, 1, 1]), np.array([[0.2], [0.5], [0.4]])) == pytest.approx(2 / 3)


def test_log_loss_entropy_and_calibration_of_the_base_rate():
    labels, scores = np.array([1, 0, 0, 0]), np.full(4, 0.25)
    assert metrics.log_loss(labels, scores) == pytest.approx(-(np.log(0.25) + 3 * np.log(0.75)) / 4)
    assert metrics.normalized_entropy(labels, scores) == pytest.approx(1.0)
    assert metrics.calibration(labels, scores) == 1.0
    assert np.isfinite(metrics.log_loss(labels, np.zeros(4)))


@pytest.mark.parametrize("metric", ["accuracy", "auc", "log_loss"])
def test_equal_models_differ_by_nothing(metric):
    labels, scores, _ = scored_labels(500, 1)
    found = metrics.paired_difference(metric, labels, scores, scores[:, None][:, 0])
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", ["accuracy", "auc", "log_loss"])
def test_the_interval_holds_the_difference_and_repeats_with_its_seed(metric):
    labels, source, artifact = scored_labels(5000, 2)
    found = metrics.paired_difference(metric, labels, source, artifact, seed=3)
    assert found == metrics.paired_difference(metric, labels, source, artifact, seed=3)
    assert found.low < found.difference < found.high
    assert found.difference == pytest.approx(found.artifact - found.source)
    assert found.samples == 5000


@pytest.mark.parametrize("metric", ["accuracy", "auc", "log_loss"])
def test_the_interval_covers_the_true_difference_about_as_often_as_it_says(metric):
    function = getattr(metrics, metric)
    labels, source, artifact = scored_labels(200_000, 4, noise=0.5)
    truth = function(labels, artifact) - function(labels, source)
    covered = 0
    for start in range(0, 200_000, 1000):
        part = slice(start, start + 1000)
        found = metrics.paired_difference(metric, labels[part], source[part], artifact[part])
        covered += found.low <= truth <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_auc_interval_agrees_with_the_bootstrap():
    labels, source, artifact = scored_labels(800, 5)
    generator = np.random.default_rng(0)
    draws = [generator.integers(0, 800, 800) for _ in range(600)]
    spread = np.std([metrics.auc(labels[d], artifact[d]) - metrics.auc(labels[d], source[d]) for d in draws])
    found = metrics.paired_difference("auc", labels, source, artifact)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(spread, rel=0.15)


def test_several_classes_are_compared_by_accuracy_and_log_loss():
    generator = np.random.default_rng(6)
    labels = generator.integers(0, 10, 300)
    scores = generator.dirichlet(np.ones(10), 300)
    worse = generator.dirichlet(np.ones(10), 300)
    for metric in ("accuracy", "log_loss"):
        found = metrics.paired_difference(metric, labels, scores, worse)
        assert found.low <= found.difference <= found.high
    with pytest.raises(BadInput, match="needs a single score or two classes"):
        metrics.paired_difference("auc", labels, scores, worse)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(BadInput, match="for 3 labels"):
        metrics.accuracy(np.zeros(3), np.zeros(2))
    with pytest.raises(BadInput, match=r"whole numbers in \[0, 2\)"):
        metrics.auc(np.array([0, 2]), np.zeros(2))
    with pytest.raises(BadInput, match="1 values are NaN"):
        metrics.auc(np.array([0, 1]), np.array([0.5, np.nan]))
    with pytest.raises(BadInput, match="log loss needs probabilities"):
        metrics.log_loss(np.array([0, 1]), np.array([-3.0, 2.0]))
    with pytest.raises(BadInput, match="must be equal"):
        metrics.paired_difference("auc", np.zeros(2), np.zeros(2), np.zeros(3))
