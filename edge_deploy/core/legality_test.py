"""Cuts that no split can carry out."""

from edge_deploy.core.cut import make_cut
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.legality import illegal_because
from edge_deploy.core.tensor import TensorInfo


def tensor(name, dtype="int8"):
    return TensorInfo(name=name, shape=(1, 4), dtype=dtype)


def layer(name, source, *, dtype="int8", group=""):
    return Layer(name=name, op="op", inputs=source, outputs=(tensor(f"{name}:0", dtype),), group=group)


GRAPH = LayerGraph(
    inputs=(tensor("x"),),
    outputs=("c:0",),
    layers=(
        layer("widen", ()),
        layer("a", ("x", "widen:0"), group="one"),
        layer("relu", ("a:0",), group="one"),
        layer("b", ("relu:0",), dtype="int4"),
        layer("c", ("b:0", "widen:0")),
    ),
)


def test_a_cut_between_layers_that_are_computed_as_one_says_which():
    assert illegal_because(GRAPH, make_cut(GRAPH, ["widen", "a"])) == (
        "inside a fused pattern: a, relu are computed as one",
    )
    assert illegal_because(GRAPH, make_cut(GRAPH, ["widen", "a", "relu"])) == ()


def test_a_packed_tensor_cannot_cross():
    (reason,) = illegal_because(GRAPH, make_cut(GRAPH, ["widen", "a", "relu", "b"]))
    assert "b:0 would cross as int4" in reason


def test_what_is_made_of_weights_alone_crosses_no_cut():
    assert [info.name for info in make_cut(GRAPH, ["widen", "a", "relu"]).up] == ["relu:0"]
    assert [info.name for info in make_cut(GRAPH, ["a", "relu"]).up] == ["relu:0"]
    assert [info.name for info in make_cut(GRAPH, []).up] == ["x"]
