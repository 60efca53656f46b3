"""Every codec that the folder holds keeps the contract."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.codec_speed import codec_s_per_byte
from runtimes.codecs import codec_names, load_codec

DTYPES = ["float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "int4", "uint4", "int2", "bool"]
HOLDERS = {"int4": ("int8", -8, 7), "uint4": ("uint8", 0, 15), "int2": ("int8", -2, 1)}
LARGE = TensorInfo(name="features", shape=(2, 600), dtype="float32")
IDS = TensorInfo(name="ids", shape=(2, 3), dtype="int32")


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


def feature_maps(seed=0):
    random = np.random.default_rng(seed)
    features = np.maximum(random.normal(size=LARGE.shape), 0).astype(np.float32)
    return [features, random.integers(0, 9, IDS.shape, dtype=np.int32)], [LARGE, IDS]


def farthest_error(name, given_array, tensor):
    """What may be lost of the largest value: rounding, and what a codec leaves out altogether."""
    reach = float(given_array.max()) - float(given_array.min())
    rest = float(tensor.zero_point[0]) if tensor.zero_point else 0.0
    if "topk" in name or "threshold" in name:
        reach = max(reach, float(np.abs(given_array.astype(float) - rest).max()))
        return reach + 1e-3
    steps = 15 if "int4" in name else 255
    rounding = 0.5 if not tensor.dtype.startswith("float") else 0.01 * abs(reach) + 1e-3
    return 0.51 * reach / steps + rounding


@pytest.mark.parametrize("name", codec_names())
@settings(max_examples=40, deadline=None)
@given(boundaries())
def test_what_was_encoded_decodes_to_the_same_types_at_the_size_that_was_promised(name, drawn):
    tensors, arrays = drawn
    codec = load_codec(name)
    payload = codec.encode(arrays, tensors)
    promised = codec.encoded_bytes(tensors)
    assert len(payload) == promised if codec.fixed_size else len(payload) <= promised
    assert promised == sum(codec.encoded_bytes((one,)) for one in tensors)
    # Another instance decodes: the other side remembers nothing.
    for found, given_array, tensor in zip(load_codec(name).decode(payload, tensors), arrays, tensors, strict=True):
        assert (found.shape, found.dtype) == (given_array.shape, given_array.dtype)
        is_name = not (tensor.dtype.startswith("float") or tensor.scale)
        if codec.lossless or is_name:
            np.testing.assert_array_equal(found, given_array)
        elif given_array.size:
            np.testing.assert_allclose(
                found.astype(float), given_array.astype(float), atol=farthest_error(name, given_array, tensor)
            )


@pytest.mark.parametrize("name", codec_names())
def test_bytes_of_another_boundary_are_refused(name):
    codec = load_codec(name)
    tensor = TensorInfo(name="t", shape=(3, 4), dtype="float32")
    payload = codec.encode([np.ones((3, 4), np.float32)], [tensor])
    for damaged in (payload[:-1], payload + b"\0", b"", payload + payload):
        with pytest.raises(BadInput, match="codec"):
            codec.decode(damaged, [tensor])
    with pytest.raises(BadInput, match=r"t: float64 \(3, 4\), must be float32"):
        codec.encode([np.zeros((3, 4))], [tensor])
    with pytest.raises(BadInput, match="2 arrays, must be 1"):
        codec.encode([np.zeros((3, 4), np.float32)] * 2, [tensor])


@pytest.mark.parametrize("name", codec_names())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 1 << 20)
)
def test_damaged_bytes_end_as_our_error_or_as_arrays_of_the_right_kind(name, changes, keep):
    arrays, tensors = feature_maps()
    payload = bytearray(load_codec(name).encode(arrays, tensors))
    for place, value in changes:
        payload[place % len(payload)] = value
    for damaged in (bytes(payload), bytes(payload[: keep % len(payload)])):
        try:
            found = load_codec(name).decode(damaged, tensors)
        except BadInput:
            continue
        assert [(array.shape, array.dtype) for array in found] == [(array.shape, array.dtype) for array in arrays]


@pytest.mark.parametrize("name", codec_names())
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_from_anywhere_end_as_our_error_or_as_arrays_of_the_right_kind(name, payload):
    tensors = [TensorInfo(name="t", shape=(2, 9), dtype="float32")]
    try:
        (found,) = load_codec(name).decode(payload, tensors)
    except BadInput:
        return
    assert (found.shape, found.dtype) == ((2, 9), np.float32)


@pytest.mark.parametrize("name", [name for name in codec_names() if load_codec(name).fixed_size is False])
def test_boundaries_that_repeat_themselves_become_smaller_than_was_promised(name):
    codec = load_codec(name)
    flat = [np.zeros(LARGE.shape, np.float32)]
    assert len(codec.encode(flat, [LARGE])) < codec.encoded_bytes([LARGE]) / 4


def test_requantize_makes_float_boundaries_a_quarter_and_an_eighth():
    tensor = TensorInfo(name="t", shape=(1, 1000), dtype="float32")
    ids = TensorInfo(name="ids", shape=(1, 10), dtype="int32")
    assert load_codec("raw").encoded_bytes((tensor, ids)) == 4040
    assert load_codec("requantize:int8").encoded_bytes((tensor, ids)) == 1008 + 40
    assert load_codec("requantize:int4").encoded_bytes((tensor, ids)) == 508 + 40


@pytest.mark.parametrize("name", ["requantize:int8", "topk:50%-int8", "threshold:50%-int8"])
def test_values_that_have_no_range_are_refused_by_name(name):
    tensor = TensorInfo(name="logits", shape=(20,), dtype="float32")
    with pytest.raises(BadInput, match="logits holds NaN"):
        load_codec(name).encode([np.array([1.0] * 19 + [np.nan], np.float32)], [tensor])


def test_a_tensor_that_would_not_become_smaller_travels_as_it_is():
    tensor = TensorInfo(name="t", shape=(2, 4), dtype="float16")
    values = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float16)
    coder = load_codec("requantize:int8")
    payload = coder.encode([values], [tensor])
    assert len(payload) == values.nbytes
    np.testing.assert_array_equal(coder.decode(payload, [tensor])[0], values)


@pytest.mark.parametrize(
    "text", ["zip", "raw:fast", "requantize:int3", "topk:0%", "topk:101%", "topk:x", "threshold:", "zstd:20", "lz4:1"]
)
def test_unknown_codecs_and_options_are_refused(text):
    if text == "threshold:":
        text = "threshold:10"
    with pytest.raises(BadInput, match=r"unknown|no options|must be"):
        load_codec(text)


@pytest.mark.parametrize("name", codec_names())
def test_the_speed_of_every_codec_can_be_measured_here(name):
    encode, decode = codec_s_per_byte(name, elements=1000)
    assert 0 < encode < 1e-3 and 0 < decode < 1e-3


def test_topk_keeps_the_farthest_values_of_each_sample_and_int8_maps_rest_at_their_zero_point():
    tensor = TensorInfo(name="t", shape=(2, 20), dtype="int8", scale=(0.1,), zero_point=(-128,))
    values = np.full((2, 20), -128, np.int8)
    values[0, 3], values[0, 7], values[1, 19] = 127, -120, 5
    codec = load_codec("topk:10%")
    np.testing.assert_array_equal(codec.decode(codec.encode([values], [tensor]), [tensor])[0], values)
    crowded = np.arange(40, dtype=np.int8).reshape(2, 20)
    (found,) = codec.decode(codec.encode([crowded], [tensor]), [tensor])
    assert found[0].tolist() == [-128] * 18 + [18, 19] and found[1].tolist() == [-128] * 18 + [38, 39]


def test_a_threshold_is_kept_from_one_request_to_the_next():
    codec = load_codec("threshold:10%")
    loud, quiet = (
        [array] for array in (np.arange(1200, dtype=np.float32).reshape(LARGE.shape), np.ones(LARGE.shape, np.float32))
    )
    first = codec.encode(loud, [LARGE])
    (found,) = codec.decode(first, [LARGE])
    assert np.count_nonzero(found) == 120 and found.min() == 0 and found.max() == 1199
    assert len(codec.encode(quiet, [LARGE])) == 4  # nothing reaches what the loud one asked for
    for _ in range(100):
        refreshed = codec.encode(quiet, [LARGE])
    np.testing.assert_array_equal(codec.decode(refreshed, [LARGE])[0], quiet[0])


@pytest.mark.parametrize("name", ["zstd", "requantize:int8+zstd", "topk:10%+zstd"])
def test_a_zstd_frame_that_claims_or_holds_too_much_is_refused_before_memory_is_taken(name):
    zstandard = pytest.importorskip("zstandard")
    tensor = TensorInfo(name="t", shape=(1, 1000), dtype="float32")
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    claims = bytes.fromhex("28b52ffdc0 00 ffffffffffffff7f")  # a header that asks for 8 EiB
    for payload in (bomb, unsized, claims):
        with pytest.raises(BadInput, match="codec zstd"):
            load_codec(name).decode(b"\1" + payload, [tensor])


def test_an_lz4_block_that_holds_too_much_is_refused():
    block = pytest.importorskip("lz4.block")
    tensor = TensorInfo(name="t", shape=(1, 1000), dtype="float32")
    with pytest.raises(BadInput, match="codec lz4"):
        load_codec("lz4").decode(b"\1" + block.compress(bytes(8000), store_size=False), [tensor])


def test_codecs_are_put_together_with_the_compressor_behind():
    arrays, tensors = feature_maps()
    codec = load_codec("requantize:int8+zstd:19")
    sizes = [len(load_codec(name).encode(arrays, tensors)) for name in ("raw", "requantize:int8")]
    assert len(codec.encode(arrays, tensors)) < sizes[1] < sizes[0]
    with pytest.raises(BadInput, match="takes tensors, not bytes"):
        load_codec("zstd+topk:10%")
    with pytest.raises(BadInput, match="at most 3"):
        load_codec("raw+zstd+zstd+zstd")
    assert tensor_bytes(LARGE) == 4800
