"""Recommenders of Keras, SavedModels and ONNX are recognised and compute what their own framework computes."""

import numpy as np
import pytest

from converters.capture import choose_source
from converters.contracts import CaptureRequest
from converters.recommender.model import load
from converters.recommender.recognise import random_feeds
from converters.recommender.reference import run_reference
from edge_deploy.core import registry

pytest.importorskip("torch")
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

BATCH = 8


def randomised(model):
    random = np.random.default_rng(1)
    model.set_weights([(np.abs(random.normal(0, 0.4, w.shape)) + 0.05).astype(np.float32) for w in model.weights])
    return model


def separate_inputs(folder):
    """One input and one table for each field, products by Dot layers, an old HDF5 file."""
    layers = keras.layers
    numbers = layers.Input((5,), name="numbers")
    fields = [layers.Input((1,), dtype="int32", name=f"field_{k}") for k in range(3)]
    rows = [layers.Flatten()(layers.Embedding(n, 4)(f)) for n, f in zip((9, 30, 5), fields, strict=True)]
    vectors = [layers.Dense(4, activation="relu")(layers.Dense(8, activation="tanh")(numbers)), *rows]
    products = [layers.Dot(axes=1)([vectors[i], vectors[j]]) for i in range(4) for j in range(i)]
    hidden = layers.Dense(6, activation="relu")(layers.Concatenate()([vectors[0], *products]))
    model = randomised(keras.Model([numbers, *fields], layers.Dense(1, activation="sigmoid")(hidden)))
    model.save(folder / "model.h5")
    return folder / "model.h5", "dot", ["none"] * 3


def masked_history(folder):
    """A padded history, averaged by a layer that heeds the mask, beside an item of the same table."""
    layers = keras.layers
    history, item = (layers.Input((n,), dtype="int64", name=name) for n, name in ((6, "history"), (1, "item")))
    table = layers.Embedding(40, 8, mask_zero=True)
    mean = layers.GlobalAveragePooling1D()(table(history))
    joined = layers.Concatenate()([mean, layers.Flatten()(layers.Embedding(40, 8)(item))])
    hidden = layers.BatchNormalization()(layers.Dense(8, activation="relu")(joined))
    model = randomised(keras.Model([history, item], layers.Dense(1)(layers.Dropout(0.5)(hidden))))
    model.save(folder / "model.keras")
    return folder / "model.keras", "concat", ["mean", "none"]


def factorization_machine(folder):
    """Half the difference of a squared sum and a sum of squares, and linear weights."""
    layers, ops = keras.layers, keras.ops
    ids = layers.Input((4,), dtype="int32", name="ids")
    sizes = (11, 12, 13, 14)
    factors = ops.stack([layers.Embedding(n, 6)(ids[:, k]) for k, n in enumerate(sizes)], axis=1)
    weights = ops.sum(ops.stack([layers.Embedding(n, 1)(ids[:, k]) for k, n in enumerate(sizes)], axis=1), axis=1)
    squares = ops.square(ops.sum(factors, axis=1)) - ops.sum(ops.square(factors), axis=1)
    pairs = 0.5 * ops.sum(squares, axis=1, keepdims=True)
    randomised(keras.Model(ids, layers.Activation("sigmoid")(weights + pairs - 5.0))).save(folder / "model.keras")
    return folder / "model.keras", "dot", ["none"] * 8


class _Gathered(tf.Module):
    """Tables as variables: gathers, a bag with a mask, products cut out by gather_nd."""

    def __init__(self):
        random = np.random.default_rng(2)
        self.made = lambda *shape: tf.Variable(random.normal(0, 0.4, shape).astype(np.float32))
        self.tables = [self.made(20, 4), self.made(30, 4)]
        self.below, self.shift = self.made(5, 4), self.made(4)
        self.above, self.last = self.made(4 + 3, 6), self.made(6, 1)

    @tf.function(
        input_signature=[tf.TensorSpec((None, 5), tf.float32, name="x"), tf.TensorSpec((None, 4), tf.int64, name="ids")]
    )
    def serve(self, x, ids):
        bottom = tf.nn.relu(x @ self.below + self.shift)
        mask = tf.cast(tf.not_equal(ids[:, 1:], 0), tf.float32)[:, :, None]
        bag = tf.reduce_sum(tf.nn.embedding_lookup(self.tables[1], ids[:, 1:]) * mask, 1)
        bag = tf.math.divide_no_nan(bag, tf.reduce_sum(mask, 1))
        vectors = tf.stack([bottom, tf.gather(self.tables[0], ids[:, 0]), bag], 1)
        products = tf.matmul(vectors, vectors, transpose_b=True)
        lower = tf.gather_nd(tf.transpose(products, [1, 2, 0]), np.stack(np.tril_indices(3, -1), 1))
        joined = tf.concat([tf.transpose(lower), bottom], 1)
        return {"score": tf.squeeze(tf.sigmoid(tf.nn.relu(joined @ self.above) @ self.last), -1)}


def gathered(folder):
    module = _Gathered()
    tf.saved_model.save(module, folder / "model", signatures=module.serve)
    return folder / "model", "dot", ["none", "mean"]


