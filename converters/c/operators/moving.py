"""Values that change their place only: every operator of this kind is strided copies, or nothing at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converters.c.graph import ITEM_BYTES, Node, Tensor
from converters.c.operators.elementwise import MAX_DIMS
from converters.c.operators.matrix import pack_pairs
from converters.c.operators.refusal import refuse
from converters.c.step import Constant, Step, buffer, weights_of

__all__ = ["BUILDERS"]


def _strides(shape: Sequence[int], item: int) -> list[int]:
    steps = [item]
    for size in reversed(shape[1:]):
        steps.append(steps[-1] * size)
    return steps[::-1][: len(shape)] if shape else []


def _item(node: Node, x: Tensor) -> int:
    if x.dtype not in ITEM_BYTES:
        raise refuse(node, f"moves {x.dtype} values")
    return ITEM_BYTES[x.dtype]


def _same_scale(node: Node, *tensors: Tensor) -> None:
    first = tensors[0]
    for other in tensors[1:]:
        unlike = other.dtype != first.dtype or len(other.scale) != len(first.scale)
        if unlike or (len(first.scale) and (first.scale[0] != other.scale[0] or first.zero != other.zero)):
            raise refuse(node, "joins values of different types or scales", "requantize them first")


def _copy(
    node: Node, dims: Sequence[int], in_strides: Sequence[int], out_strides: Sequence[int], item: int
) -> tuple[str, str]:
    """The ed_copy of one block, with dimensions that lie together made one."""
    merged: list[tuple[int, int, int]] = []
    for size, given, made in zip(dims, in_strides, out_strides, strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == given * size and merged[-1][2] == made * size:
            merged[-1] = (merged[-1][0] * size, given, made)
        else:
            merged.append((size, given, made))
    if not merged or merged[-1][1] != item or merged[-1][2] != item:
        merged.append((1, item, item))
    if len(merged) > MAX_DIMS:
        raise refuse(node, f"moves along {len(merged)} dimensions; at most {MAX_DIMS} are written")
    padded = [(1, 0, 0)] * (MAX_DIMS - len(merged)) + merged
    columns = ["{" + ", ".join(str(row[k]) for row in padded) + "}" for k in range(3)]
    return "ed_copy", f"{{{', '.join(columns)}, {item}}}"


def _at(tensor: Tensor, bytes_in: int) -> str:
    return f"(int8_t *){buffer(tensor)} + {bytes_in}" if bytes_in else buffer(tensor)


def _from(tensor: Tensor, bytes_in: int) -> str:
    return f"(const int8_t *){buffer(tensor)} + {bytes_in}" if bytes_in else buffer(tensor)


def alias(node: Node) -> Step:
    """RESHAPE and its kin: nothing moves."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    _same_scale(node, x, out)
    return Step(node=node, same_as=x.index)


def _one(node: Node, source: Tensor, dims: Sequence[int], steps: Sequence[int], start: int) -> Step:
    out = node.outputs[0]
    _same_scale(node, source, out)
    item = _item(node, source)
    structure = _copy(node, dims, steps, _strides(out.shape, item), item)
    return Step(node=node, call=f"ed_move(&<p0>, {_from(source, start)}, {buffer(out)});", structures=(structure,))


def _values(node: Node, place: int, what: str) -> list[int]:
    tensor = node.inputs[place] if place < len(node.inputs) else None
    if tensor is None or tensor.values is None:
        raise refuse(node, f"its {what} is computed", "keep it constant")
    return [int(value) for value in tensor.values.reshape(-1)]


def transpose(node: Node) -> Step:
    """TRANSPOSE."""
    x = node.inputs[0]
    assert x is not None
    order = _values(node, 1, "permutation")
    steps = _strides(x.shape, _item(node, x))
    return _one(node, x, [x.shape[axis] for axis in order], [steps[axis] for axis in order], 0)


def slice_(node: Node) -> Step:
    """SLICE."""
    x = node.inputs[0]
    assert x is not None
    begin = _values(node, 1, "beginning")
    steps = _strides(x.shape, _item(node, x))
    start = sum(at * step for at, step in zip(begin, steps, strict=True))
    return _one(node, x, node.outputs[0].shape, steps, start)


