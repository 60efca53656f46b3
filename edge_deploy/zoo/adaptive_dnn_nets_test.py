import numpy as np
import pytest

from edge_deploy.core.clock import ManualClock
from edge_deploy.core.cut import ALL_CLOUD
from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.adaptive_dnn_nets import NETS, PUBLISHED_CUTS, build_net, published_cuts
from edge_deploy.zoo.keras_layers import halves_of, layer_graph, random_image, time_layers

pytest.importorskip("keras")
# What Keras's graphs of today have where that differs from the study's.
CHANGED = {"mobilenet": 90, "resnet50": 24}


@pytest.fixture(scope="module")
def small():
    model = build_net("lenet")
    return model, layer_graph(model)


@pytest.mark.parametrize("name", ["lenet", "mobilenet", "resnet50", "resnet50v2", "densenet121"])
def test_cuts_are_counted_as_in_the_study(name):
    cuts = published_cuts(layer_graph(build_net(name)), name)
    assert len(cuts) == CHANGED.get(name, PUBLISHED_CUTS[name])
    assert all(len(cut.up) == 1 for cut in cuts)
    assert (cuts[0].id == ALL_CLOUD) == bool(NETS[name])


def test_together_they_are_233_by_our_count_and_234_as_published():
    assert sum(PUBLISHED_CUTS.values()) == 234
    assert sum({**PUBLISHED_CUTS, **CHANGED}.values()) == 233


def test_head_and_tail_compute_what_the_whole_does(small):
    model, graph = small
    image = random_image(graph, seed=3)
    whole = np.asarray(model(list(image.values()), training=False))
    for cut in published_cuts(graph, "lenet"):
        head, tail = halves_of(model, graph, cut)
        (answer,) = tail(head(image)).values()
        np.testing.assert_array_equal(answer, whole)


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
