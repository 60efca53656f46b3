import numpy as np
import pytest
import tensorflow as tf

from converters.tflite.calibrate import calibrate
from converters.tflite.flatbuffer import constant, dtype_name, op_name, read_model, write_model
from converters.tflite.patches import as_rows, as_weights
from converters.tflite.quantizer import prepare, quantize_static
from converters.tflite.quantizer_test import _dense, _file
from converters.tflite.signatures import describe
from converters.tflite.structure import views
from edge_deploy.core.quant_spec import spec_for_recipe

RNG = np.random.default_rng(0)


def _weights(*shape):
    return tf.constant(RNG.normal(size=shape).astype(np.float32))


CASES = {
    "same": lambda x: tf.nn.conv2d(x, _weights(3, 3, 6, 5), 1, "SAME"),
    "same, strided, odd": lambda x: tf.nn.conv2d(x[:, :7], _weights(5, 2, 6, 4), 2, "SAME"),
    "valid, dilated": lambda x: tf.nn.conv2d(x, _weights(3, 3, 6, 4), 1, "VALID", dilations=2),
    "groups": lambda x: tf.nn.conv2d(x, _weights(3, 3, 3, 4), 1, "SAME"),
    "depthwise": lambda x: tf.nn.depthwise_conv2d(x, _weights(3, 3, 6, 2), [1, 2, 2, 1], "SAME"),
    "dense": lambda x: tf.matmul(tf.reshape(x[:, :2, :2], (-1, 24)), _weights(24, 3)),
}


@pytest.fixture(params=CASES, scope="module")
def case(request, tmp_path_factory):
    """A float file of one layer, calibration images that are alike nearby, and what they say of it."""
    folder = tmp_path_factory.mktemp("patches")
    module = tf.Module()
    signature = [tf.TensorSpec((1, 8, 8, 6), tf.float32, name="x")]
    module.call = tf.function(lambda x: {"y": CASES[request.param](x)}, input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    (folder / "float.tflite").write_bytes(converter.convert())
    model = prepare(folder / "float.tflite")
    write_model(model, folder / "prepared.tflite")
    images = RNG.normal(size=(400, 8, 8, 6)).cumsum(axis=1).cumsum(axis=2).astype(np.float32)
    found = calibrate(
        folder / "prepared.tflite", {"x": images}, describe(model, (), ())[0].inputs, spec_for_recipe("int8")
    )
    return folder, images, found


def test_the_covariance_of_patches_tells_the_variance_of_outputs(case):
    folder, images, found = case
    view = views(read_model(folder / "prepared.tflite"))[0]
    node = next(node for node in view.nodes if node.key in found.covariances)
    (covariance,) = found.covariances[node.key]
    weights = view.values(node.inputs[1])
    rows = as_rows(node.kind, weights, len(covariance))
    np.testing.assert_array_equal(as_weights(node.kind, rows, weights.shape), weights)
    told = np.einsum("goi,gij,goj->go", rows, covariance, rows).reshape(-1)
    runner = tf.lite.Interpreter(str(folder / "prepared.tflite")).get_signature_runner()
    shown = np.concatenate([runner(x=image[None])["y"] for image in images]).reshape(-1, told.size).var(axis=0)
    assert "CONV" not in node.kind or op_name(view.model, node.operator) == node.kind
    np.testing.assert_allclose(told, shown, rtol=0.25)  # some patches of every image, not all


def test_int4_outputs_err_less_than_with_weights_rounded_to_the_nearest(case):
    folder, images, found = case
    errors = {}
    want = None
    for name, covariances in (("nearest", {}), ("compensated", found.covariances)):
        quantized = quantize_static(
            prepare(folder / "float.tflite"),
            spec_for_recipe("int4", fallback_bits=8),
            found.ranges,
            means=found.means,
            covariances=covariances,
        )
        write_model(quantized.model, folder / f"{name}.tflite")
        answers = [
            np.concatenate([runner(x=image[None])["y"] for image in images[:100]])
            for runner in (
                tf.lite.Interpreter(str(folder / file)).get_signature_runner()
                for file in ("prepared.tflite", f"{name}.tflite")
            )
        ]
        want = answers[0]
        errors[name] = float(np.square(answers[1] - want).mean())
    assert errors["compensated"] < 0.8 * errors["nearest"]


def test_a_layer_at_several_batch_sizes_still_shares_its_weights(tmp_path):
    weight = RNG.normal(size=(6, 8)).astype(np.float32)
    path = _file(tmp_path / "f.tflite", lambda graph, x: _dense(graph, x, weight, np.ones(6), "dense"), batches=(1, 4))
    model, spec = prepare(path), spec_for_recipe("int4")
    samples = {"x": RNG.normal(size=(50, 8)).cumsum(axis=1).astype(np.float32)}
    found = calibrate(path, samples, describe(model, (), ())[0].inputs, spec)
    quantized = quantize_static(model, spec, found.ranges, means=found.means, covariances=found.covariances)
    buffers = [
        {int(t.buffer) for t in graph.tensors if t.name == b"dense/weight"} for graph in quantized.model.subgraphs
    ]
    assert buffers[0] == buffers[1] and len(buffers[0]) == 1


def test_a_layer_that_may_have_one_scale_only_gets_one(tmp_path):
    weight = RNG.normal(size=(6, 8)).astype(np.float32)
    path = _file(tmp_path / "f.tflite", lambda graph, x: _dense(graph, x, weight, np.ones(6), "dense"))
    model, spec = prepare(path), spec_for_recipe("int4", for_device="mcu")
    samples = {"x": RNG.normal(size=(50, 8)).cumsum(axis=1).astype(np.float32)}
    found = calibrate(path, samples, describe(model, (), ())[0].inputs, spec)
    quantized = quantize_static(model, spec, found.ranges, means=found.means, covariances=found.covariances)
    (stored,) = [t for t in quantized.model.subgraphs[0].tensors if t.name == b"dense/weight" and t.quantization]
    assert len(stored.quantization.scale) == 1
    errors = constant(quantized.model, stored) * float(stored.quantization.scale[0]) - weight
    assert np.abs(errors).max() < 3 * stored.quantization.scale[0]


def test_two_layers_that_share_weights_are_rounded_for_what_both_read(tmp_path):
    weight = RNG.normal(size=(8, 8)).astype(np.float32)

    def build(graph, x):
        bias = np.ones(8)
        return _dense(graph, _dense(graph, x, weight, bias, "one"), weight, bias, "two")

    path = _file(tmp_path / "f.tflite", build)
    model, spec = prepare(path), spec_for_recipe("int4")
    samples = {"x": RNG.normal(size=(50, 8)).cumsum(axis=1).astype(np.float32)}
    found = calibrate(path, samples, describe(model, (), ())[0].inputs, spec)
    quantized = quantize_static(model, spec, found.ranges, means=found.means, covariances=found.covariances)
    packed = [t for t in quantized.model.subgraphs[0].tensors if dtype_name(t) == "int4"]
    assert len(packed) == 2 and packed[0].buffer == packed[1].buffer
