"""Operators on INT16 activations: all kernel sets against float, and what has no such kernel refused by name."""

import numpy as np
import pytest

from converters.support import entries
from converters.tflite.calibrate import calibrate
from converters.tflite.flatbuffer import dtype_name, read_model, write_model
from converters.tflite.outcomes import precision_warnings
from converters.tflite.quantizer import prepare, quantize_static
from converters.tflite.signatures import describe
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe
from runtimes.formats.by_hand_test import OPS, TYPES, ByHand, schema
from runtimes.formats.tflite import read_facts, read_graph

interpreter = pytest.importorskip("ai_edge_litert.interpreter")
IMAGE = (1, 8, 8, 6)
SAMPLES = 8
RESOLVERS = (
    interpreter.OpResolverType.AUTO,
    interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    interpreter.OpResolverType.BUILTIN_REF,
)
RNG = np.random.default_rng(0)


def weights(*shape):
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def numbers(*values):
    return np.array(values, np.int32)


def options(name, **values):
    made = getattr(schema, f"{name}OptionsT")()
    for key, value in values.items():
        setattr(made, key, value)
    return made


WINDOW = {"padding": 0, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
POOL = {"padding": 1, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
PAIR = [IMAGE, IMAGE]
# Operator -> shapes of its inputs, constants behind them, shape of its output, options.
CASES = {
    "CONV_2D": ([IMAGE], [weights(5, 3, 3, 6), weights(5)], (1, 8, 8, 5), options("Conv2D", **WINDOW)),
    "DEPTHWISE_CONV_2D": (
        [IMAGE],
        [weights(1, 3, 3, 6), weights(6)],
        IMAGE,
        options("DepthwiseConv2D", depthMultiplier=1, **WINDOW),
    ),
    "FULLY_CONNECTED": ([(1, 10)], [weights(7, 10), weights(7)], (1, 7), options("FullyConnected")),
    "TRANSPOSE_CONV": (
        [IMAGE],
        [numbers(1, 16, 16, 5), weights(5, 3, 3, 6)],
        (1, 16, 16, 5),
        options("TransposeConv", padding=0, strideH=2, strideW=2),
    ),
    "ADD": (PAIR, [], IMAGE, options("Add")),
    "SUB": (PAIR, [], IMAGE, options("Sub")),
    "MUL": (PAIR, [], IMAGE, options("Mul")),
    "MAXIMUM": (PAIR, [], IMAGE, options("MaximumMinimum")),
    "MINIMUM": (PAIR, [], IMAGE, options("MaximumMinimum")),
    "AVERAGE_POOL_2D": ([IMAGE], [], (1, 4, 4, 6), options("Pool2D", **POOL)),
    "MAX_POOL_2D": ([IMAGE], [], (1, 4, 4, 6), options("Pool2D", **POOL)),
    "CONCATENATION": (PAIR, [], (1, 8, 8, 12), options("Concatenation", axis=3)),
    "RESHAPE": ([IMAGE], [numbers(1, 384)], (1, 384), options("Reshape", newShape=[1, 384])),
    "SQUEEZE": ([(1, 1, 8, 6)], [], (1, 8, 6), options("Squeeze", squeezeDims=[1])),
    "SLICE": ([IMAGE], [numbers(0, 1, 2, 0), numbers(1, 3, 4, 6)], (1, 3, 4, 6), options("Slice")),
    "MEAN": ([IMAGE], [numbers(1, 2)], (1, 6), options("Reducer")),
    "PAD": ([IMAGE], [np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)], (1, 10, 10, 6), options("Pad")),
    "TRANSPOSE": ([IMAGE], [numbers(0, 3, 1, 2)], (1, 6, 8, 8), options("Transpose")),
    "SOFTMAX": ([(1, 10)], [], (1, 10), options("Softmax", beta=1.0)),
    "LEAKY_RELU": ([IMAGE], [], IMAGE, options("LeakyRelu", alpha=0.1)),
    **{name: ([IMAGE], [], IMAGE, None) for name in ("LOGISTIC", "TANH", "RELU", "RELU6", "ABS")},
}
# These need a converter to be written; "quantizer_operators_test.py" tries them.
TRIED_ELSEWHERE = {
    "PADV2", "MIRROR_PAD", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "PACK", "UNPACK", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "REDUCE_MAX", "REDUCE_MIN", "BROADCAST_TO",
    "TILE", "BATCH_MATMUL", "GELU", "EXP", "RSQRT", "SQRT", "EXPAND_DIMS",
}  # fmt: skip
WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def float_file(operator, path):
    shapes, constants, result, chosen = CASES.get(operator, ([IMAGE], [], IMAGE, None))
    hand = ByHand()
    inputs = [hand.tensor(f"x{number}", list(shape)) for number, shape in enumerate(shapes)]
    stored = [
        hand.tensor(f"c{number}", list(each.shape), TYPES.INT32 if each.dtype == np.int32 else TYPES.FLOAT32, data=each)
        for number, each in enumerate(constants)
    ]
    made, last = hand.tensor("made", list(result)), hand.tensor("y", list(result))
    order = [*stored, *inputs] if operator == "TRANSPOSE_CONV" else [*inputs, *stored]
    hand.operator(getattr(OPS, operator), order, [made], chosen)
    factor = hand.tensor("factor", [1], data=np.array([1.5], np.float32))
    hand.operator(OPS.MUL, [made, factor], [last], options("Mul"))
    hand.signature("serving_default", {f"x{number}": index for number, index in enumerate(inputs)}, {"y": last})
    return hand.write(path)


def quantized(path, *rules, **changes):
    model = prepare(path)
    prepared = path.with_name("prepared.tflite")
    write_model(model, prepared)
    signature = describe(model, (), ())[0]
    rng = np.random.default_rng(1)
    samples = {i.name: (2 * rng.standard_normal((SAMPLES, *i.shape[1:]))).astype(np.float32) for i in signature.inputs}
    spec = spec_for_recipe("int16x8", range_method="min-max", rules=rules, **changes)
    found = calibrate(prepared, samples, signature.inputs, spec)
    made = quantize_static(model, spec, found.ranges, means=found.means)
    write_model(made.model, path.with_name("int16.tflite"))
    return path.with_name("int16.tflite"), samples


def run(path, samples, resolver):
    made = interpreter.Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1)
    runner = made.get_signature_runner()
    return np.stack([runner(**{k: v[i : i + 1] for k, v in samples.items()})["y"] for i in range(SAMPLES)])


