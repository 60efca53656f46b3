"""Outputs are made as early as they can be, and nothing else changes."""

from edge_deploy.core.early_order import outputs_early
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.tensor import TensorInfo


def tensor(name):
    return TensorInfo(name=name, shape=(1, 4), dtype="int8")


def layer(name, *inputs):
    return Layer(name=name, op="OP", inputs=inputs, outputs=(tensor(f"{name}:0"),))


def graph(*layers, outputs):
    return LayerGraph(inputs=(tensor("x"),), outputs=outputs, layers=layers)


def test_what_ends_an_early_exit_stands_behind_the_layer_that_it_reads():
    given = graph(
        layer("trunk", "x"),
        layer("pool", "trunk:0"),
        layer("deep", "trunk:0"),
        layer("end", "deep:0"),
        layer("exit", "pool:0"),
        layer("exit_float", "exit:0"),
        layer("end_float", "end:0"),
        outputs=("exit_float:0", "end_float:0"),
    )
    found = outputs_early(given)
    assert [each.name for each in found.layers] == [
        *("trunk", "pool", "exit", "exit_float"),
        *("deep", "end", "end_float"),
    ]
    assert (found.inputs, found.outputs) == (given.inputs, given.outputs)


def test_a_model_of_one_output_or_in_this_order_already_stays_the_very_same():
    chain = graph(layer("a", "x"), layer("b", "a:0"), outputs=("b:0",))
    assert outputs_early(chain) is chain
    early = graph(layer("a", "x"), layer("exit", "a:0"), layer("b", "a:0"), outputs=("exit:0", "b:0"))
    assert outputs_early(early) == early


def test_an_output_that_others_go_on_from_is_no_branch():
    given = graph(layer("a", "x"), layer("b", "a:0"), outputs=("a:0", "b:0"))
    assert outputs_early(given) is given
