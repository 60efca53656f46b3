"""The layer graph of a lowered net says in which type values travel, and which layers are computed as one."""

import pytest

pytest.importorskip("executorch")


def travelling(graph):
    return {info.name: info.dtype for layer in graph.layers for info in layer.outputs}


def groups(graph):
    found = {}
    for layer in graph.layers:
        if layer.group:
            found.setdefault(layer.group, []).append(layer.name)
    return sorted(found.values())


def test_values_between_quantized_layers_are_int8_with_scale_and_zero_point(convert):
    graph = convert("residual", "int8").lowered.graph
    found = travelling(graph)
    assert {found[name] for name in ("relu6:0", "relu:0", "project:0", "relu_1:0", "mean:0")} == {"int8"}
    assert found["y"] == "float32" and graph.outputs == ("y",)
    for layer in graph.layers:
        for info in layer.outputs:
            assert (len(info.scale), len(info.zero_point)) == ((1, 1) if info.dtype == "int8" else (0, 0))


def test_activations_and_pads_are_one_with_the_layer_they_are_fused_with(convert):
    assert groups(convert("residual", "int8").lowered.graph) == [
        ["add", "relu_1"],
        ["depthwise", "relu"],
        ["stem", "relu6"],
    ]
    assert ["pad", "branch"] in groups(convert("mixed", "int8").lowered.graph)


def test_a_value_that_two_layers_read_has_one_name(convert):
    graph = convert("residual", "int8").lowered.graph
    readers = [layer.name for layer in graph.layers if "relu6:0" in layer.inputs]
    assert readers == ["depthwise", "add"]


def test_of_a_float_net_everything_travels_as_float_and_nothing_is_grouped(convert):
    graph = convert("residual", "float32").lowered.graph
    assert set(travelling(graph).values()) == {"float32"}
    assert groups(graph) == []


def test_int8_inputs_and_outputs_bear_their_scales(convert):
    lowered = convert("residual", "int8", io="int8").lowered
    (taken,), (given,) = lowered.graph.inputs, lowered.graph.layers[-1].outputs
    assert (taken.dtype, taken.scale) == ("int8", lowered.signatures[0].inputs[0].scale)
    assert (given.name, given.dtype, given.scale) == ("y", "int8", lowered.signatures[0].outputs[0].scale)
