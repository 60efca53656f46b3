"""What flows into the weighted layers of a prepared PT2E graph, in float, and the observers of their weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from converters.executorch.program import attribute

__all__ = ["apply", "observed_weights", "visit_inputs"]


def observed_weights(prepared: Any) -> dict[Any, tuple[Any, Any]]:
    """(observer, float weight) by the node of each layer whose weight is a constant with a scale for each channel."""
    import torch
    from torchao.quantization.pt2e import PerChannelMinMaxObserver

    aten = torch.ops.aten
    layers = (
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv2d.padding,
        aten.conv1d.padding,
        aten.conv_transpose2d.input,
        aten.linear.default,
    )
    modules = dict(prepared.named_modules())
    found = {}
    for node in prepared.graph.nodes:
        if node.op != "call_function" or node.target not in layers or len(node.args) < 2 or node.kwargs:
            continue
        observed = node.args[1]
        observer = modules.get(str(observed.target)) if observed.op == "call_module" else None
        if isinstance(observer, PerChannelMinMaxObserver) and observed.args[0].op == "get_attr":
            found[node] = (observer, attribute(prepared, str(observed.args[0].target)).detach())
    return found


def visit_inputs(
    prepared: Any,
    nodes: Collection[Any],
    batches: Iterable[tuple[Any, ...]],
    visit: Callable[[Any, Any], None],
) -> None:
    """Call visit(node, its float input) for every node and batch; observers are passed by and stay as they are."""
    import torch
    from torchao.quantization.pt2e import ObserverBase

    class Recorder(torch.fx.Interpreter):  # type: ignore[misc]  # its types are not read, see pyproject.toml
        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            if isinstance(self.fetch_attr(target), ObserverBase):
                return args[0]
            return super().call_module(target, args, kwargs)

        def run_node(self, node: Any) -> Any:
            if node in nodes:
                visit(node, self.fetch_args_kwargs_from_env(node)[0][0])
            return super().run_node(node)

    with torch.no_grad():
        for batch in batches:
            Recorder(prepared).run(*batch)


def apply(node: Any, x: Any, weight: Any) -> Any:
    """What the layer makes of `x` with another weight and no bias, output channels on the last axis, flattened.

    Returns:
        Tensor [positions, channels].
    """
    import torch

    values = node.target(x, weight, None, *node.args[3:])
    if node.target is not torch.ops.aten.linear.default:
        values = values.movedim(1, -1)
    return values.reshape(-1, values.shape[-1])
