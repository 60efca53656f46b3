import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.quantize.uniform import (
    affine_from_range,
    along_axis,
    dequantize,
    integer_limits,
    quantize,
    quantize_symmetric,
    symmetric_scales,
)

FINITE = st.floats(-1e6, 1e6, width=32)
MATRICES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=FINITE)


@given(FINITE, FINITE)
def test_a_range_is_covered_and_zero_is_exact(one, other):
    low, high = sorted((one, other))
    affine = affine_from_range(low, high)
    assert affine.scale > 0 and -128 <= affine.zero_point <= 127
    assert dequantize(np.array([affine.zero_point]), affine.scale, affine.zero_point) == 0
    ends = np.array([low, high])
    stored = quantize(ends, affine.scale, affine.zero_point, low=-128, high=127)
    assert np.all(np.abs(dequantize(stored, affine.scale, affine.zero_point) - ends) <= 0.51 * affine.scale + 1e-6)


def test_a_tensor_that_is_always_zero_gets_a_usable_scale():
    affine = affine_from_range(0.0, 0.0)
    assert np.isfinite(affine.scale) and affine.scale > 0


@given(MATRICES, st.sampled_from([4, 8]), st.data())
def test_weights_come_back_within_half_a_step_of_their_channel(weights, bits, data):
    axis = data.draw(st.sampled_from([None, *range(weights.ndim)]))
    scales = symmetric_scales(weights, axis=axis, bits=bits)
    stored = quantize_symmetric(weights, scales, axis=axis, bits=bits)
    low, high = integer_limits(bits, narrow=bits == 8)
    assert stored.min() >= low and stored.max() <= high
    steps = along_axis(scales, axis, weights.ndim)
    assert np.all(np.abs(dequantize(stored, steps) - weights) <= 0.501 * steps)


def test_a_channel_of_zeros_gets_the_scale_of_its_smallest_neighbour():
    scales = symmetric_scales(np.array([[0.0, 0.0], [1.0, 2.0], [4.0, 8.0]]), axis=0, bits=8)
    assert scales[0] == scales[1] < scales[2]


def test_int4_uses_all_sixteen_values_and_int8_leaves_the_lowest_out():
    weights = np.array([[-8.0, 7.0]])
    assert quantize_symmetric(weights, symmetric_scales(weights, axis=0, bits=4), axis=0, bits=4).tolist() == [[-8, 7]]
    stored = quantize_symmetric(weights, symmetric_scales(weights, axis=0, bits=8), axis=0, bits=8)
    assert stored.tolist() == [[-127, 111]]


def test_a_floor_widens_only_the_scales_below_it():
    weights = np.array([[1e-9], [1.0]])
    scales = symmetric_scales(weights, axis=0, bits=8, floor=1e-3)
    assert scales[0] == np.float32(1e-3) and scales[1] == np.float32(1 / 127)
