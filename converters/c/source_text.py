"""A program as model.c and model.h."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from converters.c.graph import Tensor
from converters.c.program import Program
from converters.c.step import Constant, Step
from edge_deploy.core.tensor import TensorInfo

__all__ = ["flash_bytes", "header_text", "model_text"]

C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int32": "int32_t", "float32": "float", "int16": "int16_t"}
LINE = 118
PLACE = re.compile(r"<(c:\w+|a\d+|p\d+|s)>")


class _FlashTable:
    """The constant arrays of a program, each stored once, under names for C."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.notes: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}

    def name(self, values: np.ndarray, wanted: str, note: str = "") -> str:
        """The array's name: `wanted`, or that of an equal array seen before."""
        flat = np.ascontiguousarray(values)
        key = (flat.dtype.name, hashlib.sha256(flat.tobytes()).hexdigest())
        if key not in self._names:
            self._names[key] = wanted
            self.arrays[wanted] = flat.reshape(-1)
            self.notes[wanted] = note
        elif note and self.notes[self._names[key]]:
            self.notes[self._names[key]] += f" */\n/* {note}"
        return self._names[key]

    @property
    def bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def _flash_table(program: Program) -> tuple[_FlashTable, list[dict[str, str]]]:
    """The arrays of a program, and for each step the names of its own."""
    table = _FlashTable()
    named: list[dict[str, str]] = []
    for number, step in enumerate(program.steps):
        named.append(
            {each.name: table.name(each.values, f"{each.name}_{number}", _note(each)) for each in step.constants}
        )
    return table, named


def _note(constant: Constant) -> str:
    found = constant.weights
    if found is None:
        return ""
    return f"weights {found.dtype} {list(found.shape)} {found.granularity} of {found.op} {_comment(found.layer)}"


def flash_bytes(program: Program) -> int:
    """Bytes of the constant arrays of a program; its layers' parameters and its code come on top."""
    table, _ = _flash_table(program)
    for step in program.steps:
        _filled(step.call, {}, program, table)
    return table.bytes


def model_text(program: Program) -> str:
    """The whole of model.c."""
    table, named = _flash_table(program)
    structures, calls = [], []
    for number, step in enumerate(program.steps):
        if step.same_as is not None:
            continue
        places = {f"c:{name}": at for name, at in named[number].items()}
        places["s"] = f"AT({program.scratch[number]})" if number in program.scratch else "0"
        for place, (kind, initializer) in enumerate(step.structures):
            places[f"p{place}"] = f"layer_{number}_{place}"
            structures.append(
                f"static const {kind} layer_{number}_{place} = {_filled(initializer, places, program, table)};"
            )
        calls.append(f"  /* {_comment(step.node.layer)}: {step.node.op} */")
        calls.append("  " + _call(step, places, program, table))
    arrays = [_array(name, values, table.notes[name]) for name, values in table.arrays.items()]
    return "\n".join(
        [
            '#include "model.h"',
            "",
            '#include "kernels.h"',
            "",
            *arrays,
            "",
            *structures,
            "",
            "static union {",
            "  int8_t bytes[MODEL_ARENA_BYTES];",
            "  int64_t alignment;",
            "} arena;",
            "",
            "#define AT(offset) ((void *)(arena.bytes + (offset)))",
            "",
            *_pointers("void *model_input", program.graph.inputs, program),
            *_pointers("const void *model_output", program.graph.outputs, program),
            "int model_invoke(void) {",
            *calls,
            "  return 0;",
            "}",
            "",
        ]
    )


def _pointers(declaration: str, tensors: tuple[Tensor, ...], program: Program) -> list[str]:
    lines = [f"{declaration}(int index) {{", "  switch (index) {"]
    for index, tensor in enumerate(tensors):
        lines += [f"    case {index}:", f"      return AT({program.places[tensor.index]});"]
    return [*lines, "    default:", "      return 0;", "  }", "}", ""]


