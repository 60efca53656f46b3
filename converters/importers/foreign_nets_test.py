"""Whole nets of other kinds than classifiers are imported as they are; recurrent ones are refused by layer."""

import numpy as np
import pytest

from converters.contracts import CaptureRequest
from converters.importers.tflite_graph import import_module
from converters.sources import keras as source
from edge_deploy.core.errors import Unsupported

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")


def autoencoder(layers):
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="elu")(image)
    x = layers.Reshape((8, 8, 6))(layers.Dense(8 * 8 * 6)(layers.Dense(5)(layers.Flatten()(x))))
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(image, layers.Conv2D(3, 3, padding="same", activation="sigmoid")(x))


def signal_net(layers):
    signal = layers.Input((32, 6))
    x = layers.BatchNormalization()(layers.Conv1D(8, 5, padding="same", activation="relu")(signal))
    x = layers.MaxPooling1D(2)(x)
    x = layers.SeparableConv1D(8, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv1D(8, 3, dilation_rate=2, padding="causal")(layers.ZeroPadding1D(1)(x))
    x = layers.Conv1DTranspose(4, 4, strides=2, padding="same")(layers.Cropping1D(1)(x))
    return keras.Model(signal, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def segmentation(layers):
    image = layers.Input((16, 16, 3))
    wide = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    deep = layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="swish")(layers.MaxPooling2D(4)(wide))
    up = layers.Conv2DTranspose(6, 2, strides=2, padding="same")(deep)
    up = layers.LeakyReLU(0.1)(layers.UpSampling2D(2, interpolation="bilinear")(up))
    joined = layers.Concatenate()([up, wide])
    return keras.Model(image, layers.Conv2D(4, 1, activation="softmax")(joined))


def saved(build, path):
    keras.utils.set_random_seed(0)
    model = build(keras.layers)
    random = np.random.default_rng(0)
    model.set_weights([(np.abs(random.normal(0, 0.4, w.shape)) * 0.5 + 0.05).astype("float32") for w in model.weights])
    model.save(path)
    return model


@pytest.mark.parametrize("build", [autoencoder, signal_net, segmentation], ids=lambda build: build.__name__)
def test_the_imported_net_computes_what_keras_computes(build, tmp_path):
    model = saved(build, tmp_path / "net.keras")
    (tmp_path / "captured").mkdir()
    captured = source.capture(CaptureRequest(source=str(tmp_path / "net.keras")), tmp_path / "captured")
    module = import_module(captured.float_tflite)
    values = np.random.default_rng(1).random((1, *model.inputs[0].shape[1:]), dtype=np.float32)
    wanted = model(values).numpy()
    with torch.no_grad():
        made = module(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(made, wanted, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


def test_a_recurrent_layer_is_refused_by_its_name(tmp_path):
    def recurrent(layers):
        steps = layers.Input((6, 4))
        return keras.Model(steps, layers.Dense(3)(layers.LSTM(5, name="memory")(steps)))

    saved(recurrent, tmp_path / "net.keras")
    (tmp_path / "captured").mkdir()
    with pytest.raises(Unsupported, match="feed-forward") as caught:
        source.capture(CaptureRequest(source=str(tmp_path / "net.keras")), tmp_path / "captured")
    assert any("memory" in refusal.layer for refusal in caught.value.refusals)


def test_a_recurrent_layer_of_a_saved_model_is_refused_by_its_name(tmp_path):
    from converters.loading.saved_model import load_saved_model

    steps = keras.Input((6, 4))
    layers = keras.layers
    model = keras.Model(
        steps, layers.GRU(3, name="second")(layers.LSTM(5, return_sequences=True, name="memory")(steps))
    )
    model.export(tmp_path / "net", verbose=False)
    with pytest.raises(Unsupported, match="feed-forward") as caught:
        load_saved_model(tmp_path / "net")
    named = sorted(refusal.layer for refusal in caught.value.refusals)
    assert len(named) == 2 and "memory" in named[0] and "second" in named[1]


def test_a_recurrent_onnx_layer_is_refused_by_its_name(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from converters.loading.onnx_model import read_onnx, write_prepared

    random = np.random.default_rng(0)
    weights = {"W": random.random((1, 12, 4)), "R": random.random((1, 12, 3))}
    node = onnx.helper.make_node("LSTM", ["x", "W", "R"], ["y"], name="memory", hidden_size=3)
    value, number = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "net",
        [value("x", number, [6, 1, 4])],
        [value("y", number, [6, 1, 1, 3])],
        [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(Unsupported, match=r"layer memory \(LSTM\)"):
        write_prepared(tmp_path / "net.onnx", read_onnx(tmp_path / "net.onnx").inputs, tmp_path / "prepared.onnx")
