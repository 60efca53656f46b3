"""How a `.pte` file wants to be called: a signature for each method. Its tensors have no names in the file."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.tensor import DType, TensorInfo
from runtimes.formats.pte import PteTensor, read_pte

__all__ = ["read_signatures"]


def read_signatures(path: Path) -> tuple[Signature, ...]:
    """The methods, "forward" first, with inputs and outputs called by their places.

    Raises:
        BadInput: Not a whole ExecuTorch program.
        Unsupported: An input or output has a type that sessions do not carry.
    """
    methods = sorted(read_pte(path).methods, key=lambda method: method.name != "forward")
    return tuple(
        Signature(
            name=method.name,
            inputs=tuple(_info(path, f"input_{place}", tensor) for place, tensor in enumerate(method.inputs)),
            outputs=tuple(_info(path, f"output_{place}", tensor) for place, tensor in enumerate(method.outputs)),
        )
        for method in methods
    )


def _info(path: Path, name: str, tensor: PteTensor) -> TensorInfo:
    if tensor.dtype not in get_args(DType):
        raise Unsupported(f"{path}: {name}: type {tensor.dtype}: must be one of {', '.join(get_args(DType))}.")
    # The file keeps upper bounds of dynamic dimensions only; what converters make dynamic is the batch.
    shape = (-1, *tensor.shape[1:]) if tensor.is_dynamic and tensor.shape else tensor.shape
    return TensorInfo(name=name, shape=shape, dtype=tensor.dtype)  # type: ignore[arg-type]  # checked above
