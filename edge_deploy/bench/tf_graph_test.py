import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from edge_deploy.bench.tf_graph import tf_function_of
from edge_deploy.core.errors import Unsupported

RNG = np.random.default_rng(0)


def _weights(*shape):
    return tf.constant(RNG.normal(size=shape).astype(np.float32))


def _file(folder, function):
    signature = [tf.TensorSpec((1, 8, 9, 3), tf.float32, name="x")]
    module = tf.Module()
    module.call = tf.function(lambda x: {"y": function(x)}, input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    (folder / "float.tflite").write_bytes(converter.convert())
    return folder / "float.tflite"


def _net(x):
    x = tf.nn.relu(tf.nn.conv2d(x, _weights(3, 3, 3, 4), 1, "SAME") + _weights(4))
    shortcut = tf.pad(x[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], [1, 1]])
    y = tf.nn.relu6(tf.nn.depthwise_conv2d(x, _weights(3, 3, 4, 1), [1, 2, 2, 1], "SAME") + _weights(4))
    y = tf.nn.conv2d(tf.nn.max_pool2d(y, 2, 1, "SAME"), _weights(1, 1, 4, 6), 1, "VALID")
    return tf.matmul(tf.reduce_mean(tf.nn.relu(y + shortcut), (1, 2)), _weights(6, 5)) + _weights(5)


def test_a_net_rebuilt_in_tensorflow_computes_what_its_file_computes(tmp_path):
    path = _file(tmp_path, _net)
    image = RNG.normal(size=(1, 8, 9, 3)).astype(np.float32)
    want = Interpreter(str(path)).get_signature_runner()(x=image)["y"]
    found = tf.function(tf_function_of(path))(tf.constant(image)).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_an_operator_of_other_nets_is_named(tmp_path):
    path = _file(tmp_path, tf.sin)
    with pytest.raises(Unsupported, match="SIN"):
        tf_function_of(path)(tf.zeros((1, 8, 9, 3)))
