import numpy as np
import pytest

from converters.quantize.compensated import SHARES, round_compensated
from converters.quantize.uniform import integer_limits, symmetric_scales

RNG = np.random.default_rng(0)


def _inputs(groups, columns, samples=4000):
    """Neighbours alike, as pixels are."""
    mixed = RNG.normal(size=(groups, samples, columns)).cumsum(axis=2) / np.sqrt(columns)
    return mixed + 0.1 * RNG.normal(size=mixed.shape)


def _covariance(inputs):
    centred = inputs - inputs.mean(axis=1, keepdims=True)
    return centred.swapaxes(1, 2) @ centred / inputs.shape[1]


def _candidates(rows, bits):
    flat = rows.reshape(-1, rows.shape[2])
    widest = symmetric_scales(flat, axis=0, bits=bits)
    return np.stack([widest * share for share in SHARES[bits]]).reshape(len(SHARES[bits]), *rows.shape[:2])


def _plain(rows, scales, bits):
    low, high = integer_limits(bits, narrow=bits == 8)
    return np.clip(np.rint(rows / scales[..., None]), low, high)


def _output_error(rows, stored, scales, inputs):
    errors = inputs @ (stored * scales[..., None] - rows).swapaxes(1, 2)
    return errors.var(axis=1)


@pytest.mark.parametrize("bits", [4, 8])
def test_outputs_on_new_inputs_err_far_less_than_with_plain_rounding(bits):
    rows, inputs = RNG.normal(size=(2, 7, 60)), _inputs(2, 60)
    new = _inputs(2, 60)
    scales = _candidates(rows, bits)
    stored, _ = round_compensated(rows, scales, [_covariance(inputs)], bits=bits)
    assert stored.shape == (len(scales), 2, 7, 60) and stored.dtype == np.int8
    compensated = _output_error(rows, stored[0], scales[0], new)
    plain = _output_error(rows, _plain(rows, scales[0], bits), scales[0], new)
    assert compensated.sum() < 0.5 * plain.sum()


def test_the_errors_told_are_those_of_the_outputs():
    rows, inputs = RNG.normal(size=(1, 5, 30)), _inputs(1, 30)
    scales = _candidates(rows, 4)
    stored, told = round_compensated(rows, scales, [_covariance(inputs)], bits=4)
    found = np.stack([_output_error(rows, q, s, inputs) for q, s in zip(stored, scales, strict=True)])
    assert np.all(found <= told + 1e-9)  # what the samples did not show counts a little, too
    assert np.all(told < found + 0.011 * np.square(stored * scales[..., None] - rows).sum(axis=3) * inputs.var())


def test_nothing_is_worse_than_plain_rounding_and_uncorrelated_inputs_change_nothing():
    rows = RNG.normal(size=(1, 4, 20))
    scales = _candidates(rows, 8)
    stored, _ = round_compensated(rows, scales, [np.diag(RNG.uniform(1, 2, 20))[None]], bits=8)
    np.testing.assert_array_equal(stored[0], _plain(rows, scales[0], 8))


def test_inputs_that_are_always_the_same_are_rounded_to_the_nearest():
    rows = RNG.normal(size=(3, 4, 9))
    scales = _candidates(rows, 4)
    stored, errors = round_compensated(rows, scales, [np.zeros((3, 9, 9))], bits=4)
    np.testing.assert_array_equal(stored[0], _plain(rows, scales[0], 4))
    assert np.isfinite(errors).all()


def test_columns_in_parts_are_put_together_in_order():
    rows, inputs = RNG.normal(size=(1, 6, 40)), _inputs(1, 40)
    parts = [_covariance(inputs[:, :, :25]), _covariance(inputs[:, :, 25:])]
    scales = _candidates(rows, 8)
    stored, errors = round_compensated(rows, scales, parts, bits=8)
    assert np.abs(stored[0] * scales[0][..., None] - rows).max() < 6 * scales.max()
    one, first = round_compensated(rows[:, :, :25], scales, parts[:1], bits=8)
    np.testing.assert_array_equal(stored[..., :25], one)
    assert np.all(errors > first)
