"""Layers among floats with narrow weights: every kernel set computes what the stored weights say."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters.contracts import Captured, LowerRequest
from converters.support import lookup
from converters.targets.tflite import lower
from converters.tflite.flatbuffer import constant, dtype_name, op_name, read_model, tensor_name
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe
from edge_deploy.core.tensor import TensorInfo
from runtimes.formats.tflite import read_facts

PRECISIONS = ("float16", "int8-dynamic", "int8-weight", "int4-weight")
RESOLVERS = (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF)
# Noise of the whole net in dB: what rounding weights (and activations, once dynamic) to so many bits costs it.
LEAST_DB = {"float16": 55, "int8-weight": 35, "int8-dynamic": 30, "int4-weight": 12}
SHAPE = (1, 8, 8, 6)


def weights(*shape):
    values = np.random.default_rng(5).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
    return tf.constant(values.astype(np.float32))


def net(x):
    x = tf.nn.relu(tf.nn.conv2d(x, weights(3, 3, 6, 5), 1, "SAME") + weights(1, 5)[0])
    x = tf.nn.relu(tf.nn.depthwise_conv2d(x, weights(3, 3, 5, 1), [1, 2, 2, 1], "SAME"))
    x = tf.nn.conv2d_transpose(x, weights(3, 3, 4, 5), [1, 8, 8, 4], 2, "SAME")
    x = tf.nn.relu(tf.matmul(tf.reshape(x, (1, 256)), weights(256, 7)) + weights(1, 7)[0])
    return tf.raw_ops.BatchMatMulV2(x=tf.reshape(x, (1, 1, 7)), y=weights(1, 7, 3))


OPERATORS = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}


def captured_net(folder, function, shape=SHAPE):
    module = tf.Module()
    module.call = tf.function(
        lambda x: {"y": function(x)}, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")]
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    (folder / "float.tflite").write_bytes(converter.convert())
    return Captured(
        name="net",
        framework="keras",
        kind="cnn",
        folder=folder,
        inputs=(TensorInfo(name="x", shape=shape, dtype="float32"),),
        outputs=(TensorInfo(name="y", shape=(1, 3), dtype="float32"),),
        float_tflite=folder / "float.tflite",
    )


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    return captured_net(tmp_path_factory.mktemp("net"), net)


def convert(captured, folder, precision, **changes):
    return lower(LowerRequest(captured=captured, spec=spec_for_recipe(precision, **changes), folder=folder))


@pytest.fixture(scope="module", params=PRECISIONS)
def written(request, captured, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, convert(captured, folder, request.param), folder / "model.tflite"


def answers(path, resolver=OpResolverType.AUTO, shape=SHAPE):
    runner = Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1).get_signature_runner()
    rng = np.random.default_rng(1)
    return np.stack([runner(x=rng.normal(size=shape).astype(np.float32))["y"].copy() for _ in range(12)])


def decibels(reference, found):
    return 10 * np.log10(np.sum(reference**2) / max(np.sum((reference - found) ** 2), 1e-30))


def test_every_layer_becomes_what_the_support_table_says(written):
    precision, lowered, _ = written
    found = {outcome.op: outcome for outcome in lowered.outcomes if outcome.op in OPERATORS}
    assert set(found) == OPERATORS
    for op, outcome in found.items():
        entry = lookup("tflite", precision, op)
        assert entry.operator == op and outcome.is_as_asked
        assert ("stored" in outcome.got) == (entry.status == "stored only"), outcome
        # The last byte of an odd number of packed weights is half empty.
        assert outcome.weight_bits == pytest.approx({"float16": 16, "int4-weight": 4}.get(precision, 8), abs=0.1)


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_all_kernels_compute_near_the_float_model(written, captured, resolver):
    precision, _, path = written
    assert decibels(answers(captured.float_tflite), answers(path, resolver)) > LEAST_DB[precision]


def test_stored_weights_compute_exactly_what_they_say(written, captured):
    """Weight-only and float16 files against the float file with the dequantized weights in place of its own."""
    precision, _, path = written
    if precision == "int8-dynamic":
        pytest.skip("its activations are rounded too")
    narrow, wide = read_model(path), read_model(captured.float_tflite)
    stored = {tensor_name(t): t for t in narrow.subgraphs[0].tensors if dtype_name(t) in ("int8", "int4", "float16")}
    changed = 0
    for tensor in wide.subgraphs[0].tensors:
        if (other := stored.get(tensor_name(tensor))) is not None:
            values = constant(narrow, other).astype(np.float32)
            if dtype_name(other) != "float16":
                axis = [1] * values.ndim
                if len(other.quantization.scale) > 1:
                    axis[other.quantization.quantizedDimension] = -1
                values = values * other.quantization.scale.reshape(axis)
            wide.buffers[tensor.buffer].data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
            changed += 1
    assert changed >= len(OPERATORS)
    from converters.tflite.flatbuffer import write_model

    reference = path.with_name("dequantized.tflite")
    write_model(wide, reference)
    assert decibels(answers(reference), answers(path)) > 100


def test_files_shrink_by_what_the_weights_lose(captured, tmp_path):
    bytes_of = {}
    for precision in ("float32", *PRECISIONS):
        folder = tmp_path / precision
        folder.mkdir()
        bytes_of[precision] = sum(o.weight_bytes for o in convert(captured, folder, precision).outcomes)
    whole = bytes_of.pop("float32")
    assert {name: round(whole / size, 1) for name, size in bytes_of.items()} == {
        "float16": 2.0,
        "int8-dynamic": 4.0,
        "int8-weight": 4.0,
        "int4-weight": pytest.approx(8.0, abs=0.3),
    }


def test_layers_have_the_same_names_in_every_precision(written, captured):
    _, lowered, _ = written
    named = {fact.layer for fact in read_facts(captured.float_tflite) if fact.weight_count}
    assert {outcome.layer for outcome in lowered.outcomes} == named


def test_weights_beyond_float16_are_refused_by_name_or_stay_in_float_on_wish(tmp_path):
    captured = captured_net(tmp_path, lambda x: tf.matmul(x, 1e6 * weights(6, 3)), (1, 6))
    with pytest.raises(Unsupported, match=r"FULLY_CONNECTED.*beyond float16.*--fallback float32"):
        convert(captured, tmp_path, "float16")
    (outcome,) = convert(captured, tmp_path, "float16", fallback_bits=32).outcomes
    assert (outcome.asked, outcome.got) == ("float16", "float32") and "as permitted" in outcome.reason


def test_an_operator_without_a_narrow_form_is_refused_by_name(tmp_path):
    captured = captured_net(tmp_path, lambda x: tf.cumsum(x * weights(1024)), (1, 1024))
    for precision in ("int8-weight", "int8-dynamic"):
        with pytest.raises(Unsupported, match=r"MUL.*no narrow form"):
            convert(captured, tmp_path, precision)
    convert(captured, tmp_path, "float16")
    kinds = [op_name(read_model(tmp_path / "model.tflite"), op) for op in _operators(tmp_path / "model.tflite")]
    assert "DEQUANTIZE" in kinds
    assert decibels(*(answers(tmp_path / f"{n}.tflite", shape=(1, 1024)) for n in ("float", "model"))) > 55


def _operators(path):
    return read_model(path).subgraphs[0].operators


IN_INT4 = {
    "fully connected": ((1, 32), lambda x: tf.matmul(x, weights(32, 8))),
    "convolution": ((1, 9, 8, 6), lambda x: tf.nn.relu(tf.nn.conv2d(x, weights(3, 3, 6, 10), 1, "SAME"))),
    "dilated convolution": ((1, 9, 9, 6), lambda x: tf.nn.conv2d(x, weights(3, 2, 6, 7), 1, "VALID", dilations=2)),
    "1x1 convolution": ((1, 5, 5, 34), lambda x: tf.nn.conv2d(x, weights(1, 1, 34, 12), 2, "VALID")),
}


@pytest.mark.parametrize("layer", IN_INT4)
def test_a_dynamic_int4_layer_computes_alike_under_every_kernel(tmp_path, layer):
    shape, function = IN_INT4[layer]
    captured = captured_net(tmp_path, function, shape)
    convert(captured, tmp_path, "int8-dynamic", rules=(LayerRule(pattern="*", weight_bits=4),))
    path = tmp_path / "model.tflite"
    (stored,) = (t for t in read_model(path).subgraphs[0].tensors if dtype_name(t) == "int4")
    assert constant(read_model(path), stored).min() == -7, "the builtin kernel computes garbage of a -8"
    found = [answers(path, resolver, shape) for resolver in RESOLVERS]
    for each in found:
        assert decibels(answers(captured.float_tflite, shape=shape), each) > 15
        assert decibels(found[-1], each) > 35


def test_weights_that_are_not_finite_are_refused(tmp_path):
    captured = captured_net(tmp_path, lambda x: tf.matmul(x, np.nan * weights(6, 3)), (1, 6))
    with pytest.raises(BadInput, match="NaN"):
        convert(captured, tmp_path, "float16")


def test_one_file_mixes_integers_floats_and_what_lies_between(captured, tmp_path):
    """Rules by family: an INT8 net whose other layers are float16, dynamic, weight-only and float."""
    rules = (
        LayerRule(operators=("depthwise",), weight_bits=16),
        LayerRule(operators=("transposed-conv",), activations="dynamic"),
        LayerRule(operators=("linear",), weight_bits=4, activations="float"),
        LayerRule(operators=("BATCH_MATMUL",), weight_bits=32),
    )
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(3).normal(size=(32, *SHAPE[1:])).astype(np.float32))
    spec = spec_for_recipe("int8", rules=rules)
    lowered = lower(LowerRequest(captured=captured, spec=spec, folder=tmp_path, calibration=tmp_path / "data.npz"))
    assert {outcome.op: outcome.got for outcome in lowered.outcomes if outcome.op in OPERATORS} == {
        "CONV_2D": "int8 per-channel, int8 activations",
        "DEPTHWISE_CONV_2D": "float16 stored, float32 compute",
        "TRANSPOSE_CONV": "int8 per-channel, dynamic int8 activations",
        "FULLY_CONNECTED": "int4 per-channel stored, float32 compute",
    }
    for resolver in RESOLVERS:
        assert decibels(answers(captured.float_tflite), answers(tmp_path / "model.tflite", resolver)) > 12