def strided_slice(node: Node) -> Step:
    """STRIDED_SLICE, with positive and negative steps and its masks."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    begin, end, step = _values(node, 1, "beginning"), _values(node, 2, "end"), _values(node, 3, "step")
    if int(node.option("ellipsisMask", 0)) or int(node.option("newAxisMask", 0)) or node.option("offset", False):
        raise refuse(node, "uses an ellipsis, a new axis or an offset")
    begins, ends = int(node.option("beginMask", 0)), int(node.option("endMask", 0))
    shrinks = int(node.option("shrinkAxisMask", 0))
    steps = _strides(x.shape, _item(node, x))
    dims, given, start = [], [], 0
    for axis, size in enumerate(x.shape):
        if axis >= len(begin):
            dims.append(size)
            given.append(steps[axis])
            continue
        first = None if begins >> axis & 1 else begin[axis]
        last = None if ends >> axis & 1 else end[axis]
        if shrinks >> axis & 1:
            at = begin[axis] % size
            places = range(at, at + 1)
        else:
            places = range(*slice(first, last, step[axis]).indices(size))
        if not len(places):
            raise refuse(node, "gives nothing")
        start += places[0] * steps[axis]
        dims.append(len(places))
        given.append(steps[axis] * step[axis])
    if math.prod(dims) != out.size:
        raise refuse(node, f"gives {math.prod(dims)} values where the file says {out.size}")
    item = _item(node, x)
    _same_scale(node, x, out)
    structure = _copy(node, dims, given, _strides(dims, item), item)
    return Step(node=node, call=f"ed_move(&<p0>, {_from(x, start)}, {buffer(out)});", structures=(structure,))


def _several(node: Node, moves: list[tuple[tuple[str, str], str, str]], before: str = "") -> Step:
    calls = [before] if before else []
    calls += [f"ed_move(&<p{number}>, {given}, {made});" for number, (_, given, made) in enumerate(moves)]
    return Step(node=node, call="\n  ".join(calls), structures=tuple(structure for structure, _, _ in moves))


def concatenation(node: Node) -> Step:
    """CONCATENATION."""
    out = node.outputs[0]
    if int(node.option("fusedActivationFunction", 0)):
        raise refuse(node, "has a fused activation", "write it as an operator")
    axis = int(node.option("axis", 0)) % len(out.shape)
    item = _item(node, out)
    steps = _strides(out.shape, item)
    moves, at = [], 0
    for part in node.inputs:
        assert part is not None
        _same_scale(node, part, out)
        structure = _copy(node, part.shape, _strides(part.shape, item), steps, item)
        moves.append((structure, buffer(part), _at(out, at * steps[axis])))
        at += part.shape[axis]
    return _several(node, moves)


def pack(node: Node) -> Step:
    """PACK: a new axis to join along."""
    out = node.outputs[0]
    axis = int(node.option("axis", 0)) % len(out.shape)
    item = _item(node, out)
    steps = _strides(out.shape, item)
    rest = steps[:axis] + steps[axis + 1 :]
    moves = []
    for number, part in enumerate(node.inputs):
        assert part is not None
        _same_scale(node, part, out)
        structure = _copy(node, part.shape, _strides(part.shape, item), rest, item)
        moves.append((structure, buffer(part), _at(out, number * steps[axis])))
    return _several(node, moves)


def split(node: Node) -> Step:
    """SPLIT, SPLIT_V and UNPACK."""
    x = node.inputs[1] if node.op == "SPLIT" else node.inputs[0]
    assert x is not None
    if node.op == "UNPACK":
        axis = int(node.option("axis", 0)) % len(x.shape)
    else:
        axis = _values(node, 0 if node.op == "SPLIT" else 2, "axis")[0] % len(x.shape)
    item = _item(node, x)
    steps = _strides(x.shape, item)
    moves, at = [], 0
    for part in node.outputs:
        _same_scale(node, x, part)
        given = steps[:axis] + steps[axis + 1 :] if node.op == "UNPACK" else steps
        structure = _copy(node, part.shape, given, _strides(part.shape, item), item)
        moves.append((structure, _from(x, at * steps[axis]), buffer(part)))
        at += 1 if node.op == "UNPACK" else part.shape[axis]
    return _several(node, moves)


def pad(node: Node) -> Step:
    """PAD and PADV2: filled, then copied into the middle."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    _same_scale(node, x, out)
    item = _item(node, x)
    if item != 1:
        raise refuse(node, f"pads {x.dtype} values; only INT8 is written")
    fill = x.zero
    if node.op == "PADV2":
        fill = _values(node, 2, "padding value")[0]
    before = [pair[0] for pair in np.reshape(_values(node, 1, "padding"), (-1, 2)).tolist()]
    steps = _strides(out.shape, item)
    start = sum(count * step for count, step in zip(before, steps, strict=True))
    structure = _copy(node, x.shape, _strides(x.shape, item), steps, item)
    return _several(
        node, [(structure, buffer(x), _at(out, start))], before=f"ed_fill({fill}, {out.bytes}, {buffer(out)});"
    )