def _call(step: Step, places: dict[str, str], program: Program, table: _FlashTable) -> str:
    text = _filled(step.call, places, program, table)
    return f"if ({text} != 0) return 1;" if step.can_fail else text


def _filled(text: str, places: dict[str, str], program: Program, table: _FlashTable) -> str:
    def fill(match: re.Match[str]) -> str:
        key = match.group(1)
        if key in places or key[0] != "a":
            return places.get(key, "0")
        index = int(key[1:])
        if index in program.places:
            return f"AT({program.places[index]})"
        values = program.constants[index].values
        assert values is not None
        return table.name(values, f"constant_{index}")

    return PLACE.sub(fill, text)


def _array(name: str, values: np.ndarray, note: str) -> str:
    kind = C_TYPES[values.dtype.name]
    lines, line = [], " "
    for value in values.tolist():
        word = f" {_number(value, kind)},"
        if len(line) + len(word) > LINE:
            lines.append(line)
            line = " "
        line += word
    body = "\n".join([*lines, line.rstrip(",")])
    comment = f"/* {note} */\n" if note else ""
    return f"{comment}static const {kind} {name}[{len(values)}] ED_ALIGNED = {{\n{body}}};"


def _number(value: float, kind: str) -> str:
    if kind == "float":
        return f"{float(value).hex()}f"
    # The most negative number has no literal of its own type.
    return "-2147483647 - 1" if kind == "int32_t" and value == -(2**31) else str(value)


def _comment(text: str) -> str:
    printable = "".join(char if 32 <= ord(char) < 127 else "?" for char in text)
    return printable.replace("*/", "* /").replace("/*", "/ *").replace("\\", "/")


def header_text(program: Program, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], name: str) -> str:
    """The whole of model.h: sizes, scales and the three functions."""
    lines = [
        f"/* {_comment(name)}: write the inputs, call model_invoke, read the outputs.",
        " *",
        " * Values lie channels-last, in the types below; a quantized value stands for (value - ZERO_POINT) * SCALE.",
        " * Inputs and outputs share their memory with the values between them: write every input before every call,",
        " * and read the outputs before the next. Nothing has to be initialised and nothing is allocated; one call",
        " * at a time. */",
        "#ifndef MODEL_H",
        "#define MODEL_H",
        "",
        "#include <stdint.h>",
        "",
        f"#define MODEL_ARENA_BYTES {max(program.arena_bytes, 8)} /* of RAM, beside the stack */",
    ]
    for kind, tensors, infos in (
        ("INPUT", program.graph.inputs, inputs),
        ("OUTPUT", program.graph.outputs, outputs),
    ):
        lines += ["", f"#define MODEL_{kind}S {len(tensors)}"]
        for index, (tensor, info) in enumerate(zip(tensors, infos, strict=True)):
            shape = ", ".join(map(str, tensor.shape))
            lines.append(f"/* {kind.lower()} {index}: {_comment(info.name)} [{shape}] */")
            lines.append(f"typedef {C_TYPES[tensor.dtype]} model_{kind.lower()}_{index}_t;")
            lines.append(f"#define MODEL_{kind}_{index}_SIZE {tensor.size}")
            lines.append(f"#define MODEL_{kind}_{index}_BYTES {tensor.bytes}")
            if len(tensor.scale):
                lines.append(f"#define MODEL_{kind}_{index}_SCALE {float(tensor.scale[0])!r}f")
                lines.append(f"#define MODEL_{kind}_{index}_ZERO_POINT {tensor.zero}")
    lines += [
        "",
        "/* Where to write input `index`; a null pointer where there is none. */",
        "void *model_input(int index);",
        "",
        "/* Where to read output `index`. */",
        "const void *model_output(int index);",
        "",
        "/* One inference: 0, or 1 where an id lies outside its table, which leaves the outputs undefined. */",
        "int model_invoke(void);",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)