@pytest.mark.parametrize("operator", CASES)
def test_an_operator_on_int16_computes_what_it_computes_in_float(operator, tmp_path):
    path = float_file(operator, tmp_path / "float.tflite")
    written, samples = quantized(path)
    fact = next(fact for fact in read_facts(written) if fact.op == operator)
    assert fact.activation_dtype == "int16"
    assert (fact.weight_dtype == "int8") == (operator in WITH_WEIGHTS)
    reference = run(path, samples, RESOLVERS[2])
    for resolver in RESOLVERS:
        error = np.sum((reference - run(written, samples, resolver)) ** 2)
        # INT8 weights alone cost their 40 dB; without weights INT16 rounds like 16 bits.
        assert 10 * np.log10(np.sum(reference**2) / max(error, 1e-30)) > (38 if operator in WITH_WEIGHTS else 70)


def test_biases_have_64_bits_and_activations_no_zero_point(tmp_path):
    written, _ = quantized(float_file("FULLY_CONNECTED", tmp_path / "float.tflite"))
    tensors = read_model(written).subgraphs[0].tensors
    assert {"int64", "int16", "int8"} <= {dtype_name(tensor) for tensor in tensors}
    for tensor in tensors:
        if tensor.quantization is not None and tensor.quantization.zeroPoint is not None:
            assert not np.any(tensor.quantization.zeroPoint)


def test_every_native_operator_of_the_support_table_is_tried_here():
    native = {e.operator for e in entries("tflite") if e.recipe == "int16x8" and e.status == "native"}
    assert native == set(CASES) | TRIED_ELSEWHERE


def test_what_has_no_int16_kernel_is_refused_by_name_or_stays_in_float_on_wish(tmp_path):
    path = float_file("HARD_SWISH", tmp_path / "float.tflite")
    with pytest.raises(Unsupported, match=r"made \(HARD_SWISH\): has no INT16 form.*--fallback float32"):
        quantized(path)
    written, samples = quantized(path, fallback_bits=32)
    assert np.isfinite(run(written, samples, RESOLVERS[0])).all()


def test_int16_beside_int8_activations_is_refused_by_name(tmp_path):
    path = float_file("FULLY_CONNECTED", tmp_path / "float.tflite")
    with pytest.raises(Unsupported, match="not both"):
        quantized(path, LayerRule(pattern="made", activations="int8"))


def test_the_artifact_says_that_phones_run_it_slowly(tmp_path):
    written, _ = quantized(float_file("FULLY_CONNECTED", tmp_path / "float.tflite"))
    assert any("INT16" in warning for warning in precision_warnings(read_facts(written), read_graph(written)))
