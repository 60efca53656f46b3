"""A program as a folder of C99: model, kernels, a self-test with reference vectors, a Makefile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.c.program import Program
from converters.c.source_text import flash_bytes, header_text, model_text
from edge_deploy.core.artifact import Signature

__all__ = ["RUNTIME", "Sizes", "Vectors", "write_project"]

RUNTIME = Path(__file__).parent / "runtime"
VECTOR_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Inputs with the reference kernels' outputs, [vectors, ...] in the graph's order."""

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the program takes, without its code: RAM and constant arrays."""

    arena_bytes: int
    flash_bytes: int


def write_project(program: Program, signature: Signature, vectors: Vectors, folder: Path, *, name: str) -> Sizes:
    """Write every file into the folder, which exists."""
    (folder / "model.c").write_text(model_text(program), encoding="ascii")
    header = header_text(program, signature.inputs, signature.outputs, name)
    (folder / "model.h").write_text(header, encoding="ascii")
    (folder / "vectors.h").write_text(_vectors_text(vectors), encoding="ascii")
    for source in sorted(RUNTIME.iterdir()):
        if source.suffix in (".c", ".h") or source.name == "Makefile":
            (folder / source.name).write_bytes(source.read_bytes())
    return Sizes(arena_bytes=program.arena_bytes, flash_bytes=flash_bytes(program))


def _vectors_text(vectors: Vectors) -> str:
    """As many vectors as fit into 64 kB, as bytes, so that values of every type are compared by their bits."""
    each = sum(array[0].nbytes for array in (*vectors.inputs, *vectors.outputs))
    count = max(1, min(len(vectors.inputs[0]), VECTOR_BYTES // max(1, each)))
    lines = [
        "/* Inputs, and what the reference kernels of TensorFlow Lite make of them. */",
        "#ifndef VECTORS_H",
        "#define VECTORS_H",
        "",
        "#include <stdint.h>",
        "",
        f"#define VECTORS {count}",
        *_table("vector_inputs", vectors.inputs, count),
        *_table("vector_outputs", vectors.outputs, count),
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _table(name: str, arrays: Sequence[np.ndarray], count: int) -> list[str]:
    lines, places, sizes = [], [], []
    for index, array in enumerate(arrays):
        data = np.ascontiguousarray(array[:count]).view(np.uint8).reshape(-1)
        lines.append(f"static const uint8_t {name}_{index}[] = {{")
        for start in range(0, len(data), 24):
            lines.append("  " + ", ".join(map(str, data[start : start + 24].tolist())) + ",")
        lines.append("};")
        places.append(f"{name}_{index}")
        sizes.append(str(array[0].nbytes))
    lines.append(f"static const uint8_t *const {name}[] = {{{', '.join(places)}}};")
    lines.append(f"static const uint32_t {name}_bytes[] = {{{', '.join(sizes)}}};")
    return lines
