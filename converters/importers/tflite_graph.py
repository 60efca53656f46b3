"""A float .tflite file as a torch module: the way of Keras models to ExecuTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.importers import activations, convolution, elementwise, lookup, pooling, resizing, shaping
from converters.importers.build import TO_IMAGE, Builder
from converters.importers.tflite_read import Operator, Subgraph, read_subgraph
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from torch import nn

__all__ = ["OPERATORS", "import_module"]

_MOST_INPUT_VALUES = 1 << 28
"""More than any model of this kind takes: a damaged file."""

OPERATORS: dict[str, Callable[[Operator, Builder], None]] = {
    **activations.OPERATORS,
    **convolution.OPERATORS,
    **elementwise.OPERATORS,
    **lookup.OPERATORS,
    **pooling.OPERATORS,
    **resizing.OPERATORS,
    **shaping.OPERATORS,
}
"""Every operator that can be imported."""


def import_module(
    path: Path,
    *,
    signature: str | None = None,
    channels_first: bool = False,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> nn.Module:
    """The network of a float .tflite file, in evaluation mode.

    It takes the file's inputs in call order, in their layout (NHWC) and type, and returns its outputs likewise, a
    single one bare. Convolutions and fully connected layers are torch's modules; modules are called after the tensors
    that TFLite's layers make. The batch size is the caller's where no operator fixes it.

    Args:
        signature: Key of the signature to import; without it the first subgraph.
        channels_first: Take and return images as NCHW, as the source of the file has them.
        inputs: Names in the signature, in the order in which the module takes them; the file's own order where these
            are not its names.
        outputs: Likewise.

    Raises:
        BadInput: No such file or signature, or the file is damaged.
        Unsupported: The file is quantized, or has operators that cannot be imported; all of them, by layer.
        MissingExtra: torch or LiteRT is not installed.
    """
    require("torch", extra="export-executorch")
    source = read_subgraph(path, signature, inputs=inputs, outputs=outputs)
    unknown = tuple(
        Refusal(layer=op.layer, op=op.kind, reason="this operator cannot be imported")
        for op in source.operators
        if op.kind not in OPERATORS
    )
    if unknown:
        raise Unsupported(refusals=unknown)
    build = Builder(source, channels_first=channels_first)
    for op in source.operators:
        try:
            OPERATORS[op.kind](op, build)
        except (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise BadInput(
                f"{path}: layer {op.layer} ({op.kind}): its parts do not fit together ({reason})."
            ) from error
    module = build.finish()
    _try(path, source, module, channels_first)
    return module


def _try(path: Path, source: Subgraph, module: nn.Module, channels_first: bool) -> None:
    """Run the module once: sizes that do not fit are the file's fault and must not surface later."""
    import torch

    def held(shape: tuple[int, ...]) -> tuple[int, ...]:
        is_image = channels_first and len(shape) == len(TO_IMAGE)
        return tuple(shape[axis] for axis in TO_IMAGE) if is_image else shape

    entries = [source.tensors[index] for index in source.inputs]
    if sum(math.prod(entry.shape) for entry in entries) > _MOST_INPUT_VALUES:
        raise BadInput(f"{path}: damaged: inputs of shape {[entry.shape for entry in entries]} are too large.")
    try:
        inputs = [torch.zeros(held(entry.shape), dtype=getattr(torch, entry.dtype)) for entry in entries]
        with torch.no_grad():
            results = module(*inputs)
    except (RuntimeError, IndexError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise BadInput(f"{path}: damaged: its layers do not fit together ({error}).") from error
    found = [tuple(value.shape) for value in (results if isinstance(results, tuple) else (results,))]
    wanted = [held(source.tensors[index].shape) for index in source.outputs]
    if found != wanted:
        raise BadInput(f"{path}: damaged: its layers make outputs of shape {found}, it says {wanted}.")
