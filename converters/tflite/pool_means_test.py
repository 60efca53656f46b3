"""The last pooling of a net: small means of large pixels."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters.tflite.calibrate import calibrate
from converters.tflite.flatbuffer import op_name, read_model, write_model
from converters.tflite.quantizer import prepare, quantize_static
from converters.tflite.signatures import describe
from edge_deploy.core.quant_spec import spec_for_recipe

KERNELS = (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF)


def _float_file(folder, function, shape):
    module = tf.Module()
    signature = [tf.TensorSpec(shape, tf.float32, name="x")]
    module.call = tf.function(lambda x: {"y": function(x)}, input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    path = folder / "float.tflite"
    path.write_bytes(converter.convert())
    return path


def _operators(path):
    model = read_model(path)
    return [op_name(model, operator) for operator in model.subgraphs[0].operators]


def _prepared(folder, function, shape=(1, 8, 6, 5)):
    path = folder / "prepared.tflite"
    write_model(prepare(_float_file(folder, function, shape)), path)
    return path


def _answers(path, images, kernels):
    runner = Interpreter(str(path), experimental_op_resolver_type=kernels).get_signature_runner()
    return np.concatenate([runner(x=image[None])["y"] for image in images])


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_the_mean_of_an_image_keeps_its_bits_under_every_kernel(padding, tmp_path):
    # The means of these images are ten times smaller than their pixels.
    prepared = _prepared(tmp_path, lambda x: tf.nn.avg_pool2d(x, (8, 6), (8, 6), padding))
    assert _operators(tmp_path / "float.tflite") == ["AVERAGE_POOL_2D"]
    assert _operators(prepared) == ["MEAN"]
    images = np.random.default_rng(0).normal(size=(40, 8, 6, 5)).astype(np.float32)
    want = _answers(tmp_path / "float.tflite", images, OpResolverType.BUILTIN_REF)
    np.testing.assert_allclose(_answers(prepared, images, OpResolverType.AUTO), want, atol=1e-6)
    model, spec = prepare(tmp_path / "float.tflite"), spec_for_recipe("int8")
    found = calibrate(prepared, {"x": images}, describe(model, (), ())[0].inputs, spec)
    written = tmp_path / "int8.tflite"
    write_model(quantize_static(model, spec, found.ranges).model, written)
    assert _operators(written) == ["QUANTIZE", "MEAN", "DEQUANTIZE"]
    for kernels in KERNELS:
        errors = _answers(written, images, kernels) - want
        # A pooling that shares its input's scale cannot do better than that scale's half step, six times this.
        assert np.abs(errors).max() < 0.01 * np.abs(want).max() + 0.1 * np.ptp(images) / 255


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
        lambda x: tf.nn.avg_pool2d(x, (8, 5), 1, "VALID"),
        lambda x: tf.nn.relu(tf.nn.avg_pool2d(x, (8, 6), 1, "VALID")),
    ],
    ids=["of parts", "of two windows", "with an activation"],
)
def test_other_poolings_stay_what_they_are(function, tmp_path):
    prepared = _prepared(tmp_path, function)
    assert "AVERAGE_POOL_2D" in _operators(prepared) and "MEAN" not in _operators(prepared)
