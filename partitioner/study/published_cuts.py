"""Where the adaptive-DNN study cuts its eight nets: 233 places by our count, 234 published."""

from __future__ import annotations

from edge_deploy.core.cut import ALL_CLOUD, Cut
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.zoo.adaptive_dnn_nets import NETS
from partitioner.open_branches import single_tensor_cuts

__all__ = ["published_cuts"]


def published_cuts(graph: LayerGraph, name: str) -> tuple[Cut, ...]:
    """Behind each layer but the last at which no branch is open.

    The layers of Keras's own nets begin with the input, so that a cut behind it, all-cloud, is among theirs; the two
    chains, LeNet and AlexNet, have no such layer. MobileNet has 90 such cuts and 92 in the study, ResNet50 24 and 23:
    Keras's own graphs have changed since.
    """
    return tuple(cut for cut in single_tensor_cuts(graph) if NETS[name] or cut.id != ALL_CLOUD)
