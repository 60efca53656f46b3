"""Whole networks: our INT8 file against the stock TensorFlow converter's and ai-edge-quantizer's, same calibration."""

import contextlib
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters.contracts import Captured, LowerRequest
from converters.targets.tflite import lower
from converters.tflite.flatbuffer import op_name, read_model
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

CALIBRATION, EVALUATION = 40, 60
SHAPE = (24, 24, 3)
L = keras.layers


def _conv(x, filters, *, stride=1, size=3, activation="relu6"):
    x = L.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
    x = L.BatchNormalization()(x)
    return L.Activation(activation)(x) if activation else x


def _residual():
    x = start = L.Input(SHAPE, name="image")
    x = _conv(x, 8, activation="relu")
    for filters in (8, 16):
        short = _conv(x, filters, stride=2, size=1, activation=None)
        y = _conv(_conv(x, filters, stride=2, activation="relu"), filters, activation=None)
        x = L.Activation("relu")(L.Add()([short, y]))
    x = L.Flatten()(L.AveragePooling2D(2)(x))
    return keras.Model(start, L.Dense(10, activation="softmax", name="answer")(x))


def _mobile():
    x = start = L.Input(SHAPE, name="image")
    x = _conv(x, 8, stride=2)
    for filters, stride in ((12, 1), (24, 2), (24, 1)):
        entry = x
        x = _conv(x, 3 * x.shape[-1], size=1)
        x = L.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x)
        x = L.Activation("relu6")(L.BatchNormalization()(x))
        x = _conv(x, filters, size=1, activation=None)
        if entry.shape == x.shape:
            x = L.Add()([entry, x])
    x = L.GlobalAveragePooling2D()(x)
    gate = L.Dense(x.shape[-1], activation="sigmoid")(x)
    return keras.Model(start, L.Dense(10, name="answer")(L.Multiply()([x, gate])))


def _dense():
    x = start = L.Input(SHAPE, name="image")
    x = _conv(x, 8, stride=2, activation="relu")
    for _ in range(3):
        y = L.Activation("relu")(L.BatchNormalization()(x))
        x = L.Concatenate()([x, _conv(y, 6, activation=None)])
    x = L.MaxPooling2D(2)(x)
    x = L.GlobalAveragePooling2D()(_conv(x, 16, size=1, activation="relu"))
    return keras.Model(start, L.Dense(10, activation="softmax", name="answer")(x))


NETWORKS = {"residual": _residual, "mobile": _mobile, "dense": _dense}


def _images(count, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (count, 6, 6, 3)) * rng.uniform(0.5, 2, (count, 1, 1, 1))
    return np.repeat(np.repeat(coarse, 4, 1), 4, 2).astype(np.float32) + rng.normal(0, 0.1, (count, *SHAPE)).astype("f")


def _settled(build):
    """The network with weights and batch statistics of ordinary size, as training would leave them."""
    keras.utils.set_random_seed(3)
    model = build()
    rng = np.random.default_rng(4)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            size = layer.gamma.shape
            layer.gamma.assign(rng.uniform(0.5, 1.5, size))
            layer.beta.assign(rng.normal(0, 0.3, size))
    model.compile("sgd", "mse")
    images = _images(128, 0)
    for _ in range(8):  # lets the batch statistics settle
        model(images, training=True)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    last = model.get_layer("answer")
    last.kernel.assign(last.kernel * 3)
    return model


def _converted(model, calibration=None):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with contextlib.redirect_stdout(io.StringIO()):
        return converter.convert()


def _aeq(float_file, calibration, path):
    from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    static = recipe.static_wi8_ai8()
    key, input_name = "serving_default", "image"
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(static)
    with contextlib.redirect_stdout(io.StringIO()):
        # Its default is a moving average, and a generator silently gives empty statistics: min-max over a list.
        found = calibrator.Calibrator(str(float_file), qsv_update_func=qsv_utils.min_max_update)
        found.calibrate({key: [{input_name: image[None]} for image in calibration]}, manager)
        result = quantizer.Quantizer(str(float_file), static).quantize(found.get_model_qsvs())
        result.export_model(str(path), overwrite=True)


