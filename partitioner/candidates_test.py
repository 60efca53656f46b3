import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.tensor import TensorInfo
from partitioner.candidates import fix_batch, legal_cuts, prefixes


def tensor(name, size=4, dtype="int8", batch=1):
    return TensorInfo(name=name, shape=(batch, size), dtype=dtype)


def layer(name, inputs, made, *, macs=0, group=""):
    return Layer(name=name, op="op", inputs=inputs, outputs=made, macs=macs, weight_bytes=10, group=group)


@pytest.fixture
def graph():
    layers = (
        layer("widen", (), (tensor("w"),)),
        layer("conv", ("x", "w"), (tensor("t1", 100),), macs=50, group="one"),
        layer("relu", ("t1",), (tensor("t2", 100),), group="one"),
        layer("left", ("t2",), (tensor("t3", 20, "float32"),), macs=30),
        layer("narrow", ("t2",), (tensor("t4", 20, "int4"),), macs=20),
        layer("add", ("t3", "t4"), (tensor("y"),)),
    )
    return LayerGraph(inputs=(tensor("x", 40),), outputs=("y",), layers=layers)


def test_every_position_of_the_order_is_listed_with_what_crosses_there(graph):
    found = prefixes(graph)
    assert [item.after for item in found] == ["", "widen", "conv", "relu", "left", "narrow", "add"]
    assert [item.cut.up_bytes for item in found] == [40, 40, 100, 100, 80 + 100, 80 + 10, 0]
    assert [item.edge_macs for item in found] == [0, 0, 50, 50, 80, 100, 100]
    assert found[0].cut.id == "all-cloud" and found[-1].cut.id == "all-edge"


def test_positions_that_cannot_be_cut_say_why(graph):
    refused = {item.after: item.refused for item in prefixes(graph) if item.refused}
    assert set(refused) == {"widen", "conv", "narrow"}
    assert refused["widen"] == ("the edge would compute nothing that depends on the inputs: the same as all-cloud",)
    assert refused["conv"] == ("inside a fused pattern: conv, relu are computed as one",)
    assert "t4 would cross as int4" in refused["narrow"][0]
    assert [len(cut.edge_layers) for cut in legal_cuts(graph)] == [0, 3, 4, 6]


def test_a_dynamic_batch_is_fixed_before_bytes_are_counted():
    graph = LayerGraph(
        inputs=(tensor("x", 40, batch=-1),),
        outputs=("y",),
        layers=(layer("conv", ("x",), (tensor("y", batch=-1),)),),
    )
    assert prefixes(fix_batch(graph, 8))[0].cut.up_bytes == 320


def test_a_model_without_layers_is_refused():
    with pytest.raises(BadInput, match="no layers"):
        prefixes(LayerGraph(inputs=(tensor("x"),), outputs=("x",), layers=()))
