import pytest

from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE, make_cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.tensor import TensorInfo


def tensor(name: str, shape=(1, 10), dtype="int8") -> TensorInfo:
    return TensorInfo(name=name, shape=shape, dtype=dtype)


@pytest.fixture
def diamond() -> LayerGraph:
    layers = (
        Layer(name="a", op="CONV", inputs=("x",), outputs=(tensor("ta", (1, 7), "int4"),)),
        Layer(name="b", op="CONV", inputs=("ta",), outputs=(tensor("tb"),)),
        Layer(name="c", op="CONV", inputs=("ta", "x"), outputs=(tensor("tc", (1, 3), "float32"),)),
        Layer(name="d", op="ADD", inputs=("tb", "tc"), outputs=(tensor("y"),)),
    )
    return LayerGraph(inputs=(tensor("x", (1, 100)),), outputs=("y", "tb"), layers=layers)


def test_a_cut_names_every_tensor_that_crosses_once_in_the_type_it_has(diamond):
    cut = make_cut(diamond, ["a"])
    assert [item.name for item in cut.up] == ["ta", "x"]
    assert cut.up_bytes == 4 + 100
    assert [item.name for item in cut.down] == ["y", "tb"]


def test_all_edge_and_all_cloud_are_ordinary_cuts(diamond):
    edge, cloud = make_cut(diamond, ["a", "b", "c", "d"]), make_cut(diamond, [])
    assert (edge.id, edge.up, edge.down) == (ALL_EDGE, (), ())
    assert (cloud.id, cloud.up_bytes, cloud.down_bytes) == (ALL_CLOUD, 100, 20)


def test_an_output_made_on_the_edge_does_not_come_back(diamond):
    assert [item.name for item in make_cut(diamond, ["a", "b"]).down] == ["y"]


def test_the_id_depends_on_the_edge_layers_alone(diamond):
    assert make_cut(diamond, ["b", "a"]).id == make_cut(diamond, ["a", "b"]).id != make_cut(diamond, ["a", "c"]).id


@pytest.mark.parametrize(("edge", "said"), [(["b"], "reads ta"), (["nope"], "no layer named nope")])
def test_what_is_no_down_set_is_refused(diamond, edge, said):
    with pytest.raises(BadInput, match=said):
        make_cut(diamond, edge)


def test_a_dynamic_tensor_has_no_bytes():
    layer = Layer(name="a", op="X", inputs=("x",), outputs=(tensor("y", (-1, 2)),))
    graph = LayerGraph(inputs=(tensor("x"),), outputs=("y",), layers=(layer,))
    with pytest.raises(BadInput, match="fix the batch"):
        make_cut(graph, []).down_bytes
