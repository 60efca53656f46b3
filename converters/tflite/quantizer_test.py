"""The quantizer on small graphs made by hand: what its kernels cannot forgive."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters.quantize.uniform import Affine
from converters.tflite.calibrate import calibrate
from converters.tflite.emit import Emitter
from converters.tflite.flatbuffer import constant, dtype_name, op_name, tensor_name, write_model
from converters.tflite.plan import choose
from converters.tflite.quantizer import prepare, quantize_static
from converters.tflite.signatures import describe
from converters.tflite.structure import views
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.quant_spec import spec_for_recipe
from runtimes.formats.tflite_lint import lint

KERNELS = (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF)
WEIGHT = (np.random.default_rng(0).normal(size=(6, 8)) / 3).astype(np.float32)


def _dense(graph, x, weight, bias, name):
    out = graph.tensor(name, (graph.shape(x)[0], weight.shape[0]))
    constants = [graph.values(f"{name}/weight", weight.astype(np.float32))]
    if bias is not None:
        constants.append(graph.values(f"{name}/bias", np.asarray(bias, np.float32)))
    graph.op("FULLY_CONNECTED", [x, *constants], [out], "FullyConnectedOptions")
    return out


def _like(graph, op, inputs, name, options=None, shape=None, **values):
    out = graph.tensor(name, graph.shape(inputs[0]) if shape is None else shape)
    graph.op(op, inputs, [out], options, **values)
    return out


def _file(path, build, batches=(1,), width=8):
    emitter = Emitter("test")
    for batch in batches:
        graph = emitter.graph(f"batch_{batch}")
        x = graph.tensor("x", (batch, width))
        graph.sign(f"batch_{batch}", {"x": x}, {"y": build(graph, x)})
    emitter.write(path)
    write_model(prepare(path), path)
    return path


def _quantize(path, recipe="int8", *, samples=None, learned=None, **changes):
    spec = spec_for_recipe(recipe, **changes)
    model = prepare(path)
    sources = describe(model, (), ())[0].inputs
    samples = (
        np.random.default_rng(1).uniform(-1, 1, (400, *sources[0].shape[1:])).astype(np.float32)
        if samples is None
        else samples
    )
    found = calibrate(path, {"x": samples}, sources, spec)
    quantized = quantize_static(model, spec, found.ranges, means=found.means, learned=learned)
    written = path.with_name(f"{recipe}.tflite")
    write_model(quantized.model, written)
    assert lint(written) == ()
    return written, quantized


def _run(path, x, kernels=OpResolverType.AUTO, key=None):
    interpreter = Interpreter(str(path), experimental_op_resolver_type=kernels)
    return interpreter.get_signature_runner(key)(x=x)["y"]


def _assert_close(path, written, decibels, x=None):
    x = np.random.default_rng(2).uniform(-1, 1, (40, 1, 8)).astype(np.float32) if x is None else x
    for kernels in KERNELS:
        reference = np.concatenate([_run(path, row) for row in x])
        found = np.concatenate([_run(written, row, kernels) for row in x])
        assert np.isfinite(found).all()
        error = np.sum((reference - found) ** 2)
        assert 10 * np.log10(np.sum(reference**2) / error) > decibels


def test_batch_sizes_share_weights_and_compute_the_same(tmp_path):
    def build(graph, x):
        return _dense(graph, _dense(graph, x, WEIGHT, np.ones(6), "first"), WEIGHT[:3, :6], np.ones(3), "second")

    path = _file(tmp_path / "float.tflite", build, batches=(1, 16))
    written, quantized = _quantize(path)
    first, second = quantized.model.subgraphs
    for left, right in zip(first.operators, second.operators, strict=True):
        for slot in (1, 2):
            if slot < len(left.inputs):
                assert first.tensors[left.inputs[slot]].buffer == second.tensors[right.inputs[slot]].buffer
    x = np.random.default_rng(2).normal(size=(16, 8)).astype(np.float32)
    one_by_one = np.concatenate([_run(written, row[None], key="batch_1") for row in x])
    step = np.ptp(one_by_one) / 255
    assert np.abs(one_by_one - _run(written, x, key="batch_16")).max() <= 1.01 * step


def test_weights_that_two_layers_share_are_stored_once(tmp_path):
    square = WEIGHT[:, :6]
    path = _file(
        tmp_path / "float.tflite",
        lambda graph, x: _tied(graph, _dense(graph, x, WEIGHT, None, "in"), square),
    )
    written, quantized = _quantize(path)
    graph = quantized.model.subgraphs[0]
    buffers = [graph.tensors[op.inputs[1]].buffer for op in graph.operators if len(op.inputs) > 1]
    assert len(buffers) == 3 and len(set(buffers)) == 2
    _assert_close(path, written, 30)


def _tied(graph, x, square):
    shared = graph.values("shared", square.astype(np.float32))
    for name in ("one", "two"):
        out = graph.tensor(name, graph.shape(x))
        graph.op("FULLY_CONNECTED", [x, shared], [out], "FullyConnectedOptions")
        x = out
    return x


def test_a_channel_of_zeros_and_a_bias_that_dwarfs_its_weights_survive(tmp_path):
    weight = WEIGHT.copy()
    weight[0] = 0
    weight[1] *= 1e-12
    bias = np.array([3.0, -2.0, 0.5, 0, 0, 1], np.float32)
    path = _file(tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, weight, bias, "dense"))
    for recipe, decibels in (("int8", 30), ("int4", 15)):
        written, quantized = _quantize(path, recipe)
        graph = quantized.model.subgraphs[0]
        stored = next(t for t in graph.tensors if tensor_name(t) == "dense/bias")
        values = constant(quantized.model, stored).astype(np.float64) * np.asarray(stored.quantization.scale)
        np.testing.assert_allclose(values, bias, atol=0.01)
        _assert_close(path, written, decibels)


def test_an_input_that_is_always_zero_in_calibration_gives_a_file_that_runs(tmp_path):
    path = _file(tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, WEIGHT, np.ones(6), "dense"))
    written, _ = _quantize(path, samples=np.zeros((4, 8), np.float32))
    for kernels in KERNELS:
        np.testing.assert_allclose(_run(written, np.zeros((1, 8), np.float32), kernels), np.ones((1, 6)), atol=0.02)


def test_nan_in_weights_names_the_layer(tmp_path):
    weight = WEIGHT.copy()
    weight[2, 3] = np.inf
    path = _file(tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, weight, None, "encoder/dense_7"))
    with pytest.raises(BadInput, match="encoder/dense_7"):
        quantize_static(prepare(path), spec_for_recipe("int8"), {})


def test_learned_scales_win_over_ranges(tmp_path):
    path = _file(tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, WEIGHT, np.ones(6), "dense"))
    learned = {"dense": Affine(scale=0.25, zero_point=3), "x": Affine(scale=0.125, zero_point=-5)}
    _, quantized = _quantize(path, learned=learned)
    graph = quantized.model.subgraphs[0]
    found = {
        tensor_name(t): (float(t.quantization.scale[0]), int(t.quantization.zeroPoint[0]))
        for t in graph.tensors
        if dtype_name(t) == "int8" and len(t.quantization.scale) == 1
    }
    assert found == {"dense": (0.25, 3), "x_int8": (0.125, -5)}


def test_learned_scales_replace_calibration_altogether(tmp_path):
    path = _file(tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, WEIGHT, np.ones(6), "dense"))
    learned = {"dense": Affine(scale=0.05, zero_point=0), "x": Affine(scale=0.03, zero_point=0)}
    quantize_static(prepare(path), spec_for_recipe("int8"), {}, learned=learned)
    with pytest.raises(BadInput, match="no tensor is called dense_2"):
        quantize_static(prepare(path), spec_for_recipe("int8"), {}, learned={"dense_2": learned["x"]})


def test_an_operator_without_an_integer_form_is_refused_by_name_or_left_in_float_by_permission(tmp_path):
    def build(graph, x):
        middle = _like(graph, "SIN", [_dense(graph, x, WEIGHT, None, "before")], "wave")
        return _dense(graph, middle, WEIGHT[:3, :6], None, "after")

    path = _file(tmp_path / "float.tflite", build)
    with pytest.raises(Unsupported, match=r"layer wave \(SIN\)"):
        _quantize(path)
    written, quantized = _quantize(path, fallback_bits=32)
    kinds = [op_name(quantized.model, op) for op in quantized.model.subgraphs[0].operators]
    assert kinds == ["QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE", "SIN", "QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE"]
    assert any("permitted" in choice.reason for choice in quantized.plan.choices.values())
    _assert_close(path, written, 25)


def test_a_fixed_output_scale_is_requantized_where_its_readers_share_another(tmp_path):
    def build(graph, x):
        gate = _like(graph, "LOGISTIC", [x], "gate")
        options = {"axis": 1, "fusedActivationFunction": 0}
        joined = _like(graph, "CONCATENATION", [gate, x], "joined", "ConcatenationOptions", shape=(1, 16), **options)
        return _dense(graph, joined, np.concatenate([WEIGHT, WEIGHT], 1), None, "dense")

    path = _file(tmp_path / "float.tflite", build)
    written, quantized = _quantize(path)
    kinds = [op_name(quantized.model, op) for op in quantized.model.subgraphs[0].operators]
    assert kinds == ["QUANTIZE", "LOGISTIC", "QUANTIZE", "CONCATENATION", "FULLY_CONNECTED", "DEQUANTIZE"]
    _assert_close(path, written, 25)


def test_tables_of_one_concatenation_keep_scales_of_their_own(tmp_path):
    large, small = (
        np.random.default_rng(3).normal(size=(5, 8)) * 100,
        np.random.default_rng(3).normal(size=(5, 8)) * 0.1,
    )

    def build(graph, x):
        rows = []
        for name, table in (("large", large), ("small", small)):
            ids = graph.values(f"{name}/ids", np.array([2], np.int32))
            rows.append(graph.tensor(name, (1, 8)))
            table_tensor = graph.values(f"{name}/table", table.astype(np.float32))
            graph.op("GATHER", [table_tensor, ids], [rows[-1]], "GatherOptions", axis=0)
        options = {"axis": 1, "fusedActivationFunction": 0}
        return _like(graph, "CONCATENATION", [x, *rows], "joined", "ConcatenationOptions", shape=(1, 24), **options)

    path = _file(tmp_path / "float.tflite", build)
    _, quantized = _quantize(path)
    tables = [t for t in quantized.model.subgraphs[0].tensors if tensor_name(t).endswith("/table")]
    scales = sorted(float(t.quantization.scale[0]) for t in tables)
    assert len(scales) == 2 and scales[1] / scales[0] > 100


def test_a_probability_leaves_the_integers_at_its_logit(tmp_path):
    def build(graph, x):
        return _like(graph, "LOGISTIC", [_dense(graph, x, WEIGHT[:1], None, "logit")], "probability")

    path = _file(tmp_path / "float.tflite", build)
    written, quantized = _quantize(path)
    kinds = [op_name(quantized.model, op) for op in quantized.model.subgraphs[0].operators]
    assert kinds == ["QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE", "LOGISTIC"]
    answers = {
        float(_run(written, row)[0, 0]) for row in np.random.default_rng(3).normal(size=(200, 1, 8)).astype(np.float32)
    }
    assert any(abs(answer * 256 - round(answer * 256)) > 0.1 for answer in answers)


def test_a_constant_read_by_two_operators_does_not_tie_their_scales(tmp_path):
    def build(graph, x):
        floor = graph.values("floor", np.full((1, 8), -0.25, np.float32))
        clipped = _like(graph, "MAXIMUM", [x, floor], "clipped")
        scaled = _like(
            graph, "MUL", [clipped, graph.values("ten", np.full((1, 8), 50, np.float32))], "scaled", "MulOptions"
        )
        return _like(graph, "MAXIMUM", [scaled, floor], "again")

    path = _file(tmp_path / "float.tflite", build)
    written, quantized = _quantize(path)
    scales = {
        tensor_name(t): float(t.quantization.scale[0]) for t in quantized.model.subgraphs[0].tensors if t.quantization
    }
    assert scales["scaled"] / scales["clipped"] > 20
    _assert_close(path, written, 30)


def test_calibration_samples_that_do_not_fit_are_refused(tmp_path):
    path = _file(tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, WEIGHT, None, "dense"))
    with pytest.raises(BadInput, match="x"):
        sources = describe(prepare(path), (), ())[0].inputs
        calibrate(path, {"other": np.zeros((3, 8), np.float32)}, sources, spec_for_recipe("int8"))


def test_microcontrollers_get_one_scale_for_int4_dense_weights_and_an_int8_probability(tmp_path):
    def build(graph, x):
        return _like(graph, "LOGISTIC", [_dense(graph, x, WEIGHT, np.ones(6), "dense")], "probability")

    path = _file(tmp_path / "float.tflite", build)
    written, quantized = _quantize(path, "int4", for_device="mcu")
    tensors = {tensor_name(t): t for t in quantized.model.subgraphs[0].tensors}
    assert len(tensors["dense/weight"].quantization.scale) == len(tensors["dense/bias"].quantization.scale) == 1
    assert dtype_name(tensors["probability"]) == "int8"
    _assert_close(path, written, 15)


def test_a_layer_over_a_constant_is_quantized(tmp_path):
    def build(graph, x):
        stored = graph.values("stored", np.ones((1, 8), np.float32))
        return _like(graph, "ADD", [x, _dense(graph, stored, np.eye(8), np.ones(8), "dense")], "sum", "AddOptions")

    path = _file(tmp_path / "float.tflite", build)
    _assert_close(path, _quantize(path)[0], 30)


def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path):
    sound = _file(
        tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, WEIGHT, np.ones(6), "dense")
    ).read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(200):
        data = bytearray(sound)
        for place in rng.integers(8, len(data), rng.integers(1, 9)):
            data[place] = rng.integers(256)
        (tmp_path / "damaged.tflite").write_bytes(data[: rng.integers(8, len(data)) if rng.random() < 0.3 else None])
        try:
            choose(views(prepare(tmp_path / "damaged.tflite")), spec_for_recipe("int8"))
        except (BadInput, Unsupported):
            refused += 1
    assert refused > 50


def test_terms_that_cancel_and_activations_that_vanish_do_not_end_the_process(tmp_path):
    def build(graph, x):
        nothing = _like(graph, "SUB", [x, x], "nothing", "SubOptions")
        faint = _like(
            graph, "MUL", [x, graph.values("faint", np.full((1, 8), 1e-12, np.float32))], "little", "MulOptions"
        )
        swish = _like(graph, "HARD_SWISH", [faint], "swish")
        return _like(graph, "ADD", [swish, nothing], "sum", "AddOptions", fusedActivationFunction=3)

    path = _file(tmp_path / "float.tflite", build)
    written, _ = _quantize(path)
    for kernels in KERNELS:
        assert np.abs(_run(written, np.ones((1, 8), np.float32), kernels)).max() < 0.01


def test_two_networks_of_the_same_operators_are_calibrated_apart(tmp_path):
    emitter = Emitter("test")
    for number, gain in enumerate((1.0, 100.0)):
        graph = emitter.graph(f"tower_{number}")
        x = graph.tensor("x", (1, 8))
        graph.sign(f"tower_{number}", {"x": x}, {"y": _dense(graph, x, WEIGHT * gain, None, "dense")})
    emitter.write(tmp_path / "float.tflite")
    written, _ = _quantize(tmp_path / "float.tflite")
    x = np.random.default_rng(4).uniform(-1, 1, (1, 8)).astype(np.float32)
    for key in ("tower_0", "tower_1"):
        reference, found = (_run(path, x, key=key) for path in (tmp_path / "float.tflite", written))
        np.testing.assert_allclose(found, reference, atol=0.05 * np.abs(reference).max())


def test_a_bias_with_leading_axes_of_one_is_quantized_by_channel(tmp_path):
    bias = np.linspace(-1, 1, 6).reshape(1, 1, 6)
    path = _file(tmp_path / "float.tflite", lambda graph, x: _dense(graph, x, WEIGHT, bias, "dense"))
    written, _ = _quantize(path)
    _assert_close(path, written, 30)
