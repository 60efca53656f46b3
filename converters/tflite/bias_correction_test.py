import numpy as np
import pytest
import tensorflow as tf

from converters.quantize.uniform import Affine
from converters.tflite.bias_correction import mean_shift
from converters.tflite.flatbuffer import constant
from converters.tflite.quantizer import prepare, quantize_static
from converters.tflite.quantizer_test import WEIGHT, _dense, _file, _quantize, _run  # a graph of one layer, run and all
from edge_deploy.core.quant_spec import spec_for_recipe

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_shift_of_a_convolution_is_what_constant_images_show(groups):
    error = RNG.normal(size=(6, 3, 3, 4 // groups))
    mean = RNG.normal(size=4)
    image = np.broadcast_to(mean, (1, 5, 5, 4))
    shown = tf.nn.conv2d(image, error.transpose(1, 2, 3, 0), 1, "VALID").numpy()[0, 0, 0]
    np.testing.assert_allclose(mean_shift("CONV_2D", error, mean), shown, atol=1e-9)


@pytest.mark.parametrize("multiplier", [1, 3])
def test_the_shift_of_a_depthwise_convolution_is_what_constant_images_show(multiplier):
    error = RNG.normal(size=(1, 3, 3, 4 * multiplier))
    mean = RNG.normal(size=4)
    image = np.broadcast_to(mean, (1, 5, 5, 4))
    shown = tf.nn.depthwise_conv2d(image, error[0].reshape(3, 3, 4, multiplier), [1, 1, 1, 1], "VALID").numpy()[0, 0, 0]
    np.testing.assert_allclose(mean_shift("DEPTHWISE_CONV_2D", error, mean), shown, atol=1e-9)


def test_int4_outputs_keep_their_mean(tmp_path):
    path = _file(tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, WEIGHT, None, "dense"))
    samples = np.random.default_rng(1).uniform(0, 2, (400, 8)).astype(np.float32)
    written, _ = _quantize(path, "int4", samples=samples)
    reference = np.concatenate([_run(path, row[None]) for row in samples])
    found = np.concatenate([_run(written, row[None]) for row in samples])
    assert np.abs((found - reference).mean(0)).max() < 0.01
    assert np.abs(found - reference).mean() > 0.02


def test_layers_with_learned_weight_scales_keep_scales_and_bias(tmp_path):
    path = _file(tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, WEIGHT, np.ones(6), "dense"))
    learned = np.linspace(0.01, 0.06, 6).astype(np.float32)
    quantized = quantize_static(
        prepare(path),
        spec_for_recipe("int4"),
        {},
        means={(0, 0, 8): np.full(8, 5.0)},
        learned={"x": Affine(scale=0.01, zero_point=0), "dense": Affine(scale=0.02, zero_point=0)},
        learned_weights={"dense": learned},
    )
    tensors = {t.name.decode(): t for t in quantized.model.subgraphs[0].tensors}
    np.testing.assert_array_equal(tensors["dense/weight"].quantization.scale, learned)
    bias = constant(quantized.model, tensors["dense/bias"]) * np.asarray(tensors["dense/bias"].quantization.scale)
    np.testing.assert_allclose(bias, 1, atol=1e-3)