def resize_nearest(node: Node) -> Step:
    """RESIZE_NEAREST_NEIGHBOR by whole factors."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    high, wide = out.shape[1] // x.shape[1], out.shape[2] // x.shape[2]
    if (x.shape[1] * high, x.shape[2] * wide) != out.shape[1:3] or node.option("alignCorners", False):
        raise refuse(node, f"goes from {x.shape[1:3]} to {out.shape[1:3]}", "must be whole factors, no aligned corners")
    item = _item(node, x)
    given, made = _strides(x.shape, item), _strides(out.shape, item)
    dims = (x.shape[0], x.shape[1], high, x.shape[2], wide, x.shape[3])
    from_ = (given[0], given[1], 0, given[2], 0, given[3])
    to = (made[0], made[1] * high, made[1], made[2] * wide, made[2], made[3])
    _same_scale(node, x, out)
    structure = _copy(node, dims, from_, to, item)
    return Step(node=node, call=f"ed_move(&<p0>, {buffer(x)}, {buffer(out)});", structures=(structure,))


def gather(node: Node) -> Step:
    """GATHER of table rows, or along another axis, by int32 ids; ids outside the table end the call with 1."""
    table, ids, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert table is not None and ids is not None
    if ids.dtype != "int32" or int(node.option("batchDims", 0)):
        raise refuse(node, f"takes {ids.dtype} ids or batches; plain int32 ids are written", "use int32 ids")
    if table.dtype not in ITEM_BYTES:
        raise refuse(node, f"reads a table of {table.dtype}", "store the table in INT8")
    _same_scale(node, table, out)
    axis = int(node.option("axis", 0)) % len(table.shape)
    outer = math.prod(table.shape[:axis])
    inner = math.prod(table.shape[axis + 1 :]) * _item(node, table)
    constants: tuple[Constant, ...] = ()
    source = buffer(table)
    if _is_narrow(table, axis):
        rows = table.values.reshape(table.shape[0], -1)  # type: ignore[union-attr]  # a narrow table is stored
        named = replace(weights_of(node, table), dtype="int4")
        return Step(
            node=node,
            call=f"ed_gather_rows4(&<p0>, <c:table>, {buffer(ids)}, {buffer(out)})",
            constants=(Constant(name="table", values=pack_pairs(rows), weights=named),),
            structures=(("ed_gather", f"{{1, {table.shape[0]}, {rows.shape[1]}, {ids.size}}}"),),
            can_fail=True,
        )
    if table.values is not None:
        constants = (Constant(name="table", values=table.values, weights=weights_of(node, table)),)
        source = "<c:table>"
    return Step(
        node=node,
        call=f"ed_gather_rows(&<p0>, {source}, {buffer(ids)}, {buffer(out)})",
        constants=constants,
        structures=(("ed_gather", f"{{{outer}, {table.shape[axis]}, {inner}, {ids.size}}}"),),
        can_fail=True,
    )


def _is_narrow(table: Tensor, axis: int) -> bool:
    """Whether rows of the table are stored two values a byte: all of them fit into 4 bits."""
    if table.values is None or table.dtype not in ("int8", "int4") or axis or len(table.shape) < 2:
        return False
    is_narrow = table.size > table.shape[0] and table.values.min() >= -8 and table.values.max() <= 7
    return bool(is_narrow)


BUILDERS = {
    "RESHAPE": alias,
    "SQUEEZE": alias,
    "EXPAND_DIMS": alias,
    "TRANSPOSE": transpose,
    "SLICE": slice_,
    "STRIDED_SLICE": strided_slice,
    "CONCATENATION": concatenation,
    "PACK": pack,
    "SPLIT": split,
    "SPLIT_V": split,
    "UNPACK": split,
    "PAD": pad,
    "PADV2": pad,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "GATHER": gather,
}
