"""The eight CNNs of the adaptive-DNN study (McNamee et al., IEEE CLOUD 2021) as Keras graphs with random weights.

MobileNet, DenseNet121, the ResNets and the VGGs come from Keras; LeNet and AlexNet are chains of the layers that the
study names. All have one image in and 1000 classes out.
"""

from __future__ import annotations

from typing import Any

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

__all__ = ["NETS", "PUBLISHED_CUTS", "build_net"]

# By name: the class of keras.applications; empty where it is a chain of layers of our own.
NETS = {
    "lenet": "",
    "alexnet": "",
    "mobilenet": "MobileNet",
    "densenet121": "DenseNet121",
    "resnet50": "ResNet50",
    "resnet50v2": "ResNet50V2",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
}
PUBLISHED_CUTS = {
    "lenet": 10,
    "alexnet": 24,
    "mobilenet": 92,
    "densenet121": 22,
    "resnet50": 23,
    "resnet50v2": 16,
    "vgg16": 22,
    "vgg19": 25,
}


def build_net(name: str, *, seed: int = 0) -> Any:
    """A `keras.Model` with random weights, image of 224 x 224 x 3 (LeNet: 28 x 28 x 1), batch 1.

    Raises:
        BadInput: No net of this name.
        MissingExtra: Keras is not installed.
    """
    if name not in NETS:
        raise BadInput(f"net {name}: unknown; known: {', '.join(NETS)}.")
    keras = require("keras", extra="export-tflite")
    keras.utils.set_random_seed(seed)
    if NETS[name]:
        image = keras.Input(batch_shape=(1, 224, 224, 3), name="image")
        return getattr(keras.applications, NETS[name])(weights=None, input_tensor=image)
    return _lenet(keras) if name == "lenet" else _alexnet(keras)


def _lenet(keras: Any) -> Any:
    layers = keras.layers
    chain = []
    for filters in (20, 50):
        chain += [layers.Conv2D(filters, 5, padding="same"), layers.Activation("relu"), layers.MaxPooling2D(2)]
    chain += [layers.Flatten(), layers.Dense(500), layers.Activation("relu")]
    chain += [layers.Dense(1000), layers.Activation("softmax")]
    return _chained(keras, chain, (28, 28, 1), "lenet")


def _alexnet(keras: Any) -> Any:
    layers = keras.layers
    chain = []
    # Filters, kernel, stride, and whether a pooling follows. The second kernel is 11 wide in the study, not 5.
    convolutions = ((96, 11, 4, True), (256, 11, 1, True), (384, 3, 1, False), (384, 3, 1, False), (256, 3, 1, True))
    for filters, kernel, stride, pooled in convolutions:
        chain += [layers.Conv2D(filters, kernel, strides=stride), layers.Activation("relu")]
        chain += [layers.MaxPooling2D(2)] if pooled else []
    chain.append(layers.Flatten())
    for units in (4096, 4096, 1000):
        chain += [layers.Dense(units), layers.Activation("relu"), layers.Dropout(0.4)]
    chain += [layers.Dense(1000), layers.Activation("softmax")]
    return _chained(keras, chain, (224, 224, 3), "alexnet")


def _chained(keras: Any, chain: list[Any], shape: tuple[int, int, int], name: str) -> Any:
    image = keras.Input(batch_shape=(1, *shape), name="image")
    tensor = image
    for layer in chain:
        tensor = layer(tensor)
    return keras.Model(image, tensor, name=name)
