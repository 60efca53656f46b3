"""What the model.c and model.h of a C project say of themselves, counted in their text and not taken on trust."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from edge_deploy.core.artifact import LayerFacts, Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["HEADER", "arena_bytes", "read_facts", "read_signatures"]

HEADER = "model.h"
NOTE = re.compile(r"/\* weights (\w+) \[([\d, ]*)\] ([\w-]+) of (\S+) (.*?) \*/\n")
ARRAY = re.compile(r"((?:/\* weights .*? \*/\n)+)static const (\w+) \w+\[(\d+)\][^=]*= \{([^}]*)\};")
ITEM_BYTES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4, "float": 4}
DTYPES = {"int8_t": "int8", "uint8_t": "uint8", "int32_t": "int32", "float": "float32"}
VALUE = re.compile(r"/\* (input|output) (\d+): (.*) \[([\d, ]*)\] \*/\ntypedef (\w+) model_\1_\2_t;")


def read_facts(path: Path) -> tuple[LayerFacts, ...]:
    """The layers whose weights stand in model.c, their bytes counted by initializers.

    Raises:
        BadInput: It cannot be read, or an array has not as many values as it says.
    """
    facts = []
    for notes, kind, size, body in ARRAY.findall(_text(path)):
        count = body.count(",") + 1 if body.strip() else 0
        if kind not in ITEM_BYTES or count != int(size):
            raise BadInput(f"{path}: an array of {size} {kind} holds {count} values; the file is damaged.")
        for dtype, shape, granularity, op, layer in NOTE.findall(notes):
            weights = math.prod(int(part) for part in shape.split(",")) if shape else 1
            stored = count * ITEM_BYTES[kind]
            facts.append(
                LayerFacts(
                    layer=layer,
                    op=op,
                    weight_dtype=dtype,
                    weight_bits=stored * 8 / weights,
                    weight_count=weights,
                    weight_bytes=stored,
                    granularity=granularity,
                    activation_dtype="int8",
                    runs_on="generated C",
                )
            )
    return tuple(facts)


def read_signatures(path: Path) -> tuple[Signature, ...]:
    """The one way to call the project, from the model.h beside model.c.

    Raises:
        BadInput: There is no model.h, or it names no values.
    """
    text = _text(path.with_name(HEADER))
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    for kind, index, name, shape, ctype in VALUE.findall(text):
        prefix = f"MODEL_{kind.upper()}_{index}"
        scale = re.search(rf"#define {prefix}_SCALE ([-+.\de]+)f?\n", text)
        zero = re.search(rf"#define {prefix}_ZERO_POINT (-?\d+)\n", text)
        if ctype not in DTYPES:
            raise BadInput(
                f"{path.with_name(HEADER)}: {kind} {name} has type {ctype}; must be one of {', '.join(DTYPES)}."
            )
        info = TensorInfo(
            name=name,
            shape=tuple(int(part) for part in shape.split(",")) if shape else (),
            dtype=DTYPES[ctype],  # type: ignore[arg-type]  # the table's values are of the literal
            scale=(float(scale.group(1)),) if scale else (),
            zero_point=(int(zero.group(1)) if zero else 0,) if scale else (),
        )
        (inputs if kind == "input" else outputs).append(info)
    if not inputs or not outputs:
        raise BadInput(f"{path.with_name(HEADER)}: names no inputs and outputs; is it the model.h of a C project?")
    return (Signature(name="main", inputs=tuple(inputs), outputs=tuple(outputs)),)


def arena_bytes(path: Path) -> int:
    """RAM that the project's values take, from the model.h beside model.c.

    Raises:
        BadInput: It does not say.
    """
    found: Any = re.search(r"#define MODEL_ARENA_BYTES (\d+)", _text(path.with_name(HEADER)))
    if found is None:
        raise BadInput(f"{path.with_name(HEADER)}: has no MODEL_ARENA_BYTES.")
    return int(found.group(1))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}).") from error
