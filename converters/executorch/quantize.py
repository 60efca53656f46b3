"""Quantize an exported program with PT2E and XNNPACK's annotations: static activations, symmetric weights per channel.

The quantized program stays an ordinary exported program (`quantized_decomposed` operators), which is what
`quantized.pt2` keeps and what `converters.executorch.lowering` turns into a `.pte`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from converters.compress.trained_layers import TrainedLayers
from converters.executorch.calibration import Samples
from converters.executorch.differences import annotate_differences
from converters.executorch.layers import layer_name
from converters.executorch.means import annotate_means
from converters.executorch.pads import annotate_pads, join_pads
from converters.executorch.ranges import set_ranges
from converters.executorch.subsample import annotate_subsamples
from edge_deploy.core.errors import ToolchainError
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["INT4_PACKED", "INT4_STORED", "quantize"]

INT4_PACKED = "int4 packed"
"""Weights in [-8, 7], exactly what makes XNNPACK pack two to a byte; linears only."""
INT4_STORED = "int4 stored"
"""Weights in [-8, 7] too, stored two to a byte beside the program and computed as int8."""

_WEIGHT_RANGE = {"int8": (-127, 127), INT4_PACKED: (-8, 7), INT4_STORED: (-8, 7)}


def quantize(
    graph: Any, widths: Mapping[str, str], samples: Samples, spec: QuantSpec, *, trained: TrainedLayers | None = None
) -> Any:
    """Quantize an unlifted float graph.

    Args:
        graph: From `program.export(...).module()`; it is consumed.
        widths: For every layer with weights: "int8", INT4_PACKED, INT4_STORED, or "float32".
        samples: For calibration.
        trained: Scales that training learned; they are taken as they are.

    Returns:
        The converted graph module, with `quantized_decomposed` operators, to be exported again.

    Raises:
        ToolchainError: PT2E fails.
    """
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import ComposableQuantizer

    quantizers = [_quantizer(width, widths) for width in dict.fromkeys(widths.values()) if width != "float32"]
    if not quantizers:
        quantizers = [_quantizer("int8", widths)]
    clamps = _fuse_clamps(graph, widths)
    try:
        prepared = prepare_pt2e(graph, ComposableQuantizer(quantizers))
        with torch.no_grad():
            set_ranges(prepared, clamps, samples, spec, trained)
            converted = convert_pt2e(prepared)
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, AttributeError) as error:
        raise ToolchainError(f"PT2E quantization: {type(error).__name__}: {error}") from error
    _compute_as_int8(converted, {layer for layer, width in widths.items() if width == INT4_STORED})
    join_pads(converted)
    return converted


def _quantizer(width: str, widths: Mapping[str, str]) -> Any:
    """Annotates layers of this width, and everything without weights; the first quantizer to annotate a node wins."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import propagate_annotation

    config, eight_bits = _config(width), _config("int8").weight

    class WithPads(XNNPACKQuantizer):  # type: ignore[misc]  # its types are not read, see pyproject.toml
        """Pads too: one between quantized neighbours that stays in float makes a file that does not load. Own means."""

        # Batch norms of a training graph, which none of ours is; to look for them, seconds of examples are traced.
        SUPPORTED_PATTERNS = tuple(each for each in XNNPACKQuantizer.SUPPORTED_PATTERNS if "bn" not in each.name)

        def annotate(self, model: Any) -> Any:
            annotate_subsamples(model, config.input_activation, eight_bits)
            model = super().annotate(model)
            annotate_differences(model, config.input_activation)
            annotate_pads(model, config.input_activation)
            annotate_means(model, config.input_activation)
            propagate_annotation(model)
            return model

    def wanted(node: Any) -> bool:
        return node.op != "call_function" or widths.get(layer_name(node), width) == width

    return WithPads().set_global(config).set_filter_function(wanted)


def _config(width: str) -> Any:
    import torch
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

    from converters.executorch.searched_scales import searched_scale_observer

    smallest_scale = {"eps": 2**-20}
    low, high = _WEIGHT_RANGE[width]
    of_weights = PerChannelMinMaxObserver if width == "int8" else searched_scale_observer()
    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=MinMaxObserver.with_args(**smallest_scale),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=low,
        quant_max=high,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=of_weights.with_args(**smallest_scale),
    )
    return QuantizationConfig(activation, activation, weight, None, False)


def _compute_as_int8(converted: Any, layers: Collection[str]) -> None:
    """Declare the weights of `layers` to be in [-127, 127]: those declared as [-8, 7] XNNPACK packs and then refuses.

    The declared limits change nothing in what a dequantize computes.
    """
    import torch

    for node in converted.graph.nodes:
        if node.target is not torch.ops.quantized_decomposed.dequantize_per_channel.default:
            continue
        if any(layer_name(user) in layers for user in node.users):
            node.args = (*node.args[:4], *_WEIGHT_RANGE["int8"], *node.args[6:])
    converted.recompile()


def _fuse_clamps(graph: Any, widths: Mapping[str, str]) -> dict[str, float]:
    """Make a clamp to [0, c] behind a quantized layer a relu, which PT2E fuses; returns c by the relu's node name.

    The clamp at c is not lost: the observed range is cut at c, and an int8 value saturates there. `set_ranges` clamps
    during calibration.
    """
    import torch

    aten = torch.ops.aten
    clamps: dict[str, float] = {}
    for node in list(graph.graph.nodes):
        if node.target in (aten.relu6.default, aten.relu6_.default):
            low, high = 0.0, 6.0
        elif node.target in (aten.hardtanh.default, aten.hardtanh_.default, aten.clamp.default):
            bounds = (*node.args[1:3], *(None,) * (3 - len(node.args)))
            if any(not isinstance(bound, (int, float)) for bound in bounds):
                continue
            low, high = float(bounds[0]), float(bounds[1])
        else:
            continue
        producer = node.args[0]
        quantized = widths.get(layer_name(producer), "int8") != "float32" and producer.target in (
            aten.conv2d.default,
            aten.conv1d.default,
            aten.linear.default,
            aten.add.Tensor,
        )
        if low != 0.0 or high <= 0.0 or not quantized or len(producer.users) != 1:
            continue
        node.target, node.args, node.kwargs = aten.relu.default, (producer,), {}
        clamps[node.name] = high
    graph.recompile()
    return clamps
