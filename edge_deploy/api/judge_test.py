import numpy as np
import pytest

from converters.verify import compare_arrays
from edge_deploy.api.judge import judge
from edge_deploy.core.errors import VerificationFailed


def scores(labels, right, classes=10, seed=0):
    """Scores whose argmax is the label in exactly `right` of the samples."""
    generator = np.random.default_rng(seed)
    made = generator.random((len(labels), classes)) * 0.1
    for index, label in enumerate(labels):
        made[index, label if index < right else (label + 1) % classes] += 1
    return made.astype(np.float32)


LABELS = np.random.default_rng(1).integers(0, 10, 400)


def decide(source, artifact, max_drop=None, *, strict=False, labels=LABELS, meaning=None):
    comparison = compare_arrays({"y": source}, {"y": artifact}, kernels="k", threads=1)
    return judge(
        [comparison], labels.astype(float), source, artifact, meaning=meaning, max_drop=max_drop, strict=strict
    )


def test_a_model_that_equals_its_source_passes():
    result = decide(scores(LABELS, 380), scores(LABELS, 380), 0.01)
    assert result.verdict == "passed"
    assert result.differences[0].source == result.differences[0].artifact == pytest.approx(0.95)


def test_a_clear_loss_is_refused():
    with pytest.raises(VerificationFailed, match=r"accuracy changed by -0\.2000.*measured difference is below -0\.01"):
        decide(scores(LABELS, 380), scores(LABELS, 300), 0.01)


def test_a_loss_the_samples_cannot_tell_is_not_resolved_and_strict_refuses_it():
    source, artifact = scores(LABELS, 380), scores(LABELS, 378)
    assert decide(source, artifact, 0.01).verdict == "not resolved"
    with pytest.raises(VerificationFailed, match="the interval's lower end"):
        decide(source, artifact, 0.01, strict=True)


def test_without_max_drop_nothing_is_judged_but_the_difference_is_told():
    result = decide(scores(LABELS, 380), scores(LABELS, 300))
    assert (result.verdict, len(result.differences)) == ("not asked", 1)


def test_max_drop_without_labels_is_refused():
    with pytest.raises(VerificationFailed, match="no labels"):
        decide(scores(LABELS, 380), scores(LABELS, 380), 0.01, labels=np.full(400, np.nan))


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(VerificationFailed, match="the model has 10 classes"):
        decide(scores(LABELS, 380), scores(LABELS, 380), labels=LABELS + 5)


def test_logits_and_probabilities_of_a_binary_model_are_judged_alike():
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(500, 1))
    labels = (generator.random(500) < 1 / (1 + np.exp(-2 * logits[:, 0]))).astype(int)
    by_logit = decide(logits, logits + 0.001, labels=labels, meaning="logit")
    probabilities = 1 / (1 + np.exp(-logits))
    by_probability = decide(probabilities, probabilities, labels=labels, meaning="probability")
    assert [found.metric for found in by_logit.differences] == ["auc", "log_loss"]
    for one, other in zip(by_logit.differences, by_probability.differences, strict=True):
        assert one.source == pytest.approx(other.source, abs=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_refused(wrong):
    source = scores(LABELS, 380)
    artifact = source.copy()
    artifact[7, 3] = wrong
    with pytest.raises(VerificationFailed, match="not finite"):
        decide(source, artifact)


def test_garbage_is_refused_whatever_the_precision():
    source = scores(LABELS, 380)
    with pytest.raises(VerificationFailed, match="computes something else"):
        decide(source, -source)


def test_outputs_that_depend_on_the_thread_count_are_refused():
    source = scores(LABELS, 380)
    noisy = source + np.random.default_rng(3).normal(0, 0.2, source.shape).astype(np.float32)
    good = source + np.float32(1e-3)
    comparisons = [
        compare_arrays({"y": source}, {"y": outputs}, kernels="k", threads=threads)
        for threads, outputs in ((1, good), (2, noisy))
    ]
    with pytest.raises(VerificationFailed, match="depend on the number of threads"):
        judge(comparisons, LABELS.astype(float), source, good, meaning=None, max_drop=None, strict=False)
