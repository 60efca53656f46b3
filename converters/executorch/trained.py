"""Give a calibrated PT2E graph the scales that training learned, as they are."""

from __future__ import annotations

from typing import Any

from converters.compress.trained_layers import TrainedLayers
from converters.executorch.layer_inputs import observed_weights
from converters.executorch.layers import layer_name
from converters.executorch.searched_scales import searched_scale_observer
from edge_deploy.core.errors import BadInput

__all__ = ["set_trained"]


def set_trained(prepared: Any, trained: TrainedLayers) -> dict[Any, Any]:
    """Set the observers of weights and activations, in place.

    Returns:
        The weights that need no further search, by the node of their layer.

    Raises:
        BadInput: A layer has another number of output channels than scales.
    """
    import torch

    weights, found = trained.weights(), {}
    for node, (observer, weight) in observed_weights(prepared).items():
        scales = weights.get(layer_name(node))
        if scales is None:
            continue
        if len(scales) != len(weight):
            raise BadInput(f"layer {layer_name(node)}: {len(scales)} trained scales: must be {len(weight)}.")
        given = torch.from_numpy(scales)
        if isinstance(observer, searched_scale_observer()):
            observer.scales, observer.seen = given, weight.clone()
        else:
            zero_points = torch.zeros(len(given), dtype=torch.int64)
            observer.calculate_qparams = lambda given=given, zero_points=zero_points: (given, zero_points)
        found[node] = weight
    _set_activations(prepared, trained)
    return found


def _set_activations(prepared: Any, trained: TrainedLayers) -> None:
    """An observer watches a layer's result, a fused activation's, or an input; shared ones keep what samples say."""
    import torch
    from torchao.quantization.pt2e import MinMaxObserver

    modules = dict(prepared.named_modules())
    affine = trained.affine()
    watched: dict[int, tuple[Any, set[Any]]] = {}
    for node in prepared.graph.nodes:
        observer = modules.get(str(node.target)) if node.op == "call_module" else None
        if type(observer) is MinMaxObserver:
            told = affine.get(_watched_layer(node.args[0]))
            watched.setdefault(id(observer), (observer, set()))[1].add(told)
    for observer, several in watched.values():
        known = {each for each in several if each is not None}
        if len(known) == 1:
            (only,) = known
            observer.min_val = torch.tensor((-128 - only.zero_point) * only.scale)
            observer.max_val = torch.tensor((127 - only.zero_point) * only.scale)


def _watched_layer(node: Any) -> str:
    """The layer whose result this is: a relu belongs to the layer before it."""
    import torch

    aten = torch.ops.aten
    rectifiers = (aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.hardtanh_.default)
    if node.op == "placeholder":
        return str(node.target)
    if node.target in rectifiers and getattr(node.args[0], "op", "") == "call_function":
        return layer_name(node.args[0])
    return layer_name(node)
