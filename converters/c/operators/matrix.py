"""Convolutions and dense layers: rows of weights with a bias and a scale each."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from converters.c.fixed_point import Scale, exact_multiplier, quantize_multiplier
from converters.c.graph import Node, Tensor
from converters.c.operators.elementwise import int8_tensors
from converters.c.operators.refusal import refuse
from converters.c.operators.windows import Window, activation_range, read_before_written, window_of
from converters.c.step import Constant, Overlap, Step, buffer, weights_of

__all__ = ["BUILDERS", "channel_scales", "matrix_of", "pack_pairs", "pack_rows"]

PLAIN_SUM = 1 << 30
ROUND_TWICE, ROUND_PLAIN, ROUND_ONCE = 0, 1, 2  # of kernels.h
GROUP = 8


def _is_packed(tensor: Tensor) -> bool:
    return tensor.dtype == "int4"


def pack_rows(rows: np.ndarray) -> np.ndarray:
    """4-bit weights [rows, depth] as runtime/rows.h wants them: groups of eight in four bytes, the rest in pairs."""
    count, depth = rows.shape
    whole = depth // GROUP * GROUP
    groups = rows[:, :whole].reshape(count, -1, 2, GROUP // 2)
    body = ((groups[:, :, 0] & 15) | (groups[:, :, 1] << 4)).astype(np.int8).reshape(count, -1)
    return np.concatenate([body, pack_pairs(rows[:, whole:])], axis=1)


def pack_pairs(rows: np.ndarray) -> np.ndarray:
    """4-bit weights [rows, depth], two a byte, low half first; a last single one has a zero beside it."""
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    packed: np.ndarray = ((even[:, 0::2] & 15) | (even[:, 1::2] << 4)).astype(np.int8)
    return packed


def _check(node: Node) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    x, weights = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    assert x is not None and weights is not None
    out = node.outputs[0]
    if x.dtype != "int8" or out.dtype != "int8":
        raise refuse(
            node, f"takes {x.dtype} and gives {out.dtype}; only INT8 layers are written", "quantize it to INT8"
        )
    if weights.values is None:
        raise refuse(node, "its weights are computed, not stored", "keep them constant")
    if weights.dtype not in ("int8", "int4"):
        raise refuse(node, f"has {weights.dtype} weights; INT8 and INT4 are written", "quantize its weights to INT8")
    if np.any(weights.zero_point) and not node.is_legacy:
        raise refuse(node, "has weights with a zero point; symmetric ones are written", "quantize them symmetrically")
    if bias is not None and (bias.values is None or bias.dtype != "int32"):
        raise refuse(node, f"has a {bias.dtype} bias; a stored int32 one is written", "store the bias as int32")
    return x, weights, bias, out


def matrix_of(node: Node, scales: list[Scale], *, channels: int) -> tuple[str, tuple[Constant, ...]]:
    """The same as `_matrix` for a kernel that takes the input's zero point from its values itself."""
    x, weights, *rest = node.inputs
    assert x is not None and weights is not None
    _check(node)
    assert weights.values is not None
    centred = replace(node, inputs=(replace(x, zero_point=np.zeros_like(x.zero_point)), weights, *rest))
    return _matrix(centred, weights.values.reshape(channels, -1), scales)


def _matrix(
    node: Node, rows: np.ndarray, scales: list[Scale], *, pairs: bool = False, once: bool = False
) -> tuple[str, tuple[Constant, ...]]:
    """The C initializer of an ed_matrix, and its arrays.

    Args:
        rows: [rows, depth] weights as integers.
        pairs: 4-bit weights are packed in pairs throughout.
        once: Sums are scaled exactly and rounded once.
    """
    x, weights, bias, out = _check(node)
    low, high = activation_range(node, out)
    values = rows.astype(np.int64) - weights.zero
    added = (
        np.zeros(len(rows), np.int64)
        if bias is None or bias.values is None
        else bias.values.reshape(-1).astype(np.int64)
    )
    folded = (added - x.zero * values.sum(axis=1) + (1 << 31)) % (1 << 32) - (1 << 31)
    largest = np.abs(folded) + 128 * np.abs(values).sum(axis=1)
    plain = all(scale.right_shift >= 1 for scale in scales) and bool(largest.max() < PLAIN_SUM)
    rounding = ROUND_ONCE if once else ROUND_PLAIN if plain else ROUND_TWICE
    packed = _is_packed(weights)
    stored = (pack_pairs(rows) if pairs else pack_rows(rows)) if packed else rows.astype(np.int8)
    constants = (
        Constant(name="weights", values=stored, weights=weights_of(node, weights)),
        Constant(name="bias", values=folded.astype(np.int32)),
        Constant(name="multiplier", values=np.array([scale.multiplier for scale in scales], np.int32)),
        *((Constant(name="low", values=np.array([scale.low for scale in scales], np.int32)),) if once else ()),
        Constant(name="shift", values=np.array([scale.right_shift for scale in scales], np.int8)),
    )
    sizes = (len(rows), rows.shape[1], stored.shape[1], 4 if packed else 8, rounding, out.zero, low, high)
    low_bits = "<c:low>" if once else "0"
    text = f"{{<c:weights>, <c:bias>, <c:multiplier>, {low_bits}, <c:shift>, {', '.join(map(str, sizes))}}}"
    return text, constants


