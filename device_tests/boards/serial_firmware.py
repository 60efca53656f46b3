"""What a compiler must be told to build a generated C project with the serial protocol, for a board or a machine."""

from __future__ import annotations

import math
from pathlib import Path

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.tensor import TensorInfo

__all__ = ["PROTOCOL", "protocol_arguments"]

PROTOCOL = Path(__file__).with_name("serial_protocol.c")
LETTERS = {"int8": "b", "uint8": "B", "int32": "i", "float32": "f"}
ITEM_BYTES = {"int8": 1, "uint8": 1, "int32": 4, "float32": 4}


def protocol_arguments(signature: Signature) -> tuple[str, ...]:
    """Definitions for `serial_protocol.c`, and where its header lies; add the project's folder and files yourself.

    Raises:
        Unsupported: An input or output has a type that the protocol does not carry.
    """
    odd = [info for info in (*signature.inputs, *signature.outputs) if info.dtype not in LETTERS]
    if odd:
        raise Unsupported(*(f"{info.name}: {info.dtype}: must be one of {', '.join(LETTERS)}." for info in odd))
    inputs, outputs = [_bytes(info) for info in signature.inputs], [_bytes(info) for info in signature.outputs]
    values = {
        "INPUT_BYTES": ",".join(map(str, inputs)),
        "ALL_INPUT_BYTES": str(sum(inputs)),
        "OUTPUT_BYTES": ",".join(map(str, outputs)),
        "OUTPUT_ITEM_BYTES": ",".join(str(ITEM_BYTES[info.dtype]) for info in signature.outputs),
        "OUTPUT_TYPES": '"' + "".join(LETTERS[info.dtype] for info in signature.outputs) + '"',
        "OUTPUT_SCALES": ",".join(repr(info.scale[0] if info.scale else 1.0) for info in signature.outputs),
        "OUTPUT_ZEROS": ",".join(str(info.zero_point[0] if info.zero_point else 0) for info in signature.outputs),
    }
    return (f"-I{PROTOCOL.parent}", *(f"-DEDGE_{name}={value}" for name, value in values.items()))


def _bytes(info: TensorInfo) -> int:
    return ITEM_BYTES[info.dtype] * math.prod(info.shape)
