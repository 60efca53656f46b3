import numpy as np
import pytest

from converters.contracts import CaptureRequest
from converters.sources import keras as source
from converters.tflite.flatbuffer import op_name, read_model
from edge_deploy.core.errors import BadInput, Unsupported

keras = pytest.importorskip("keras")
litert = pytest.importorskip("ai_edge_litert.interpreter")


def _two_heads():
    layers = keras.layers
    image, extra = layers.Input((8, 8, 3), name="image"), layers.Input((4,), name="extra")
    x = layers.Conv2D(4, 3, use_bias=False, name="first")(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Concatenate()([layers.Flatten()(x), extra])
    return keras.Model(
        [image, extra], [layers.Dense(3, activation="softmax", name="kind")(x), layers.Dense(1, name="size")(x)]
    )


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """A model with two inputs and two outputs, captured for two batch sizes, and its feeds and answers."""
    folder = tmp_path_factory.mktemp("two-heads")
    keras.utils.set_random_seed(0)
    model = _two_heads()
    model.save(folder / "net.keras")
    got = source.capture(CaptureRequest(source=str(folder / "net.keras"), batches=(1, 4)), folder)
    generator = np.random.default_rng(0)
    feeds = {
        "image": generator.random((70, 8, 8, 3), dtype=np.float32),
        "extra": generator.random((70, 4), dtype=np.float32),
    }
    np.savez(folder / "feeds.npz", **feeds)
    source.run_float(got, folder / "feeds.npz", folder / "answers.npz")
    with np.load(folder / "answers.npz") as answers:
        return got, feeds, dict(answers), model


def test_inputs_and_outputs_are_described_as_keras_names_them(captured):
    got, _, _, _ = captured
    assert got.kind == "cnn"
    assert [(info.name, info.shape, info.layout) for info in got.inputs] == [
        ("image", (-1, 8, 8, 3), "NHWC"),
        ("extra", (-1, 4), None),
    ]
    assert [(info.name, info.shape, info.meaning) for info in got.outputs] == [
        ("kind", (-1, 3), "probability"),
        ("size", (-1, 1), None),
    ]
    assert any("loaded by keras 3" in note for note in got.notes)


def test_every_batch_size_has_a_signature_that_computes_the_same(captured):
    got, feeds, answers, _ = captured
    interpreter = litert.Interpreter(str(got.float_tflite))
    assert set(interpreter.get_signature_list()) == {"batch_1", "batch_4"}
    for batch in (1, 4):
        result = interpreter.get_signature_runner(f"batch_{batch}")(**{k: v[:batch] for k, v in feeds.items()})
        for name in ("kind", "size"):
            np.testing.assert_allclose(result[name], answers[name][:batch], atol=1e-5)


def test_signatures_share_the_weights(captured):
    got, _, _, model = captured
    parameters = sum(weight.size for weight in model.get_weights()) * 4
    assert got.float_tflite.stat().st_size < 1.5 * parameters + 16000


def test_the_float_run_answers_for_every_sample_in_order(captured):
    _, feeds, answers, model = captured
    expected = model.predict([feeds["image"], feeds["extra"]], verbose=0)
    np.testing.assert_allclose(answers["kind"], expected[0], atol=1e-5)
    np.testing.assert_allclose(answers["size"], expected[1], atol=1e-5)


def test_batch_normalization_is_folded_and_layers_bear_their_names(captured):
    got, _, _, _ = captured
    model = read_model(got.float_tflite)
    graph = model.subgraphs[0]
    names = {op_name(model, op): graph.tensors[op.outputs[0]].name.decode() for op in graph.operators}
    assert names["CONV_2D"] == "first"
    assert "MUL" not in names


def test_feeds_that_do_not_fit_are_refused_together(captured, tmp_path):
    got, _, _, _ = captured
    np.savez(tmp_path / "feeds.npz", image=np.zeros((2, 8, 8, 1), np.float32))
    with pytest.raises(BadInput) as caught:
        source.run_float(got, tmp_path / "feeds.npz", tmp_path / "answers.npz")
    assert "input image: samples of shape (8, 8, 1): must be (8, 8, 3)" in str(caught.value)
    assert "input extra: missing" in str(caught.value)


def _capture(model, folder, name="net.keras", **request):
    model.save(folder / name)
    return source.capture(CaptureRequest(source=str(folder / name), **request), folder)


def test_a_dynamic_image_size_needs_a_shape(tmp_path):
    layers = keras.layers
    image = layers.Input((None, None, 3), name="photo")
    model = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(image)))
    with pytest.raises(BadInput, match="input photo: dimension 1, 2 is dynamic"):
        _capture(model, tmp_path)
    got = _capture(model, tmp_path, shapes={"photo": (1, 9, 7, 3)})
    assert got.inputs[0].shape == (1, 9, 7, 3)


