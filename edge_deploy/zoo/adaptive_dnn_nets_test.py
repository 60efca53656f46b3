import numpy as np
import pytest

from edge_deploy.core.clock import ManualClock
from edge_deploy.core.cut import make_cut
from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.adaptive_dnn_nets import build_net
from edge_deploy.zoo.keras_graph import keras_graph
from edge_deploy.zoo.keras_layers import halves_of, random_image, time_layers

pytest.importorskip("keras")


@pytest.fixture(scope="module")
def small():
    model = build_net("lenet")
    return model, keras_graph(model)


def test_head_and_tail_compute_what_the_whole_does(small):
    model, graph = small
    image = random_image(graph, seed=3)
    whole = np.asarray(model(image["image"], training=False))
    for count in (1, 3, 7, 10):
        cut = make_cut(graph, [layer.name for layer in graph.layers[:count]])
        head, tail = halves_of(model, graph, cut)
        (answer,) = tail(head(image)).values()
        np.testing.assert_allclose(answer, whole, rtol=1e-5)


def test_every_layer_is_timed(small):
    model, graph = small
    seconds, whole_s = time_layers(model, graph, clock=ManualClock(tick_s=1.0), rounds=2)
    assert seconds == {layer.name: 1.0 for layer in graph.layers}
    assert whole_s == 2 * len(graph.layers) + 1


def test_sizes_and_macs_are_those_of_the_layers(small):
    _, graph = small
    by_op = {layer.op: layer for layer in graph.layers}
    assert by_op["Conv2D"].macs == 14 * 14 * 5 * 5 * 20 * 50
    assert by_op["Dense"].weight_bytes == 4 * (500 * 1000 + 1000)
    assert graph.inputs[0].shape == (1, 28, 28, 1)


def test_unknown_nets_are_refused():
    with pytest.raises(BadInput, match="known: lenet"):
        build_net("lennet")
