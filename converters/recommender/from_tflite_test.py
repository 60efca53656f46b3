"""A Keras recommender is recognised in its float TFLite file, wrapped ids and all."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
pytest.importorskip("torch")

from converters.recommender.from_tflite import recognise_tflite  # noqa: E402
from converters.recommender.recognise import random_feeds  # noqa: E402
from converters.recommender.reference import run_reference  # noqa: E402
from edge_deploy.core.tensor import TensorInfo  # noqa: E402

ROWS = (10, 20, 30)


def keras_dlrm():
    layers, ops = keras.layers, keras.ops
    keras.utils.set_random_seed(0)
    dense = layers.Input((5,), name="numbers", dtype="float32")
    ids = layers.Input((3,), name="ids", dtype="int32")
    x = layers.Dense(4, activation="relu")(layers.Dense(8, activation="tanh")(dense))
    vectors = [x] + [layers.Embedding(rows, 4)(ids[:, i]) for i, rows in enumerate(ROWS)]
    t = ops.stack(vectors, axis=1)
    z = ops.reshape(ops.matmul(t, ops.transpose(t, (0, 2, 1))), (-1, 16))
    i, j = np.tril_indices(4, -1)
    joined = layers.Concatenate()([x, ops.take(z, i * 4 + j, axis=1)])
    y = layers.Dense(1, activation="sigmoid")(layers.Dense(16, activation="relu")(joined))
    model = keras.Model([dense, ids], y)
    model.set_weights([np.random.default_rng(1).standard_normal(w.shape).astype(np.float32) for w in model.weights])
    return model


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    model = keras_dlrm()
    path = tmp_path_factory.mktemp("keras") / "float.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return model, path


def test_a_keras_recommender_computes_what_the_keras_model_computes(converted):
    model, path = converted
    inputs = (
        TensorInfo(name="numbers", shape=(-1, 5), dtype="float32"),
        TensorInfo(name="ids", shape=(-1, 3), dtype="int32"),
    )
    found = recognise_tflite(path, inputs)
    assert found is not None
    recommender, arrays = found
    assert [info.name for info in recommender.inputs] == ["numbers", "ids"]
    assert recommender.inputs[1].id_bounds == ROWS and recommender.inputs[1].shape == (-1, 3)
    assert recommender.output_activation == "sigmoid" and recommender.interaction.kind == "dot"
    feeds = random_feeds(recommender, [(16, 5), (16, 3)], seed=5)
    wanted = np.asarray(model([feeds["numbers"], feeds["ids"].astype(np.int32)]))
    np.testing.assert_allclose(run_reference(recommender, arrays, feeds, batch=16), wanted, atol=1e-5)


def test_a_file_that_is_no_recommender_is_left_alone(tmp_path):
    path = tmp_path / "float.tflite"
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    assert recognise_tflite(path, (TensorInfo(name="x", shape=(-1, 4), dtype="float32"),)) is None
