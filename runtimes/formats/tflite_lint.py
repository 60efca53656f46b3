"""Structural lint of a .tflite file: what its runtime would crash on, read beyond, or silently accept.

The runtime verifies that the flatbuffer is well formed, not that its content makes sense: an index out of range or a
block size of zero ends the process (see the targeted cases in the tests).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput
from runtimes.formats.tflite_file import BITS, FileSubgraph, FileTensor, TfliteFile, read_tflite
from runtimes.formats.tflite_layers import is_constant, tensor_names
from runtimes.formats.tflite_lint_operators import operator_problems
from runtimes.formats.tflite_metadata import metadata_notes

__all__ = ["file_warnings", "lint", "lint_problems"]

MOST_SHOWN = 20
MOST_TENSOR_BYTES = 1 << 36
LARGEST_SCALE = 1e30
WITHOUT_SIZE = ("string", "resource", "variant")
ZERO_POINTS = {
    "int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "int4": (-8, 7), "uint4": (0, 15),
    "int2": (-2, 1), "int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1),
}  # fmt: skip


def lint(path: Path) -> tuple[str, ...]:
    """Structural problems; empty for a sound file.

    Raises:
        BadInput: Not a .tflite file, or its tables cannot be followed.
    """
    return lint_problems(read_tflite(path))


def lint_problems(model: TfliteFile) -> tuple[str, ...]:
    """Structural problems of a file that has been read, at most twenty and a count of the rest."""
    problems = list(_all_problems(model))
    if len(problems) > MOST_SHOWN:
        problems[MOST_SHOWN:] = [f"and {len(problems) - MOST_SHOWN} more problems"]
    return tuple(problems)


def file_warnings(model: TfliteFile) -> tuple[str, ...]:
    """What is sound but will surprise somebody."""
    found = []
    outside = sum(buffer.outside for buffer in model.buffers)
    if outside:
        found.append(
            f"{outside} buffers lie behind the flatbuffer (offset buffers); TFLite Micro ignores them silently and "
            "computes garbage: inline them with runtimes.formats.tflite_inline before any use on a microcontroller"
        )
    wrong = sorted({kind for graph in model.subgraphs for kind in _wrong_in_reference_kernels(graph)})
    if wrong:
        found.append(f"the reference kernels (BUILTIN_REF) compute {' and '.join(wrong)} wrongly; take other kernels")
    try:
        metadata_notes(model)
    except BadInput as error:
        found.append(f"TFLite Metadata are not read: {error}")
    return tuple(found)


def _wrong_in_reference_kernels(graph: FileSubgraph) -> Iterator[str]:
    tensors = dict(enumerate(graph.tensors))
    for operator in graph.operators:
        read = [tensors[index] for index in operator.inputs if index in tensors]
        if operator.op == "SUM" and read and read[0].dtype == "int8":
            yield "INT8 SUM"
        if operator.op == "FULLY_CONNECTED" and any(tensor.blockwise is not None for tensor in read):
            yield "blockwise FULLY_CONNECTED"


def _all_problems(model: TfliteFile) -> Iterator[str]:
    if model.version != 3:
        yield f"schema version {model.version}: must be 3"
    if not model.subgraphs:
        yield "no subgraph"
    elif not model.subgraphs[0].outputs:  # others may have none: they initialise variables
        yield "the graph has no output"
    for index, buffer in enumerate(model.buffers):
        if buffer.offset + buffer.bytes > model.bytes:
            yield (
                f"buffer {index}: bytes {buffer.offset} to {buffer.offset + buffer.bytes}: "
                f"must lie within the file of {model.bytes} bytes"
            )
    for number, graph in enumerate(model.subgraphs):
        where = f"subgraph {number}: " if len(model.subgraphs) > 1 else ""
        found = list(_tensor_problems(model, graph))
        found += _border_problems(model, graph)
        found += operator_problems(model, graph)
        yield from (where + problem for problem in found)
    yield from _signature_problems(model)


def _tensor_problems(model: TfliteFile, graph: FileSubgraph) -> Iterator[str]:
    for name, tensor in zip(tensor_names(graph), graph.tensors, strict=True):
        problems = [*_storage_problems(model, tensor)]
        if tensor.blockwise is not None:
            problems += _blockwise_problems(model, graph, tensor)
        elif not tensor.unknown_details:
            problems += _scale_problems(tensor)
        yield from (f"tensor {name}: {problem}" for problem in problems)


def _storage_problems(model: TfliteFile, tensor: FileTensor) -> Iterator[str]:
    if not 0 <= tensor.buffer < len(model.buffers):
        yield f"buffer {tensor.buffer} does not exist"
        return
    if tensor.dtype not in BITS and tensor.dtype not in WITHOUT_SIZE:
        yield f"{tensor.dtype} is unknown to this schema"
        return
    if any(size < -1 for size in (*tensor.shape, *tensor.shape_signature)):
        yield f"shape {tensor.shape}: sizes must not be negative"
        return
    if tensor.shape_signature and len(tensor.shape_signature) != len(tensor.shape):
        yield f"shape {tensor.shape} and shape signature {tensor.shape_signature} differ in rank"
    if tensor.dtype in WITHOUT_SIZE:
        return
    count = math.prod(max(1, size) if size < 0 else size for size in tensor.shape)
    needed = -(-count * BITS[tensor.dtype] // 8)
    if needed > MOST_TENSOR_BYTES:
        yield f"shape {tensor.shape} takes {needed} bytes: no device holds that"
    stored = model.buffers[tensor.buffer].bytes
    if not stored or tensor.is_sparse or tensor.is_variable or tensor.is_external:
        return
    if stored < needed:
        yield f"{stored} bytes of data, {tensor.dtype} {tensor.shape} needs {needed}"
    elif stored > needed and BITS[tensor.dtype] < 8:
        yield f"{stored} bytes of data, {tensor.dtype} {tensor.shape} packed takes {needed}: it was not packed"


def _scale_problems(tensor: FileTensor) -> Iterator[str]:
    count = len(tensor.scale)
    if not count:
        return
    smallest = 0.0 if tensor.dtype in ("int32", "int64") else float(np.finfo(np.float32).tiny)
    with np.errstate(invalid="ignore"):
        wrong = ~((tensor.scale >= smallest) & (tensor.scale <= LARGEST_SCALE))
    if wrong.any():
        yield f"scale {tensor.scale[wrong][0]!s}: must be finite and positive"
    if len(tensor.zero_point) != count:
        yield f"{count} scales, {len(tensor.zero_point)} zero points: must be as many"
    elif tensor.dtype in ZERO_POINTS:
        low, high = ZERO_POINTS[tensor.dtype]
        outside = (tensor.zero_point < low) | (tensor.zero_point > high)
        if outside.any():
            yield f"zero point {tensor.zero_point[outside][0]}: must lie in [{low}, {high}] for {tensor.dtype}"
    if count == 1:
        return
    axis = tensor.quantized_dimension
    if not 0 <= axis < len(tensor.shape):
        yield f"quantized dimension {axis}: the tensor has {len(tensor.shape)}"
    elif tensor.shape[axis] != count:
        yield f"{count} scales along dimension {axis} of size {tensor.shape[axis]}"


def _blockwise_problems(model: TfliteFile, graph: FileSubgraph, tensor: FileTensor) -> Iterator[str]:
    block = tensor.blockwise
    assert block is not None
    columns = tensor.shape[-1] if tensor.shape else 0
    if block.block_size < 1 or columns % block.block_size:
        yield f"block size {block.block_size}: must divide the {columns} columns"
        return
    if not 0 <= block.scales < len(graph.tensors):
        yield f"blockwise scales are tensor {block.scales}, which does not exist"
        return
    if not -1 <= block.zero_points < len(graph.tensors):
        yield f"blockwise zero points are tensor {block.zero_points}, which does not exist"
    scales = graph.tensors[block.scales]
    needed = math.prod(tensor.shape) // block.block_size
    bits = BITS.get(scales.dtype, 0)
    if scales.dtype not in ("float16", "float32"):
        yield f"blockwise scales are {scales.dtype}: must be float16 or float32"
    # The kernel reads them without looking at their number.
    elif math.prod(scales.shape) < needed:
        yield f"{math.prod(scales.shape)} blockwise scales: must be {needed}"
    elif not 0 <= scales.buffer < len(model.buffers) or model.buffers[scales.buffer].bytes * 8 < needed * bits:
        yield "blockwise scales have too few bytes"


def _border_problems(model: TfliteFile, graph: FileSubgraph) -> Iterator[str]:
    for what, indices in (("input", graph.inputs), ("output", graph.outputs)):
        for index in indices:
            if not 0 <= index < len(graph.tensors):
                yield f"graph {what}: tensor {index} does not exist"
    for index in graph.inputs:
        # The caller's values would be written over read-only bytes of the file, which ends the process.
        if 0 <= index < len(graph.tensors) and is_constant(model, graph.tensors[index]):
            yield f"graph input: tensor {index} is a constant"
    for index, times in Counter(graph.inputs).items():
        if times > 1:
            yield f"graph input: tensor {index} stands {times} times"


def _signature_problems(model: TfliteFile) -> Iterator[str]:
    for key, times in Counter(signature.key for signature in model.signatures).items():
        if times > 1:
            yield f"signature {key!r} stands {times} times"
    for signature in model.signatures:
        where = f"signature {signature.key!r}"
        if not 0 <= signature.subgraph < len(model.subgraphs):
            yield f"{where}: subgraph {signature.subgraph} does not exist"
            continue
        graph = model.subgraphs[signature.subgraph]
        for what, entries, allowed in (
            ("input", signature.inputs, graph.inputs),
            ("output", signature.outputs, graph.outputs),
        ):
            for name, index in entries:
                if index not in allowed:
                    yield f"{where}: {what} {name!r} is tensor {index}, which is no {what} of its subgraph"
            if len({name for name, _ in entries}) != len(entries):
                yield f"{where}: two {what}s have one name"