def _random(*shape):
    return np.random.default_rng(sum(shape)).normal(0, 0.4, shape).astype(np.float32)


def operators(folder):
    """ONNX operators by hand: Gather, a bag by ReduceSum, Gemm and MatMul, a concatenation."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2tf")
    node, kind = onnx.helper.make_node, onnx.TensorProto
    constants = {"T": _random(20, 8), "U": _random(30, 8), "W1": _random(5, 8), "B1": _random(8)}
    constants |= {"W2": _random(24, 6), "B2": _random(6), "W3": _random(1, 6), "axis": np.array([1])}
    nodes = [
        node("Gemm", ["num", "W1", "B1"], ["gemm"]),
        node("Relu", ["gemm"], ["bottom"]),
        node("Gather", ["T", "cat"], ["one"], axis=0),
        node("Gather", ["U", "bag"], ["rows"], axis=0),
        node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=0),
        node("Concat", ["bottom", "one", "sum"], ["joined"], axis=1),
        node("MatMul", ["joined", "W2"], ["product"]),
        node("Add", ["product", "B2"], ["added"]),
        node("Relu", ["added"], ["hidden"]),
        node("Gemm", ["hidden", "W3"], ["logit"], transB=1),
        node("Sigmoid", ["logit"], ["click"]),
    ]
    value = onnx.helper.make_tensor_value_info
    inputs = [value("num", kind.FLOAT, ["N", 5]), value("cat", kind.INT64, ["N"]), value("bag", kind.INT64, ["N", 4])]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = onnx.helper.make_graph(nodes, "net", inputs, [value("click", kind.FLOAT, ["N", 1])], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx", "concat", ["none", "sum"]


def exported_bags(folder):
    """What torch.onnx writes of EmbeddingBags: a loop for each."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx2tf")

    class Bags(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.tables = torch.nn.ModuleList(torch.nn.EmbeddingBag(n, 4, mode="mean") for n in (20, 30))
            self.below, self.above = torch.nn.Linear(5, 4), torch.nn.Linear(4 + 3, 1)

        def forward(self, x, one, two):
            bottom = torch.relu(self.below(x))
            t = torch.stack([bottom, self.tables[0](one), self.tables[1](two)], 1)
            z = torch.bmm(t, t.transpose(1, 2))
            i, j = np.tril_indices(3, -1)
            return torch.sigmoid(self.above(torch.cat([bottom, z[:, i, j]], 1)))

    examples = (torch.zeros(1, 5), torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.int64))
    path = folder / "model.onnx"
    torch.onnx.export(Bags().eval(), examples, path, input_names=["x", "one", "two"], dynamo=False, opset_version=17)
    return path, "dot", ["mean", "mean"]


def exported_machine(folder):
    """A factorization machine whose fields share a table by offsets, as PyTorch code writes it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx2tf")

    class Machine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.starts = torch.tensor([0, 11, 23])
            self.factors, self.weights = torch.nn.Embedding(36, 6), torch.nn.Embedding(36, 1)
            self.bias = torch.nn.Parameter(torch.tensor([0.3]))

        def forward(self, ids):
            ids = ids + self.starts
            rows = self.factors(ids)
            pairs = 0.5 * (rows.sum(1) ** 2 - (rows**2).sum(1)).sum(1, keepdim=True)
            return torch.sigmoid(self.weights(ids).sum(1) + self.bias + pairs)

    ids = torch.zeros(1, 3, dtype=torch.int64)
    path = folder / "model.onnx"
    torch.onnx.export(Machine().eval(), (ids,), path, input_names=["ids"], dynamo=False, opset_version=17)
    return path, "dot", ["none"] * 6


MODELS = (
    separate_inputs,
    masked_history,
    factorization_machine,
    gathered,
    operators,
    exported_bags,
    exported_machine,
)


@pytest.mark.parametrize("write", MODELS, ids=lambda write: write.__name__)
def test_it_is_recognised_and_computes_what_its_framework_computes(write, tmp_path):
    path, kind, poolings = write(tmp_path)
    source = registry.load("converters.sources", choose_source(request := CaptureRequest(source=str(path))))
    (tmp_path / "captured").mkdir()
    captured = source.capture(request, tmp_path / "captured")
    assert captured.kind == "recommender" and captured.recommender is not None
    model, arrays = load(captured.recommender)
    assert model.interaction.kind == kind
    assert sorted(lookup.pooling for lookup in model.lookups) == sorted(poolings)
    feeds = random_feeds(model, [(BATCH, *info.shape[1:]) for info in model.inputs], seed=3, empty=False)
    feeds = {info.name: feeds[info.name].astype(info.dtype) for info in captured.inputs}
    np.savez(tmp_path / "feeds.npz", **feeds)
    source.run_float(captured, tmp_path / "feeds.npz", tmp_path / "answers.npz")
    with np.load(tmp_path / "answers.npz") as answers:
        wanted = answers[answers.files[0]].reshape(-1)
    assert np.ptp(wanted) > 0
    made = run_reference(model, arrays, feeds, batch=BATCH).reshape(-1)
    np.testing.assert_allclose(made, wanted, atol=2e-5 * max(1.0, float(np.abs(wanted).max())))