def test_weights_that_are_not_finite_are_named(tmp_path):
    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(2, name="head")])
    kernel = np.zeros((5, 2), np.float32)
    kernel[3, 1] = np.inf
    model.layers[0].set_weights([kernel, np.zeros(2)])
    with pytest.raises(BadInput, match=r"weight head/kernel: 1 of 10 values are NaN or infinite"):
        _capture(model, tmp_path)


def test_recurrent_layers_are_refused_by_name_and_class(tmp_path):
    model = keras.Sequential([keras.layers.Input((6, 4)), keras.layers.LSTM(3, name="memory")])
    with pytest.raises(Unsupported) as caught:
        _capture(model, tmp_path)
    assert [(refusal.layer, refusal.op) for refusal in caught.value.refusals] == [("memory", "LSTM")]


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_lambda_layers_are_refused_before_anything_is_loaded(tmp_path, name):
    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Lambda(lambda x: x * 2, name="twice")])
    with pytest.raises(Unsupported, match="layer twice"):
        _capture(model, tmp_path, name)


def test_custom_classes_are_refused_by_layer(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, x):
            return x * 2

    model = keras.Sequential([keras.layers.Input((5,)), Twice(name="twice")])
    with pytest.raises(Unsupported, match=r"layer twice \(Twice\): custom class"):
        _capture(model, tmp_path)


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_truncated_files_are_bad_input(tmp_path, name):
    path = tmp_path / name
    _two_heads().save(path)
    content = path.read_bytes()
    for part in (0.1, 0.5, 0.95):
        path.write_bytes(content[: int(len(content) * part)])
        request = CaptureRequest(source=str(path))
        assert not source.accepts(request) or name == "net.h5"
        with pytest.raises(BadInput, match="damaged"):
            source.capture(request, tmp_path)


def test_weights_without_a_model_are_told_apart(tmp_path):
    path = tmp_path / "net.weights.h5"
    _two_heads().save_weights(path)
    with pytest.raises(BadInput, match=r"save the whole model with model\.save"):
        source.capture(CaptureRequest(source=str(path)), tmp_path)


@pytest.mark.needs_data
def test_an_old_file_that_keras_3_refuses_is_loaded_by_tf_keras(data, tmp_path):
    path = data / "models/tinymaix_mnist/mnist_dw.h5"
    got = source.capture(CaptureRequest(source=str(path)), tmp_path)
    assert got.notes[0].startswith("loaded by tf_keras")
    assert "'groups'" in got.notes[0]
    x = np.random.default_rng(0).random((3, 28, 28, 1), dtype=np.float32)
    np.savez(tmp_path / "feeds.npz", **{got.inputs[0].name: x})
    source.run_float(got, tmp_path / "feeds.npz", tmp_path / "answers.npz")
    run = litert.Interpreter(str(got.float_tflite)).get_signature_runner("serving_default")
    with np.load(tmp_path / "answers.npz") as answers:
        for name, values in answers.items():
            np.testing.assert_allclose(run(**{got.inputs[0].name: x[:1]})[name], values[:1], atol=1e-5)
