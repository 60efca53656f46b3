"""Statistics of every layer of an exported program, and of what reaches its batch norms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.calibration.accumulate import LayerObserver, Moments
from converters.calibration.statistics import LayerStatistics, NormStatistics
from converters.contracts import Captured

__all__ = ["observe_program"]


def observe_program(
    captured: Captured, feeds: Path, count: int
) -> tuple[tuple[LayerStatistics, ...], tuple[NormStatistics, ...]]:
    """Run samples through the float program.

    Args:
        feeds: npz of calibration samples by input name.
        count: How many of them to run.

    Raises:
        BadInput: Samples do not fit the inputs.
    """
    import torch

    from converters.executorch.calibration import calibration_batches
    from converters.executorch.program import load_graph

    graph = load_graph(captured)
    layers: dict[str, LayerObserver] = {}
    norms = {node.name: Moments() for node in _first_norms(graph)}
    fixed = captured.inputs[0].shape[0]
    batch = fixed if fixed > 0 else captured.batches[0]
    left = count

    class Watch(torch.fx.Interpreter):  # type: ignore[misc]  # torch ships no types here
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            if n.op == "call_function" and isinstance(result, torch.Tensor) and result.is_floating_point():
                _see(n, result)
            if n.name in norms:
                norms[n.name].see(self.env[n.args[0]][:left].double().numpy(), 1)
            return result

    def _see(node: Any, result: Any) -> None:
        if result.dim() < 2 or len(result) != batch:
            return
        observer = layers.get(node.name)
        if observer is None:
            observer = layers[node.name] = _observer(graph, node)
        observer.see(result[:left].detach().numpy())

    # Values are kept until the batch is done: a batch norm's input is read after the batch norm has run.
    watch = Watch(graph, garbage_collect_values=False)
    with torch.no_grad():
        for tensors in calibration_batches(feeds, captured.inputs, batch):
            watch.run(*tensors)
            left -= batch
            if left <= 0:
                break
    found = tuple(_norm(graph, node, norms[node.name]) for node in graph.graph.nodes if node.name in norms)
    return tuple(observer.statistics() for observer in layers.values() if observer.lows), found


def _first_norms(graph: Any) -> list[Any]:
    """Batch norms with constant statistics that no other one comes before."""
    import torch

    behind: set[Any] = set()
    first = []
    for node in graph.graph.nodes:
        below = any(given in behind for given in node.all_input_nodes)
        is_norm = node.target is torch.ops.aten.batch_norm.default and not node.args[5]
        if is_norm and not below and all(getattr(arg, "op", "") == "get_attr" for arg in node.args[3:5]):
            first.append(node)
        if below or is_norm:
            behind.add(node)
    return first


def _norm(graph: Any, node: Any, moments: Moments) -> NormStatistics:
    from converters.executorch.program import attribute

    mean, variance = (attribute(graph, arg.target).detach().double().numpy() for arg in node.args[3:5])
    return moments.against(_name(node), mean, variance + float(node.args[7]))


def _name(node: Any) -> str:
    from converters.executorch.program import LAYER

    return str(node.meta.get("custom", {}).get(LAYER, node.name))


def _observer(graph: Any, node: Any) -> LayerObserver:
    import torch

    from converters.executorch.program import attribute

    aten = torch.ops.aten
    weighted = (aten.conv1d.default, aten.conv2d.default, aten.linear.default)
    rectified = (
        aten.relu.default,
        aten.relu_.default,
        aten.relu6.default,
        aten.hardtanh.default,
        aten.hardtanh_.default,
    )
    bounds: tuple[float, ...] | None = None
    if node.target in (aten.hardtanh.default, aten.hardtanh_.default):
        low, high = (float(value) for value in (*node.args[1:3], *(-1.0, 1.0)[len(node.args) - 1 :]))
        bounds = (high,) if low == 0.0 else (low, high)
    elif node.target is aten.relu6.default:
        bounds = (6.0,)
    elif node.target in (aten.sigmoid.default, aten.tanh.default):
        bounds = (0.001, 0.999) if node.target is aten.sigmoid.default else (-0.999, 0.999)
    bias = None
    if node.target in weighted and len(node.args) > 2 and getattr(node.args[2], "op", "") == "get_attr":
        bias = attribute(graph, node.args[2].target).detach().numpy()
    return LayerObserver(
        layer=_name(node),
        axis=_channel_axis(node),
        rectified=node.target in rectified and (bounds is None or len(bounds) == 1),
        bounds=bounds,
        bias=bias,
    )


def _channel_axis(node: Any) -> int:
    """1 behind convolutions, the last behind linears: by the nearest layer with weights above."""
    import torch

    last = (torch.ops.aten.linear.default, torch.ops.aten.layer_norm.default)
    while node is not None and node.op == "call_function":
        if node.target in last:
            return -1
        if "conv" in str(node.target) or "batch_norm" in str(node.target):
            return 1
        node = next((given for given in node.all_input_nodes if given.op == "call_function"), None)
    return 1
