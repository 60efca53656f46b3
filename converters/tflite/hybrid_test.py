"""Graphs with tables whose structure is not recognised: rows and layers are quantized, none stays float unseen."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters.contracts import Captured, LowerRequest
from converters.targets.tflite import lower
from converters.tflite.flatbuffer import constant, dtype_name, op_name, read_model, tensor_name, write_model
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

ROWS, BATCH = 300, 4


def _table(rows, width, seed):
    values = np.random.default_rng(seed).normal(size=(rows, width)) * np.linspace(0.05, 2, rows)[:, None]
    return tf.Variable(values.astype(np.float32))


class _Ranker(tf.Module):
    """Two towers with an attention-like product: no structure that the recogniser knows."""

    def __init__(self):
        super().__init__()
        self.wide, self.odd, self.items = _table(ROWS, 16, 0), _table(ROWS, 5, 1), _table(ROWS, 16, 2)
        self.first = tf.Variable(np.random.default_rng(3).normal(size=(16 + 15, 32)).astype(np.float32) / 6)
        self.bias = tf.Variable(np.linspace(-1, 1, 32).astype(np.float32))
        self.last = tf.Variable(np.random.default_rng(4).normal(size=(32, 16)).astype(np.float32) / 6)

    @tf.function(
        input_signature=[
            tf.TensorSpec((BATCH,), tf.int32, "user"),
            tf.TensorSpec((BATCH, 3), tf.int64, "history"),
            tf.TensorSpec((BATCH,), tf.int32, "item"),
        ]
    )
    def __call__(self, user, history, item):
        seen = tf.reshape(tf.raw_ops.GatherV2(params=self.odd, indices=history, axis=0), (BATCH, 15))
        x = tf.concat([tf.raw_ops.GatherV2(params=self.wide, indices=user, axis=0), seen], 1)
        x = tf.nn.relu(tf.matmul(x, self.first) + self.bias)
        x = tf.exp(-tf.abs(tf.matmul(x, self.last))) * tf.raw_ops.GatherV2(params=self.items, indices=item, axis=0)
        return {"score": tf.sigmoid(tf.reduce_sum(x, 1))}


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranker")
    ranker = _Ranker()
    function = ranker.__call__.get_concrete_function()
    data = tf.lite.TFLiteConverter.from_concrete_functions([function], ranker).convert()
    (folder / "float.tflite").write_bytes(data)
    return Captured(
        name="ranker",
        framework="keras",
        kind="recommender",
        folder=folder,
        inputs=(
            TensorInfo(name="user", shape=(BATCH,), dtype="int32"),
            TensorInfo(name="history", shape=(BATCH, 3), dtype="int64"),
            TensorInfo(name="item", shape=(BATCH,), dtype="int32"),
        ),
        outputs=(TensorInfo(name="score", shape=(BATCH,), dtype="float32", meaning="probability"),),
        float_tflite=folder / "float.tflite",
    )


def _scores(path, resolver=OpResolverType.AUTO, **changes):
    runner = Interpreter(str(path), experimental_op_resolver_type=resolver).get_signature_runner()
    rng = np.random.default_rng(7)
    answers = []
    for _ in range(20):
        feeds = {
            "user": rng.integers(0, ROWS, BATCH, dtype=np.int32),
            "history": rng.integers(0, ROWS, (BATCH, 3), dtype=np.int64),
            "item": rng.integers(0, ROWS, BATCH, dtype=np.int32),
        }
        answers.append(runner(**{**feeds, **changes})["score"])
    return np.concatenate(answers)


def _lower(captured, folder, recipe, **changes):
    return lower(LowerRequest(captured=captured, spec=spec_for_recipe(recipe, **changes), folder=folder))


@pytest.mark.parametrize(
    "resolver",
    [OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF],
)
@pytest.mark.parametrize(
    ("recipe", "changes", "error"),
    [
        ("int8", {}, 0.01),
        ("int8", {"table_scale": "table"}, 0.01),
        ("int4", {}, 0.05),
        ("int4", {"table_scale": "table"}, 0.15),
    ],
)
def test_scores_stay_close_to_float(captured, tmp_path, recipe, changes, error, resolver):
    _lower(captured, tmp_path, recipe, **changes)
    difference = _scores(tmp_path / "model.tflite", resolver) - _scores(captured.float_tflite)
    assert np.isfinite(difference).all()
    assert np.abs(difference).mean() < error


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_no_table_and_no_layer_stays_float(captured, tmp_path, recipe):
    lowered = _lower(captured, tmp_path, recipe)
    tables = [outcome for outcome in lowered.outcomes if outcome.op == "EMBEDDING_LOOKUP"]
    dense = [outcome for outcome in lowered.outcomes if outcome.op == "FULLY_CONNECTED"]
    assert len(tables) == 3 and len(dense) == 2
    assert {outcome.got.split()[0] for outcome in tables} == {recipe}
    assert {outcome.got.split()[0] for outcome in dense} == {"int8"}
    model = read_model(tmp_path / "model.tflite")
    floats = [t for t in model.subgraphs[0].tensors if dtype_name(t) == "float32" and constant(model, t) is not None]
    assert sum(int(np.prod(t.shape)) for t in floats) < 100, [tensor_name(t) for t in floats]


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_no_table_is_expanded_before_its_rows_are_read(captured, tmp_path, recipe):
    _lower(captured, tmp_path, recipe)
    model = read_model(tmp_path / "model.tflite")
    graph = model.subgraphs[0]
    by_kind = {}
    for operator in graph.operators:
        by_kind.setdefault(op_name(model, operator), []).append(operator)
    assert "GATHER" not in by_kind and len(by_kind["EMBEDDING_LOOKUP"]) >= 3
    tables = [graph.tensors[operator.inputs[1]] for operator in by_kind["EMBEDDING_LOOKUP"]]
    assert all(constant(model, table) is not None and table.shape[0] == ROWS for table in tables)
    for operator in by_kind.get("DEQUANTIZE", []):
        assert graph.tensors[operator.inputs[0]].shape[0] < ROWS


def test_dequantized_rows_are_within_half_a_step(captured, tmp_path):
    _lower(captured, tmp_path, "int8")
    source = {tuple(t.shape): t for t in read_model(captured.float_tflite).subgraphs[0].tensors}
    model = read_model(tmp_path / "model.tflite")
    float_model = read_model(captured.float_tflite)
    checked = 0
    for tensor in model.subgraphs[0].tensors:
        if dtype_name(tensor) == "int8" and tensor.shape[0] == ROWS and tensor.shape[1] == 5:
            scale = np.asarray(tensor.quantization.scale)[:, None]
            rows = constant(float_model, source[tuple(tensor.shape)])
            assert np.all(np.abs(constant(model, tensor) * scale - rows) <= 0.501 * scale)
            checked += 1
    assert checked == 1


def test_an_id_outside_its_table_stops_the_inference_as_in_the_float_file(captured, tmp_path):
    _lower(captured, tmp_path, "int4")
    outside = np.full(BATCH, ROWS, np.int32)
    for path in (captured.float_tflite, tmp_path / "model.tflite"):
        with pytest.raises(RuntimeError, match="out of bounds"):
            _scores(path, item=outside)


def test_rules_by_layer_name_are_obeyed(captured, tmp_path):
    first = _lower(captured, tmp_path, "int8").outcomes
    table = next(outcome.layer for outcome in first if outcome.op == "EMBEDDING_LOOKUP")
    outcomes = _lower(captured, tmp_path, "int8", rules=(LayerRule(pattern=table, weight_bits=4),)).outcomes
    assert [outcome.weight_bits < 8 for outcome in outcomes if outcome.layer == table] == [True]
    assert sum(outcome.weight_bits < 8 for outcome in outcomes) == 1


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_tables_beside_a_full_integer_graph_are_quantized_too(captured, tmp_path, recipe):
    rng = np.random.default_rng(8)
    feeds = {
        "user": rng.integers(0, ROWS, 200),
        "history": rng.integers(0, ROWS, (200, 3)),
        "item": rng.integers(0, ROWS, 200),
    }
    np.savez(tmp_path / "calibration.npz", **feeds)
    spec = spec_for_recipe(recipe)
    image_like = dataclasses.replace(captured, kind="cnn")
    request = LowerRequest(captured=image_like, spec=spec, folder=tmp_path, calibration=tmp_path / "calibration.npz")
    outcomes = lower(request).outcomes
    tables = [outcome for outcome in outcomes if outcome.op == "EMBEDDING_LOOKUP"]
    dense = [outcome for outcome in outcomes if outcome.op == "FULLY_CONNECTED"]
    assert {outcome.got.split()[0] for outcome in (*tables, *dense)} == {recipe} and len(tables) == 3
    assert all("int8 activations" in outcome.got for outcome in dense)
    difference = _scores(tmp_path / "model.tflite") - _scores(captured.float_tflite)
    assert np.abs(difference).mean() < (0.03 if recipe == "int8" else 0.1)


def test_a_microcontroller_is_refused_what_is_not_recognised(captured, tmp_path):
    with pytest.raises(Unsupported, match="ranker"):
        _lower(captured, tmp_path, "int8", for_device="mcu")


def test_a_table_with_nan_is_named(captured, tmp_path):
    model = read_model(captured.float_tflite)
    graph = model.subgraphs[0]
    tensor = next(t for t in graph.tensors if list(t.shape) == [ROWS, 5])
    values = np.array(constant(model, tensor))
    values[7, 3] = np.nan
    model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    write_model(model, tmp_path / "nan.tflite")
    broken = dataclasses.replace(captured, float_tflite=tmp_path / "nan.tflite")
    with pytest.raises(BadInput, match="NaN or infinity"):
        _lower(broken, tmp_path, "int8")
