"""Poolings, means and the softmax."""

from __future__ import annotations

import math

import numpy as np

from converters.c.fixed_point import Scale, quantize_multiplier
from converters.c.graph import Node, Tensor
from converters.c.operators.elementwise import int8_pair
from converters.c.operators.refusal import refuse
from converters.c.operators.windows import Window, activation_range, window_of
from converters.c.step import Overlap, Step, buffer

__all__ = ["BUILDERS"]


def _pool(node: Node, function: str) -> Step:
    x, out = int8_pair(node)
    window = window_of(node, x, out, (int(node.option("filterHeight")), int(node.option("filterWidth"))))
    low, high = activation_range(node, out)
    return Step(
        node=node,
        call=f"{function}(&<p0>, {buffer(x)}, {buffer(out)});",
        structures=(("ed_pool", f"{{{window.initializer}, {low}, {high}}}"),),
        overlaps={x.index: Overlap(gap=_overtaking(window, out))},
    )


def _overtaking(window: Window, out: Tensor) -> int:
    """Like `read_before_written`, for a kernel that has read a channel's window before it writes that channel."""
    oy, ox = np.divmod(np.arange(window.out_h * window.out_w), window.out_w)
    iy = np.maximum(oy * window.stride_h - window.pad_top, 0)
    ix = np.maximum(ox * window.stride_w - window.pad_left, 0)
    batch = np.arange(window.batches)[:, None]
    first = ((iy * window.in_w + ix) * window.in_c + batch * window.in_h * window.in_w * window.in_c).reshape(-1)
    still = np.minimum.accumulate(first[::-1])[::-1]
    begun = np.arange(len(first)) * out.shape[3]
    later = (begun[:-1] + out.shape[3] - still[1:]).max() if len(first) > 1 else 0
    return int(max((begun - still).max(), later))


def max_pool(node: Node) -> Step:
    """MAX_POOL_2D."""
    return _pool(node, "ed_max_pool")


def average_pool(node: Node) -> Step:
    """AVERAGE_POOL_2D."""
    return _pool(node, "ed_average_pool_legacy" if node.is_legacy else "ed_average_pool")


def mean(node: Node) -> Step:
    """MEAN over axes that follow one another: the division is part of the factor, as QuantizedMeanOrSum has it."""
    x, out = int8_pair(node)
    axes = node.inputs[1]
    if axes is None or axes.values is None:
        raise refuse(node, "its axes are computed", "keep them constant")
    rank = len(x.shape)
    over = sorted({int(axis) % rank for axis in axes.values.reshape(-1)})
    if not over or over != list(range(over[0], over[-1] + 1)):
        raise refuse(node, f"runs over axes {over}", "they must follow one another")
    outer, inner = math.prod(x.shape[: over[0]]), math.prod(x.shape[over[-1] + 1 :])
    count = math.prod(x.shape[axis] for axis in over)
    scale = quantize_multiplier(float(np.float64(x.scale[0]) / np.float64(out.scale[0])))
    shift = min(count.bit_length() - 1, 32, 31 - scale.right_shift)
    scale = Scale((scale.multiplier << shift) // count, scale.right_shift + shift)
    sizes = f"{outer}, {count}, {inner}, {x.zero}, {out.zero}"
    return Step(
        node=node,
        call=f"ed_mean_of(&<p0>, {buffer(x)}, {buffer(out)});",
        structures=(("ed_mean", f"{{{sizes}, {scale.initializer}}}"),),
        # A mean is written after the last reading of its own column and before the columns behind it are read.
        overlaps={x.index: Overlap(gap=0)},
    )


def softmax(node: Node) -> Step:
    """SOFTMAX over the last axis, by the fixed-point exponential of the reference kernel."""
    x, out = int8_pair(node)
    if out.zero != -128 or abs(float(out.scale[0]) - 1 / 256) > 1e-6:
        raise refuse(node, f"gives scale {float(out.scale[0]):g} and zero point {out.zero}", "must be 1/256 and -128")
    depth = x.shape[-1]
    bits = 5
    factor = min(float(node.option("beta", 1.0)) * float(x.scale[0]) * (1 << (31 - bits)), (1 << 31) - 1.0)
    if factor <= 1.0:
        raise refuse(node, f"has an input scale of {float(x.scale[0]):g}, below what the reference kernel takes")
    scale = quantize_multiplier(factor)
    radius = math.floor(((1 << bits) - 1) * (1 << (31 - bits)) / (1 << -scale.right_shift))
    return Step(
        node=node,
        call=f"ed_softmax_of(&<p0>, {buffer(x)}, {buffer(out)});",
        structures=(("ed_softmax", f"{{{x.size // depth}, {depth}, {-radius}, {scale.initializer}}}"),),
        overlaps={x.index: Overlap(gap=0)},
    )


BUILDERS = {
    "MAX_POOL_2D": max_pool,
    "AVERAGE_POOL_2D": average_pool,
    "MEAN": mean,
    "SOFTMAX": softmax,
}