class _Peers:
    def __init__(self, folder, build):
        model = _settled(build)
        self.folder, self.calibration, self.images = folder, _images(CALIBRATION, 1), _images(EVALUATION, 2)
        self.float_file = folder / "float.tflite"
        self.float_file.write_bytes(_converted(model))
        (folder / "tensorflow.tflite").write_bytes(_converted(model, self.calibration))
        _aeq(self.float_file, self.calibration, folder / "aeq.tflite")
        np.savez(folder / "calibration.npz", image=self.calibration)
        self.captured = Captured(
            name="net",
            framework="keras",
            kind="cnn",
            folder=folder,
            inputs=(TensorInfo(name="image", shape=(1, *SHAPE), dtype="float32", layout="NHWC"),),
            outputs=(TensorInfo(name="answer", shape=(1, 10), dtype="float32"),),
            float_tflite=self.float_file,
        )

    def lower(self, recipe, **changes):
        folder = self.folder / f"{recipe}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        spec = spec_for_recipe(recipe, **changes)
        request = LowerRequest(
            captured=self.captured, spec=spec, folder=folder, calibration=self.folder / "calibration.npz"
        )
        return folder / "model.tflite", lower(request)

    def decibels(self, path, resolver=OpResolverType.AUTO):
        reference, found = self._answers(self.float_file, OpResolverType.AUTO), self._answers(path, resolver)
        return 10 * np.log10(np.sum(reference**2) / np.sum((reference - found) ** 2))

    def _answers(self, path, resolver):
        interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1)
        runner = interpreter.get_signature_runner()
        (wanted,) = runner.get_input_details().values()
        (given,) = runner.get_output_details().values()
        answers = []
        for image in self.images:
            image = image[None]
            if wanted["dtype"] == np.int8:  # ai-edge-quantizer's border
                scale, zero_point = wanted["quantization"]
                image = np.clip(np.rint(image / scale) + zero_point, -128, 127).astype(np.int8)
            (answer,) = runner(image=image).values()
            if given["dtype"] == np.int8:
                scale, zero_point = given["quantization"]
                answer = (answer.astype(np.float32) - zero_point) * scale
            answers.append(answer)
        return np.concatenate(answers)


@pytest.fixture(scope="module", params=NETWORKS)
def peers(request, tmp_path_factory):
    return _Peers(tmp_path_factory.mktemp(request.param), NETWORKS[request.param])


def test_int8_is_as_close_to_float_as_the_stock_quantizers(peers):
    path, lowered = peers.lower("int8")
    ours = {kernels: peers.decibels(path, kernels) for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF)}
    for kernels, own in ours.items():
        for peer in ("tensorflow", "aeq"):
            theirs = peers.decibels(peers.folder / f"{peer}.tflite", kernels)
            assert own > theirs - 1
    assert all(outcome.got.startswith("int8 per-channel") for outcome in lowered.outcomes)


def test_nothing_is_requantized_between_the_input_and_the_output(peers):
    path, _ = peers.lower("int8")
    kinds, stock = _operators(path), _operators(peers.folder / "tensorflow.tflite")
    assert kinds.count("QUANTIZE") == 1 and kinds.count("DEQUANTIZE") == 1
    assert len(kinds) <= len(stock)


def _operators(path):
    model = read_model(path)
    return [op_name(model, operator) for operator in model.subgraphs[0].operators]


def test_int4_weights_take_half_a_byte_and_the_file_runs_on_all_kernels(peers):
    path, lowered = peers.lower("int4")
    assert {round(outcome.weight_bits) for outcome in lowered.outcomes} == {4}
    decibels = [peers.decibels(path, kernels) for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF)]
    assert min(decibels) > 3
    assert any("XNNPACK does not run INT4 convolutions" in warning for warning in lowered.warnings)


def test_layers_keep_their_names_across_precisions(peers):
    names = [[outcome.layer for outcome in peers.lower(recipe)[1].outcomes] for recipe in ("float32", "int8", "int4")]
    assert names[0] == names[1] == names[2]


def test_a_rule_gives_some_layers_another_width(peers):
    first = peers.lower("int4")[1].outcomes
    rules = (LayerRule(pattern=first[0].layer, weight_bits=8), LayerRule(pattern=first[-1].layer, weight_bits=32))
    path, lowered = peers.lower("int4", rules=rules)
    widths = [round(outcome.weight_bits) for outcome in lowered.outcomes]
    assert widths[0] == 8 and widths[-1] == 32 and set(widths[1:-1]) == {4}
    assert np.isfinite(peers.decibels(path))


def test_int8_inputs_and_outputs_on_wish(peers):
    path, lowered = peers.lower("int8", io="int8")
    (signature,) = lowered.signatures
    assert {info.dtype for info in (*signature.inputs, *signature.outputs)} == {"int8"}
    assert all(len(info.scale) == 1 for info in (*signature.inputs, *signature.outputs))
    assert not set(_operators(path)) & {"QUANTIZE", "DEQUANTIZE"}
    assert peers.decibels(path) > peers.decibels(peers.folder / "aeq.tflite") - 1


@pytest.mark.parametrize("ranges", [{"range_method": "percentile", "percentile": 99.9}, {"range_method": "mse"}])
def test_clipped_ranges_are_finite_and_clip(peers, ranges):
    path, _ = peers.lower("int8", **ranges)
    assert peers.decibels(path) > 15


def test_buffers_stand_inside_the_flatbuffer_for_microcontrollers(peers):
    for recipe in ("float32", "int8"):
        path, _ = peers.lower(recipe)
        data = path.read_bytes()
        root = schema_py_generated.Model.GetRootAs(data, 0)
        assert all(root.Buffers(index).Offset() == 0 for index in range(root.BuffersLength()))
