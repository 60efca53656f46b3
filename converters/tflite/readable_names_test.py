import pytest

from converters.tflite.readable_names import layer_name


@pytest.mark.parametrize(
    ("raw", "op", "name"),
    [
        (
            "net/relu_1/Relu;net/bn_1/batchnorm/add_1;net/conv2d_1/Squeeze;net/conv2d_1/convolution",
            "CONV_2D",
            "conv2d_1",
        ),
        ("net/bn/batchnorm/add_1;net/dw/depthwise;net/pw/Conv2D", "DEPTHWISE_CONV_2D", "dw"),
        ("net/block_1/dense/MatMul;net/block_1/dense/BiasAdd", "FULLY_CONNECTED", "block_1/dense"),
        ("net/add_3/Add", "ADD", "add_3"),
        ("StatefulPartitionedCall:0", "SOFTMAX", "softmax"),
        ("net/fc_1/MatMul", "FULLY_CONNECTED", "fc"),
        ("net/conv2d_1_1/convolution", "CONV_2D", "conv2d_1"),
        ("scores", "SOFTMAX", "scores"),
    ],
)
def test_a_layer_is_named_after_what_carries_its_weights(raw, op, name):
    assert layer_name(raw, op, root="net", layers=("conv2d_1", "fc")) == name
