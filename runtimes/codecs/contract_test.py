"""Every codec that the folder holds keeps the contract."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.codec_speed import codec_s_per_byte
from runtimes.codecs import codec_names, load_codec

DTYPES = ["float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "int4", "uint4", "int2", "bool"]
HOLDERS = {"int4": ("int8", -8, 7), "uint4": ("uint8", 0, 15), "int2": ("int8", -2, 1)}


@st.composite
def boundaries(draw):
    tensors, arrays = [], []
    for number in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(0, 7), min_size=1, max_size=3)))
        dtype = draw(st.sampled_from(DTYPES))
        scaled = dtype in ("int8", "uint8", "int16") and draw(st.booleans())
        quantization = {"scale": (0.1,), "zero_point": (3,)} if scaled else {}
        tensors.append(TensorInfo(name=f"t{number}", shape=shape, dtype=dtype, **quantization))
        rng = np.random.default_rng(draw(st.integers(0, 999)))
        if dtype.startswith("float"):
            arrays.append(np.asarray(rng.normal(0, 3, shape), dtype=dtype))
        elif dtype == "bool":
            arrays.append(rng.random(shape) < 0.5)
        else:
            held = np.iinfo(dtype) if dtype not in HOLDERS else None
            holder, low, high = HOLDERS.get(dtype) or (dtype, held.min, held.max)
            arrays.append(rng.integers(low, high, shape, dtype=holder, endpoint=True))
    return tensors, arrays


@pytest.mark.parametrize("name", codec_names())
@settings(max_examples=60, deadline=None)
@given(boundaries())
def test_what_was_encoded_decodes_to_the_same_types_at_the_size_that_was_promised(name, drawn):
    tensors, arrays = drawn
    codec = load_codec(name)
    payload = codec.encode(arrays, tensors)
    assert len(payload) == codec.encoded_bytes(tensors) == sum(codec.encoded_bytes((one,)) for one in tensors)
    for found, given_array, tensor in zip(codec.decode(payload, tensors), arrays, tensors, strict=True):
        assert (found.shape, found.dtype) == (given_array.shape, given_array.dtype)
        coded = codec.encoded_bytes((tensor,)) != tensor_bytes(tensor)
        if codec.lossless or not coded:
            np.testing.assert_array_equal(found, given_array)
        elif given_array.size:
            steps = 255 if name.endswith("int8") else 15
            reach = float(given_array.max()) - float(given_array.min())
            rounding = 0.5 if not tensor.dtype.startswith("float") else 0.01 * abs(reach) + 1e-3
            np.testing.assert_allclose(
                found.astype(float), given_array.astype(float), atol=0.51 * reach / steps + rounding
            )


@pytest.mark.parametrize("name", codec_names())
def test_bytes_of_another_boundary_are_refused(name):
    codec = load_codec(name)
    tensor = TensorInfo(name="t", shape=(3, 4), dtype="float32")
    payload = codec.encode([np.zeros((3, 4), np.float32)], [tensor])
    with pytest.raises(BadInput, match="bytes arrived"):
        codec.decode(payload[:-1], [tensor])
    with pytest.raises(BadInput, match=r"t: float64 \(3, 4\), must be float32"):
        codec.encode([np.zeros((3, 4))], [tensor])
    with pytest.raises(BadInput, match="2 arrays, must be 1"):
        codec.encode([np.zeros((3, 4), np.float32)] * 2, [tensor])


def test_requantize_makes_float_boundaries_a_quarter_and_an_eighth():
    tensor = TensorInfo(name="t", shape=(1, 1000), dtype="float32")
    ids = TensorInfo(name="ids", shape=(1, 10), dtype="int32")
    assert load_codec("raw").encoded_bytes((tensor, ids)) == 4040
    assert load_codec("requantize:int8").encoded_bytes((tensor, ids)) == 1008 + 40
    assert load_codec("requantize:int4").encoded_bytes((tensor, ids)) == 508 + 40


def test_values_that_have_no_range_are_refused_by_name():
    tensor = TensorInfo(name="logits", shape=(20,), dtype="float32")
    with pytest.raises(BadInput, match="logits holds NaN"):
        load_codec("requantize:int8").encode([np.array([1.0] * 19 + [np.nan], np.float32)], [tensor])


def test_a_tensor_that_would_not_become_smaller_travels_as_it_is():
    tensor = TensorInfo(name="t", shape=(2, 4), dtype="float16")
    values = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float16)
    coder = load_codec("requantize:int8")
    payload = coder.encode([values], [tensor])
    assert len(payload) == values.nbytes
    np.testing.assert_array_equal(coder.decode(payload, [tensor])[0], values)


@pytest.mark.parametrize("text", ["zip", "raw:fast", "requantize:int3"])
def test_unknown_codecs_and_options_are_refused(text):
    with pytest.raises(BadInput, match=r"unknown|no options|must be"):
        load_codec(text)


@pytest.mark.parametrize("name", codec_names())
def test_the_speed_of_every_codec_can_be_measured_here(name):
    encode, decode = codec_s_per_byte(name, elements=1000)
    assert 0 < encode < 1e-3 and 0 < decode < 1e-3
