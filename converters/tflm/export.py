"""A .tflite file as C++ sources for TensorFlow Lite Micro: the model as an array, its operators, its arena.

The sources are for the user's own build of TensorFlow Lite Micro, which is not part of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from converters.tflm.operators import check_operators
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.publish import published_folder
from runtimes.micro.arena import MicroArena, measure_arena

__all__ = ["Exported", "add_method", "export_tflm"]

# Where a method's name is not the operator's in capitals and small letters.
METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
CUSTOM = {"TFLite_Detection_PostProcess": "DetectionPostprocess", "CIRCULAR_BUFFER": "CircularBuffer"}
PER_LINE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        operators: Methods of the resolver, e.g. "AddConv2D".
    """

    files: tuple[Path, ...]
    operators: tuple[str, ...]
    model_bytes: int
    arena: MicroArena


def export_tflm(path: Path, folder: Path, *, name: str = "model", force: bool = False) -> Exported:
    """Write model_data.h, model_data.cc, model_settings.h and model_resolver.h into `folder`, which appears whole.

    Args:
        name: Prefix of the C++ names; other characters than letters, digits and _ become _.
        force: Replace the folder where it exists.

    Raises:
        Unsupported: Operators that TensorFlow Lite Micro refuses, each by layer.
        BadInput: Damaged, or the folder exists without `force`.
        MissingExtra: The wheel is not installed, which tries the operators and counts the arena.
    """
    from runtimes.formats.tflite import read_signatures
    from runtimes.formats.tflite_file import read_tflite
    from runtimes.formats.tflite_layers import layer_names
    from runtimes.micro.interpreter import inlined_bytes

    if folder.exists() and not force:  # said before the slow steps
        raise BadInput(f"{folder}: exists already; choose another --out or pass --force to replace it.")
    graph = read_tflite(path).subgraphs[0]
    check_operators(path)
    methods: dict[str, None] = {}
    refusals = []
    for layer, operator in zip(layer_names(graph), graph.operators, strict=True):
        method = add_method(operator.op)
        if method is None:
            reason = "has no method of MicroMutableOpResolver that we know"
            refusals.append(Refusal(layer=layer, op=operator.op, reason=reason))
        else:
            methods[method] = None
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    arena = measure_arena(path)
    data = inlined_bytes(path)
    words = re.sub(r"\W", "_", name, flags=re.ASCII)
    prefix = words if words[:1].isalpha() else f"model_{words}"
    texts = {
        "model_data.h": _data_header(prefix),
        "model_data.cc": _data_source(prefix, data),
        "model_resolver.h": _resolver(prefix, tuple(methods)),
        "model_settings.h": _settings(prefix, arena, read_signatures(path)[0]),
    }
    with published_folder(folder, force=force) as work:
        for file, text in texts.items():
            (work / file).write_text(text, encoding="ascii")
        (work / "model.tflite").write_bytes(data)
    return Exported(files=tuple(sorted(folder.iterdir())), operators=tuple(methods), model_bytes=len(data), arena=arena)


def add_method(op: str) -> str | None:
    """The resolver's method for an operator, e.g. "AddConv2D" of CONV_2D; None for one that has none."""
    kind, _, custom = op.partition(" ")
    if kind == "CUSTOM":
        return f"Add{CUSTOM[custom]}" if custom in CUSTOM else None
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", op):
        return None
    parts = [part if part[:1].isdigit() else part.capitalize() for part in op.split("_")]
    return f"Add{METHODS.get(op, ''.join(parts))}"


def _data_header(prefix: str) -> str:
    guard = f"{prefix.upper()}_DATA_H_"
    return (
        f"// The model, as TensorFlow Lite Micro reads it: every constant lies inside the array.\n#ifndef {guard}\n"
        f"#define {guard}\n\nextern const unsigned char {prefix}_data[];\n"
        f"extern const unsigned int {prefix}_data_size;\n\n#endif  // {guard}\n"
    )


def _data_source(prefix: str, data: bytes) -> str:
    rows = [
        "    " + " ".join(f"0x{byte:02x}," for byte in data[at : at + PER_LINE]) for at in range(0, len(data), PER_LINE)
    ]
    body = "\n".join(rows)
    return (
        f'#include "model_data.h"\n\n// 16 bytes, because weights are read in words.\n'
        f"alignas(16) const unsigned char {prefix}_data[] = {{\n{body}\n}};\n"
        f"const unsigned int {prefix}_data_size = {len(data)};\n"
    )


def _resolver(prefix: str, methods: tuple[str, ...]) -> str:
    guard = f"{prefix.upper()}_RESOLVER_H_"
    calls = "\n".join(f"  if (resolver.{method}() != kTfLiteOk) return kTfLiteError;" for method in methods)
    kind = f"tflite::MicroMutableOpResolver<{prefix}_operators>"
    return (
        f"// The operators of the model and no others, so that no kernel is linked in vain.\n#ifndef {guard}\n"
        f'#define {guard}\n\n#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n\n'
        f"constexpr int {prefix}_operators = {len(methods)};\n\n"
        f"inline TfLiteStatus {prefix}_register({kind} &resolver) {{\n{calls}\n  return kTfLiteOk;\n}}\n\n"
        f"#endif  // {guard}\n"
    )


def _settings(prefix: str, arena: MicroArena, signature: Signature) -> str:
    guard = f"{prefix.upper()}_SETTINGS_H_"
    lines = [
        f"// The smallest arena that works with {arena.runtime}, {arena.kernels}: values and scratch memory "
        f"{arena.head_bytes},",
        f"// structures {arena.tail_bytes}. A 32-bit core needs less for structures; kernels tuned for it may want",
        "// more scratch memory. Print interpreter.arena_used_bytes() on the device and adjust.",
        f"constexpr int {prefix}_arena_bytes = {arena.total_bytes};",
        "",
    ]
    for kind, infos in (("input", signature.inputs), ("output", signature.outputs)):
        for index, info in enumerate(infos):
            shape = "x".join(str(max(1, size)) for size in info.shape) or "scalar"
            lines.append(f"// {kind} {index}: {_ascii(info.name)}, {info.dtype} {shape}")
            if info.scale:
                lines.append(f"constexpr float {prefix}_{kind}_{index}_scale = {info.scale[0]!r}f;")
                lines.append(f"constexpr int {prefix}_{kind}_{index}_zero_point = {info.zero_point[0]};")
    body = "\n".join(lines)
    return f"#ifndef {guard}\n#define {guard}\n\n{body}\n\n#endif  // {guard}\n"


def _ascii(name: str) -> str:
    return name.encode("ascii", "replace").decode().replace("\n", " ").replace("\\", "/")
