"""Entries of support.toml about tables and the dynamic form, held against what LiteRT runs of the written files."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from converters.contracts import Captured, LowerRequest
from converters.support import entries, lookup
from converters.targets.tflite import lower
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe
from edge_deploy.core.tensor import TensorInfo
from runtimes.formats.tflite import read_facts

ROWS, WIDTH = 60, 16
IN_FLOAT = "in float, as all activations there"


def _weights(*shape):
    values = np.random.default_rng(sum(shape)).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
    return tf.Variable(values.astype(np.float32))


class _Net(tf.Module):
    """A table whose rows pass a convolution, a depthwise one and a dense layer."""

    def __init__(self):
        super().__init__()
        self.table, self.dense = _weights(ROWS, WIDTH), _weights(8, 4)
        self.conv, self.depthwise = _weights(2, 2, 2, 4), _weights(2, 2, 4, 1)

    @tf.function(input_signature=[tf.TensorSpec((1,), tf.int32, "ids")])
    def __call__(self, ids):
        x = tf.reshape(tf.raw_ops.GatherV2(params=self.table, indices=ids, axis=0), (1, 4, 2, 2))
        x = tf.nn.relu(tf.nn.conv2d(x, self.conv, 2, "SAME"))
        x = tf.nn.depthwise_conv2d(x, self.depthwise, [1, 1, 1, 1], "SAME") * tf.sigmoid(x)
        return {"y": tf.matmul(tf.reshape(x, (1, 8)), self.dense)}


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    net = _Net()
    data = tf.lite.TFLiteConverter.from_concrete_functions([net.__call__.get_concrete_function()], net).convert()
    (folder / "float.tflite").write_bytes(data)
    np.savez(folder / "data.npz", ids=np.arange(ROWS, dtype=np.int32))
    return Captured(
        name="net",
        framework="keras",
        kind="recommender",
        folder=folder,
        inputs=(TensorInfo(name="ids", shape=(1,), dtype="int32"),),
        outputs=(TensorInfo(name="y", shape=(1, 4), dtype="float32"),),
        float_tflite=folder / "float.tflite",
    )


@pytest.fixture(params=["recommender", "cnn"])
def captured(request, recommender):
    return dataclasses.replace(recommender, kind=request.param)


def _recipe_kind(captured, recipe):
    return f"{recipe}-dynamic" if captured.kind == "recommender" else recipe


def _lower(captured, folder, recipe, *rules, fallback=None):
    spec = spec_for_recipe(recipe, rules=rules, fallback_bits=fallback)
    return lower(LowerRequest(captured=captured, spec=spec, folder=folder, calibration=captured.folder / "data.npz"))


def _answers(path):
    runner = Interpreter(str(path)).get_signature_runner()
    return np.concatenate([runner(ids=np.array([row], np.int32))["y"] for row in range(ROWS)])


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_tables_and_layers_become_what_the_table_says(captured, tmp_path, recipe):
    lowered = _lower(captured, tmp_path, recipe)
    kind = _recipe_kind(captured, recipe)
    assert {outcome.op for outcome in lowered.outcomes} == {
        "EMBEDDING_LOOKUP",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
    }
    for outcome in lowered.outcomes:
        # Under int4 the layers of a recommender get INT8: what is asked of them decides, not the recipe's name.
        entry = lookup("tflite", kind.replace(recipe, outcome.asked.partition(",")[0]), outcome.op)
        assert (entry.status, entry.operator) == ("native", outcome.op)
        assert outcome.is_as_asked, outcome
    error = _answers(tmp_path / "model.tflite") - _answers(captured.float_tflite)
    assert np.sqrt(np.mean(error**2)) < (0.05 if recipe == "int8" else 0.3) * _answers(captured.float_tflite).std()


def test_packed_layers_under_float_activations_are_native_or_refused_as_the_table_says(recommender, tmp_path):
    with pytest.raises(Unsupported) as caught:
        _lower(recommender, tmp_path, "int4", LayerRule(pattern="*", weight_bits=4))
    refused = {refusal.op for refusal in caught.value.refusals}
    packable = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "EMBEDDING_LOOKUP"}
    assert refused == {op for op in packable if lookup("tflite", "int4-dynamic", op).status == "refused"}
    outcomes = _lower(recommender, tmp_path, "int4", LayerRule(pattern="*", weight_bits=4), fallback=8).outcomes
    got = {outcome.op: outcome.got.split()[0].rstrip(",") for outcome in outcomes}
    assert got == {op: "int8" if op in refused else "int4" for op in packable}


def test_operators_without_weights_stay_in_float_beside_dynamic_layers(recommender, tmp_path):
    _lower(recommender, tmp_path, "int8")
    facts = [fact for fact in read_facts(tmp_path / "model.tflite") if not fact.weight_count]
    assert {fact.op for fact in facts} >= {"MUL", "LOGISTIC", "RESHAPE"}
    for fact in facts:
        assert fact.activation_dtype == "float32"
        assert lookup("tflite", "int8-dynamic", fact.op).reason == IN_FLOAT


def test_whatever_has_an_integer_form_or_a_reason_against_it_may_stay_in_float_in_a_recommender():
    known = {entry.operator for entry in entries("tflite") if entry.recipe == "int8"}
    dynamic = {entry.operator for entry in entries("tflite") if entry.recipe == "int8-dynamic"}
    assert known == dynamic
