"""Take back, in the biases, the shift of each output channel's mean that rounding the weights causes.

Rounding shifts the mean of an output channel by the mean of (W_q - W) * x. In narrow nets and with 4-bit weights that
is a large part of the error, and subtracting it from the bias costs nothing at run time. After arXiv:1906.04721 (Nagel
et al., 2019), section 4.2, with the mean taken over calibration samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from converters.executorch.program import attribute, set_attribute

__all__ = ["correct_biases"]

MOST_SAMPLES = 128


def correct_biases(prepared: Any, batches: Iterable[tuple[Any, ...]]) -> int:
    """Change the biases of a calibrated PT2E graph, in place; returns how many layers were corrected.

    Args:
        batches: Calibration batches; the first ones that make `MOST_SAMPLES` samples are used.
    """
    import torch
    from torchao.quantization.pt2e import ObserverBase

    errors = _weight_errors(prepared)
    sums: dict[Any, Any] = {}
    runs = 0

    class Recorder(torch.fx.Interpreter):  # type: ignore[misc]  # its types are not read, see pyproject.toml
        """Runs the graph past its observers, whose ranges stand, and adds up what each layer's weight error gives."""

        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            if isinstance(self.fetch_attr(target), ObserverBase):
                return args[0]
            return super().call_module(target, args, kwargs)

        def run_node(self, node: Any) -> Any:
            if node in errors:
                x = self.fetch_args_kwargs_from_env(node)[0][0]
                shift = _mean_per_channel(node, node.target(x, errors[node], None, *node.args[3:]))
                sums[node] = sums.get(node, 0) + shift
            return super().run_node(node)

    seen = 0
    with torch.no_grad():
        for batch in batches:
            if seen >= MOST_SAMPLES:
                break
            Recorder(prepared).run(*batch)
            seen += len(batch[0])
            runs += 1
    for node, total in sums.items():
        _subtract(prepared, node, total / runs)
    prepared.recompile()
    return len(sums)


def _weight_errors(prepared: Any) -> dict[Any, Any]:
    """Dequantized minus float weights, by the node of the layer."""
    import torch
    from torchao.quantization.pt2e import PerChannelMinMaxObserver

    modules = dict(prepared.named_modules())
    found = {}
    for node in prepared.graph.nodes:
        if node.op != "call_function" or node.target not in _layers() or len(node.args) < 2:
            continue
        observed = node.args[1]
        observer = modules.get(str(observed.target)) if observed.op == "call_module" else None
        has_plain_bias = len(node.args) < 3 or node.args[2] is None or node.args[2].op == "get_attr"
        if not isinstance(observer, PerChannelMinMaxObserver) or observed.args[0].op != "get_attr" or node.kwargs:
            continue
        if not has_plain_bias:
            continue
        weight = attribute(prepared, str(observed.args[0].target)).detach()
        scale, zero_point = observer.calculate_qparams()
        rounded = torch.fake_quantize_per_channel_affine(
            weight, scale, zero_point.int(), observer.ch_axis, observer.quant_min, observer.quant_max
        )
        found[node] = rounded - weight
    return found


def _layers() -> tuple[Any, ...]:
    import torch

    aten = torch.ops.aten
    return (
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv2d.padding,
        aten.conv1d.padding,
        aten.conv_transpose2d.input,
        aten.linear.default,
    )


def _mean_per_channel(node: Any, values: Any) -> Any:
    import torch

    if node.target is torch.ops.aten.linear.default:
        return values.reshape(-1, values.shape[-1]).mean(0)
    return values.mean([axis for axis in range(values.dim()) if axis != 1])


def _subtract(prepared: Any, node: Any, shift: Any) -> None:
    bias = node.args[2] if len(node.args) > 2 else None
    near = str(bias.target if bias is not None else node.args[1].args[0].target)
    value = -shift if bias is None else attribute(prepared, near).detach() - shift
    with prepared.graph.inserting_before(node):
        corrected = prepared.graph.get_attr(set_attribute(prepared, near, "corrected", value))
    node.args = (*node.args[:2], corrected, *node.args[3:])
