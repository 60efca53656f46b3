import pytest

from edge_deploy.core.cut import ALL_CLOUD
from edge_deploy.zoo.adaptive_dnn_nets import NETS, PUBLISHED_CUTS, build_net
from edge_deploy.zoo.keras_graph import keras_graph
from partitioner.study.published_cuts import published_cuts

# What Keras's graphs of today have where that differs from the study's.
CHANGED = {"mobilenet": 90, "resnet50": 24}


@pytest.mark.parametrize("name", ["lenet", "mobilenet"])
def test_cuts_are_counted_as_in_the_study(name):
    pytest.importorskip("keras")
    cuts = published_cuts(keras_graph(build_net(name)), name)
    assert len(cuts) == CHANGED.get(name, PUBLISHED_CUTS[name])
    assert all(len(cut.up) == 1 for cut in cuts)
    assert (cuts[0].id == ALL_CLOUD) == bool(NETS[name])


def test_together_they_are_233_by_our_count_and_234_as_published():
    assert sum(PUBLISHED_CUTS.values()) == 234
    assert sum({**PUBLISHED_CUTS, **CHANGED}.values()) == 233
