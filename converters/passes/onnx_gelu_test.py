"""GELUs in the forms that exporters spell them become one operator; other error functions are refused by name."""

import numpy as np
import pytest

from converters.passes.onnx_gelu import rewrite_gelus
from edge_deploy.core.errors import Unsupported

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

HALF, ONE, ROOT, INVERSE = "half", "one", "root", "inverse"
SCALED = {"divided": ("Div", ["x", ROOT]), "multiplied": ("Mul", [INVERSE, "x"])}
ENDS = {
    "halved last": [("Mul", ["x", "plus"], "m"), ("Mul", ["m", HALF], "y")],
    "halved in between": [("Mul", ["plus", HALF], "m"), ("Mul", ["x", "m"], "y")],
    "halved first": [("Mul", [HALF, "x"], "m"), ("Mul", ["m", "plus"], "y")],
    "halved by division": [("Div", ["x", "two"], "m"), ("Mul", ["plus", "m"], "y")],
}


def graph(scaled, end):
    node = onnx.helper.make_node
    nodes = [
        node(*SCALED[scaled], ["s"]),
        node("Erf", ["s"], ["e"], name="/act/Erf"),
        node("Add", ["e", ONE], ["plus"]),
        *(node(kind, inputs, [output]) for kind, inputs, output in end),
    ]
    numbers = {HALF: 0.5, ONE: 1.0, ROOT: 2**0.5, INVERSE: 0.5**0.5, "two": 2.0}
    value = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        nodes,
        "net",
        [value("x", onnx.TensorProto.FLOAT, [3, 5])],
        [value("y", onnx.TensorProto.FLOAT, [3, 5])],
        [onnx.numpy_helper.from_array(np.array(number, np.float32), name) for name, number in numbers.items()],
    )
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def answers(model, x):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize("scaled", SCALED)
@pytest.mark.parametrize("end", ENDS)
def test_a_gelu_becomes_one_operator_and_computes_the_same(scaled, end):
    model = graph(scaled, ENDS[end])
    x = np.random.default_rng(0).normal(0, 2, (3, 5)).astype(np.float32)
    want = answers(model, x)
    made = rewrite_gelus(model, where="net.onnx")
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("Gelu") == 1 and "Erf" not in kinds
    np.testing.assert_allclose(answers(made, x), want, atol=1e-5)


@pytest.mark.parametrize(
    "end",
    [
        [("Mul", ["x", "plus"], "m"), ("Mul", ["m", ROOT], "y")],
        [("Mul", ["s", "plus"], "m"), ("Mul", ["m", HALF], "y")],
        [("Mul", ["plus", HALF], "y")],
        [("Mul", ["x", "plus"], "m"), ("Mul", ["m", HALF], "n"), ("Add", ["n", "e"], "y")],
    ],
    ids=["another factor", "another value", "no product with it", "read elsewhere"],
)
def test_an_error_function_that_is_no_gelu_is_refused_by_name(end):
    with pytest.raises(Unsupported, match=r"/act/Erf \(Erf\)"):
        rewrite_gelus(graph("divided", end), where="net.onnx")
