"""Put a profiler's events under the layers of the graph where they do not bear their names.

ExecuTorch's trace names delegated operators with weights, and calls all others "Add (ND) #1". They are aligned with
the layers that lie between the named ones, as events of .tflite files are by `runtimes.xnnpack_events`.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_deploy.core.layer_graph import LayerGraph
from runtimes.xnnpack_events import assign_events

__all__ = ["under_layer_names"]

# Start of the last part of an ATen operator's name → what `assign_events` calls it.
_ATEN = (
    ("add", "ADD"),
    ("sub", "SUB"),
    ("mul", "MUL"),
    ("div", "DIV"),
    ("mean", "MEAN"),
    ("adaptive_avg_pool", "MEAN"),
    ("avg_pool", "AVERAGE_POOL_2D"),
    ("max_pool", "MAX_POOL_2D"),
    ("relu6", "RELU6"),
    ("relu", "RELU"),
    ("hardtanh", "RELU6"),
    ("clamp", "RELU6"),
    ("hardswish", "HARD_SWISH"),
    ("leaky_relu", "LEAKY_RELU"),
    ("sigmoid", "LOGISTIC"),
    ("softmax", "SOFTMAX"),
    ("tanh", "TANH"),
    ("gelu", "GELU"),
    ("elu", "ELU"),
    ("constant_pad", "PAD"),
    ("pad", "PAD"),
    ("permute", "TRANSPOSE"),
    ("transpose", "TRANSPOSE"),
    ("contiguous", "TRANSPOSE"),
    ("clone", "TRANSPOSE"),
    ("flatten", "RESHAPE"),
    ("reshape", "RESHAPE"),
    ("view", "RESHAPE"),
    ("squeeze", "SQUEEZE"),
    ("unsqueeze", "EXPAND_DIMS"),
    ("cat", "CONCATENATION"),
    ("slice", "SLICE"),
    ("split", "SPLIT"),
    ("bmm", "BATCH_MATMUL"),
    ("matmul", "BATCH_MATMUL"),
    ("linear", "FULLY_CONNECTED"),
    ("conv", "CONV_2D"),
    ("upsample_bilinear", "RESIZE_BILINEAR"),
)


def under_layer_names(graph: LayerGraph, event_s: Mapping[str, float]) -> dict[str, float]:
    """Seconds by layer name; events that stand for no layer, such as conversions with none around, keep their own.

    Args:
        event_s: In order of execution.
    """
    place = {layer.name: index for index, layer in enumerate(graph.layers)}
    found: dict[str, float] = {}
    waiting: list[str] = []
    behind = -1
    for name in [*event_s, None]:
        if name is not None and name not in place:
            waiting.append(name)
            continue
        ahead = len(graph.layers) if name is None else place[name]
        # The layer ahead may take what converts its input, the one behind what is done to its output.
        between = range(behind + 1, ahead)
        names = [graph.layers[index].name for index in between]
        places = assign_events(
            [_bare(event) for event in waiting], [_word(graph.layers[index].op) for index in between]
        )
        for event, at in zip(waiting, places, strict=True):
            target = names[at] if at is not None else event
            found[target] = found.get(target, 0.0) + event_s[event]
        waiting = []
        if name is not None:
            found[name] = found.get(name, 0.0) + event_s[name]
            behind = max(behind, ahead)
    return found


def _bare(event: str) -> str:
    return event.partition(" #")[0]


def _word(op: str) -> str:
    if not op.startswith("aten."):
        return op
    name = op.removeprefix("aten.").lstrip("_")
    return next((word for start, word in _ATEN if name.startswith(start)), op)
