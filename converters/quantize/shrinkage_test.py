import numpy as np
import pytest

from converters.quantize.shrinkage import shrunk

RNG = np.random.default_rng(0)
TRUE = np.array([[0.9 ** abs(i - j) for j in range(30)] for i in range(30)])


def _seen(count):
    samples = RNG.multivariate_normal(np.zeros(30), TRUE, count)
    return (samples.T @ samples / count)[None]


@pytest.mark.parametrize("count", [2, 10, 40])
def test_few_samples_are_closer_to_the_truth_when_shrunk(count):
    draws = [_seen(count) for _ in range(30)]
    errors = [
        np.mean([np.square(form(seen) - TRUE).sum() for seen in draws])
        for form in (lambda x: shrunk(x, count), np.copy)
    ]
    assert errors[0] < errors[1]


def test_many_samples_are_believed():
    seen = _seen(20_000)
    np.testing.assert_allclose(shrunk(seen, 20_000), seen, atol=0.02)


def test_what_never_varied_and_a_single_column_stay():
    np.testing.assert_array_equal(shrunk(np.zeros((2, 5, 5)), 7), np.zeros((2, 5, 5)))
    np.testing.assert_allclose(shrunk(np.full((1, 1, 1), 3.0), 1), 3.0)
    np.testing.assert_allclose(shrunk(np.eye(4)[None] * 2, 100), np.eye(4)[None] * 2)
