"""Linears with INT8 or packed INT4 weights that quantize their inputs on the fly; everything else stays in float."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from edge_deploy.core.errors import ToolchainError

__all__ = ["quantize_dynamic"]


def quantize_dynamic(
    graph: Any, widths: Mapping[str, int], example: tuple[Any, ...], *, learned: Mapping[str, Any] | None = None
) -> Any:
    """Quantize the linears of an unlifted float graph; no calibration is needed.

    Args:
        graph: From `program.export(...).module()`; it is consumed.
        widths: 4, 8 or 32 bits by layer name.
        example: Inputs of the graph.
        learned: float32 scales [out] of layers whose weights training has put on a grid already, by layer name.

    Raises:
        ToolchainError: PT2E fails.
    """
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import ComposableQuantizer

    own = {name: scales for name, scales in (learned or {}).items() if widths.get(name, 32) != 32}
    others = {name: width for name, width in widths.items() if name not in own}
    quantizers = [_quantizer(width, others) for width in sorted(set(others.values()) - {32})]
    quantizers += [_quantizer(widths[name], {name: widths[name]}, scales) for name, scales in own.items()]
    if not quantizers:
        return graph
    try:
        prepared = prepare_pt2e(graph, ComposableQuantizer(quantizers))
        with torch.no_grad():
            prepared(*example)
            return convert_pt2e(prepared)
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, AttributeError) as error:
        raise ToolchainError(f"PT2E quantization: {type(error).__name__}: {error}") from error


def _quantizer(width: int, linear: Mapping[str, int], scales: Any = None) -> Any:
    """Dynamic INT8 activations; XNNPACK packs two weights to a byte exactly when their bounds are -8 and 7."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
    from torchao.quantization.pt2e import PerChannelMinMaxObserver, PlaceholderObserver
    from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

    from converters.executorch.layers import layer_name

    # The stock configuration keeps scales above 2^-12, which rounds small weights to nothing.
    smallest_scale = {"eps": 2**-30}
    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        is_dynamic=True,
        observer_or_fake_quant_ctr=PlaceholderObserver.with_args(**smallest_scale),
    )
    low, high = (-8, 7) if width == 4 else (-127, 127)
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=low,
        quant_max=high,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=(
            PerChannelMinMaxObserver.with_args(**smallest_scale)
            if scales is None
            else _known_scales().with_args(known=scales, **smallest_scale)
        ),
    )
    config = QuantizationConfig(activation, None, weight, None, False)
    quantizer = XNNPACKQuantizer().set_operator_type(torch.ops.aten.linear.default, config)
    return quantizer.set_filter_function(lambda node: linear.get(layer_name(node), 32) == width)


@functools.cache
def _known_scales() -> Any:
    import torch
    from torchao.quantization.pt2e import PerChannelMinMaxObserver

    class KnownScales(PerChannelMinMaxObserver):  # type: ignore[misc]
        """Reports scales [out] that are known already, whatever it sees."""

        def __init__(self, *, known: Any, **options: Any) -> None:
            super().__init__(**options)
            self.known = torch.from_numpy(known.copy())

        def calculate_qparams(self) -> Any:
            return self.known, torch.zeros(len(self.known), dtype=torch.int64)

    return KnownScales