def channel_scales(node: Node, x: Tensor, weights: Tensor, out: Tensor, channels: int) -> list[Scale]:
    """As TensorFlow Lite computes the factors of convolutions: in double precision."""
    if node.is_legacy:
        product = np.float64(np.float32(x.scale[0] * weights.scale[0]))
        return [quantize_multiplier(float(product / np.float64(out.scale[0])))] * channels
    scale = np.broadcast_to(weights.scale, (channels,)).astype(np.float64)
    factors = np.float64(x.scale[0]) * scale / np.float64(out.scale[0])
    return [quantize_multiplier(float(factor)) for factor in factors]


def _scratch(depth: int, *, patches: int, staged: bool) -> int:
    """Up to two patches in bytes where they are gathered, and widened to 16 bits for the cores that want them so."""
    return (-(-2 * depth // 4) * 4 if staged else 0) + 2 * min(patches, 2) * depth


def convolution(node: Node) -> Step:
    """CONV_2D."""
    x, weights, _, out = _check(node)
    channels, kernel_h, kernel_w, depth = weights.shape
    if depth != x.shape[3]:
        raise refuse(node, f"has {x.shape[3] // depth} groups", "write it as one convolution for each group")
    window = window_of(node, x, out, (kernel_h, kernel_w))
    assert weights.values is not None
    rows = weights.values.reshape(channels, -1)
    text, constants = _matrix(node, rows, channel_scales(node, x, weights, out, channels))
    staged = kernel_h * kernel_w > 1 or window.pad_top + window.pad_left > 0
    if node.is_frugal and not node.is_legacy:
        return Step(
            node=node,
            call=f"ed_conv2d_frugal(&<p0>, {buffer(x)}, {buffer(out)}, <s>);",
            constants=constants,
            structures=(("ed_conv", f"{{{text}, {window.initializer}}}"),),
            scratch_bytes=rows.shape[1],
            overlaps={x.index: Overlap(gap=read_before_written(window, x, out))},
        )
    if node.is_legacy:
        return Step(
            node=node,
            call=f"ed_conv2d_legacy(&<p0>, {weights.zero}, {buffer(x)}, {buffer(out)}, <s>);",
            constants=constants,
            structures=(("ed_conv", f"{{{text}, {window.initializer}}}"),),
            scratch_bytes=_scratch(rows.shape[1], patches=1, staged=True) + 4 * channels,
            overlaps={x.index: Overlap(gap=read_before_written(window, x, out))},
        )
    return Step(
        node=node,
        call=f"ed_conv2d(&<p0>, {buffer(x)}, {buffer(out)}, <s>);",
        constants=constants,
        structures=(("ed_conv", f"{{{text}, {window.initializer}}}"),),
        scratch_bytes=_scratch(rows.shape[1], patches=out.size // channels, staged=staged),
        overlaps={x.index: Overlap(gap=read_before_written(window, x, out))},
    )


def depthwise(node: Node) -> Step:
    """DEPTHWISE_CONV_2D: a kernel for each channel, one after another."""
    x, weights, _, out = _check(node)
    _, kernel_h, kernel_w, channels = weights.shape
    if channels % x.shape[3]:
        raise refuse(node, f"gives {channels} channels from {x.shape[3]}", "must be a multiple")
    window = window_of(node, x, out, (kernel_h, kernel_w))
    assert weights.values is not None
    rows = weights.values.reshape(-1, channels).T
    text, constants = _matrix(node, rows, channel_scales(node, x, weights, out, channels), pairs=True)
    multiplier = channels // x.shape[3]
    if node.is_legacy or (node.is_frugal and not _is_packed(weights)):
        return Step(
            node=node,
            call=f"ed_depthwise2d_legacy(&<p0>, {weights.zero}, {buffer(x)}, {buffer(out)});",
            constants=constants,
            structures=(("ed_depthwise", f"{{{text}, {window.initializer}, {multiplier}}}"),),
            overlaps={x.index: Overlap(gap=read_before_written(window, x, out))},
        )
    in_place = multiplier == 1 and out.shape[0] == 1 and out.size <= x.size
    return Step(
        node=node,
        call=f"ed_depthwise2d(&<p0>, {buffer(x)}, {buffer(out)}, <s>);",
        constants=constants,
        structures=(("ed_depthwise", f"{{{text}, {window.initializer}, {multiplier}}}"),),
        scratch_bytes=_plane_bytes(window),
        overlaps={x.index: Overlap(gap=0, multiple=channels)} if in_place else {},
    )


def _plane_bytes(window: Window) -> int:
    high = (window.out_h - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    wide = ((window.out_w - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 2) // 2 * 2
    kernel = window.kernel_h * ((window.kernel_w + 1) // 2 * 2)
    return 2 * (kernel + high * wide + 2)


def dense(node: Node) -> Step:
    """FULLY_CONNECTED."""
    x, weights, _, out = _check(node)
    rows_count, depth = weights.shape
    if node.option("weightsFormat", 0):
        raise refuse(node, "has shuffled weights", "store them in the default format")
    assert weights.values is not None
    # LiteRT's reference kernel scales these sums in double precision, where its convolutions use fixed point.
    factors = np.float64(x.scale[0]) * np.broadcast_to(weights.scale, (rows_count,)).astype(np.float64)
    scales = [exact_multiplier(float(factor / np.float64(out.scale[0]))) for factor in factors]
    text, constants = _matrix(node, weights.values, scales, once=True)
    if node.is_frugal and not node.is_legacy:
        return Step(
            node=node,
            call=f"ed_dense_frugal(&<p0>, {x.size // depth}, {buffer(x)}, {buffer(out)});",
            constants=constants,
            structures=(("ed_matrix", text),),
        )
    if node.is_legacy:
        return Step(
            node=node,
            call=f"ed_dense_legacy(&<p0>, {weights.zero}, {x.size // depth}, {buffer(x)}, {buffer(out)}, <s>);",
            constants=constants,
            structures=(("ed_matrix", text),),
            scratch_bytes=_scratch(depth, patches=1, staged=False) + 4 * rows_count,
        )
    return Step(
        node=node,
        call=f"ed_dense(&<p0>, {x.size // depth}, {buffer(x)}, {buffer(out)}, <s>);",
        constants=constants,
        structures=(("ed_matrix", text),),
        scratch_bytes=_scratch(depth, patches=x.size // depth, staged=False),
    )


def batch_matmul(node: Node) -> Step:
    """BATCH_MATMUL of computed values, as of a DLRM's interaction."""
    a, b, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert a is not None and b is not None
    int8_tensors(node, a, b, out)
    if math.prod(a.shape[:-2]) != math.prod(b.shape[:-2]):
        raise refuse(node, f"repeats batches ({a.shape} by {b.shape})")
    batches = math.prod(a.shape[:-2])
    rows, columns = out.shape[-2:]
    across_a, across_b = bool(node.option("adjX", False)), bool(node.option("adjY", False))
    depth = a.shape[-2] if across_a else a.shape[-1]
    a_row, a_depth = (1, rows) if across_a else (depth, 1)
    b_column, b_depth = (depth, 1) if across_b else (1, columns)
    scale = quantize_multiplier(float(np.float64(a.scale[0] * b.scale[0]) / np.float64(out.scale[0])))
    strides = f"{rows * depth}, {a_row}, {a_depth}, {depth * columns}, {b_column}, {b_depth}"
    text = f"{{{batches}, {rows}, {columns}, {depth}, {strides}, {a.zero}, {b.zero}, {out.zero}, {scale.initializer}}}"
    return Step(
        node=node,
        call=f"ed_multiply_batches(&<p0>, {buffer(a)}, {buffer(b)}, {buffer(out)});",
        structures=(("ed_batch_product", text),),
    )


BUILDERS = {
    "BATCH_MATMUL": batch_matmul,
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": dense,
}
