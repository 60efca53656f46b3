import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo, dequantize_output, encode_input, to_layout

IDS = TensorInfo(name="ids", shape=(1, 2), dtype="int64")


def test_wide_ids_become_narrow_ones_and_never_wrap_around():
    narrow = TensorInfo(name="ids", shape=(1, 2), dtype="int32")
    encoded = encode_input(np.array([[7, 2**31 - 1]]), source=IDS, target=narrow)
    assert encoded.dtype == np.int32 and encoded.tolist() == [[7, 2**31 - 1]]
    for outside in (2**31, -(2**31) - 1):
        with pytest.raises(BadInput, match="input ids: values outside int32"):
            encode_input(np.array([[7, outside]]), source=IDS, target=narrow)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
def test_images_change_their_layout_and_come_back(channels, height, width):
    image = np.arange(2 * channels * height * width, dtype=np.float32).reshape(2, channels, height, width)
    last = to_layout(image, "NCHW", "NHWC")
    assert last.shape == (2, height, width, channels) and last.flags.c_contiguous
    np.testing.assert_array_equal(to_layout(last, "NHWC", "NCHW"), image)
    assert to_layout(image, None, "NHWC") is image


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_quantized_values_come_back_within_half_a_step_or_at_the_end_of_the_range(values):
    target = TensorInfo(name="x", shape=(-1,), dtype="int8", scale=(0.02,), zero_point=(-28,))
    source = TensorInfo(name="x", shape=(-1,), dtype="float32")
    encoded = encode_input(np.float32(values), source=source, target=target)
    assert encoded.dtype == np.int8
    inside = np.clip(np.float32(values), -2.0, 3.1)
    assert np.abs(dequantize_output(encoded, target) - inside).max() <= 0.01 + 1e-6


def test_scales_and_zero_points_come_in_pairs():
    with pytest.raises(BadInput, match="1 scales, 0 zero points"):
        TensorInfo(name="x", shape=(1,), dtype="int8", scale=(0.1,))
