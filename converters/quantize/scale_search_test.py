import numpy as np

from converters.quantize.scale_search import weight_scales
from converters.quantize.uniform import along_axis, dequantize, quantize_symmetric, symmetric_scales


def _squared_error(weights, scales):
    stored = quantize_symmetric(weights, scales, axis=0, bits=4)
    return ((dequantize(stored, along_axis(scales, 0, weights.ndim)) - weights) ** 2).sum(axis=1)


def test_no_channel_is_worse_than_with_its_extremes_kept():
    weights = np.random.default_rng(0).laplace(size=(20, 64)).astype(np.float32)
    searched = _squared_error(weights, weight_scales(weights, axis=0, bits=4))
    kept = _squared_error(weights, symmetric_scales(weights, axis=0, bits=4))
    assert np.all(searched <= kept)
    assert searched.sum() < 0.95 * kept.sum()


def test_weights_that_fit_sixteen_values_stay_exact():
    weights = np.random.default_rng(1).integers(-7, 8, (5, 40)).astype(np.float32) * 0.25
    weights[:, 0] = 7 * 0.25
    np.testing.assert_allclose(_squared_error(weights, weight_scales(weights, axis=0, bits=4)), 0, atol=1e-9)


def test_eight_bits_keep_the_extremes():
    weights = np.random.default_rng(2).laplace(size=(4, 9)).astype(np.float32)
    expected = symmetric_scales(weights, axis=0, bits=8)
    np.testing.assert_array_equal(weight_scales(weights, axis=0, bits=8), expected)
