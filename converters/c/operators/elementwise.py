"""Sums, products, extremes and changes of scale, value by value; other functions of one value become tables."""

from __future__ import annotations

import numpy as np

from converters.c.fixed_point import quantize_multiplier
from converters.c.graph import Node, Tensor
from converters.c.operators.refusal import refuse
from converters.c.operators.unary_table import unary_table
from converters.c.operators.windows import activation_range
from converters.c.step import Constant, Overlap, Step, buffer

__all__ = ["BUILDERS", "MAX_DIMS", "broadcast_strides", "int8_pair", "int8_tensors"]

MAX_DIMS = 6


def int8_tensors(node: Node, *tensors: Tensor | None) -> None:
    """Refuse anything but INT8 values with one scale each."""
    for tensor in tensors:
        if tensor is None or tensor.dtype != "int8":
            kind = "nothing" if tensor is None else tensor.dtype
            raise refuse(node, f"works on {kind}; only INT8 is written", "quantize it to INT8")
        if len(tensor.scale) != 1:
            raise refuse(node, f"tensor {tensor.name} has {len(tensor.scale)} scales", "must be one")


def int8_pair(node: Node) -> tuple[Tensor, Tensor]:
    """First input and output of an operator on INT8 values."""
    x, out = node.inputs[0], node.outputs[0]
    int8_tensors(node, x, out)
    assert x is not None
    return x, out


def broadcast_strides(node: Node, x: Tensor, shape: tuple[int, ...]) -> list[int]:
    """Strides of `x`, in elements, along an output of this shape; 0 where it is repeated."""
    if len(shape) > MAX_DIMS:
        raise refuse(node, f"has {len(shape)} dimensions; at most {MAX_DIMS} are written")
    sizes = (1,) * (len(shape) - len(x.shape)) + x.shape
    strides, step = [], 1
    for size, made in zip(reversed(sizes), reversed(shape), strict=True):
        if size not in (1, made):
            raise refuse(node, f"joins shapes {x.shape} and {shape}")
        strides.append(0 if size == 1 else step)
        step *= size
    return [0] * (MAX_DIMS - len(shape)) + strides[::-1]


def _pairing(node: Node, a: Tensor, b: Tensor, out: Tensor) -> str:
    """The ed_pairing; equal shapes and single values are one long row."""
    if a.shape == b.shape == out.shape:
        return _initializer([1] * (MAX_DIMS - 1) + [out.size], [0] * 5 + [1], [0] * 5 + [1])
    dims = [1] * (MAX_DIMS - len(out.shape)) + list(out.shape)
    return _initializer(dims, broadcast_strides(node, a, out.shape), broadcast_strides(node, b, out.shape))


def _initializer(*lists: list[int]) -> str:
    return "{" + ", ".join("{" + ", ".join(map(str, each)) + "}" for each in lists) + "}"


def _two(node: Node) -> tuple[Tensor, Tensor, Tensor]:
    a, b = node.inputs
    assert a is not None and b is not None
    return a, b, node.outputs[0]


def _over_inputs(tensors: tuple[Tensor, ...], out: Tensor) -> dict[int, Overlap]:
    return {t.index: Overlap(gap=0) for t in tensors if t.values is None and t.bytes == out.bytes}


def add(node: Node) -> Step:
    """ADD and SUB: both operands at twice the larger scale with 20 bits of room."""
    a, b, out = _two(node)
    int8_tensors(node, a, b, out)
    low, high = activation_range(node, out)
    largest = np.float64(np.float32(2) * max(a.scale[0], b.scale[0]))
    of_a = quantize_multiplier(float(np.float64(a.scale[0]) / largest))
    of_b = quantize_multiplier(float(np.float64(b.scale[0]) / largest))
    of_out = quantize_multiplier(float(largest / np.float64(np.float32(1 << 20) * out.scale[0])))
    scales = ", ".join(each.initializer for each in (of_a, of_b, of_out))
    sign = 1 if node.op == "ADD" else -1
    return Step(
        node=node,
        call=f"ed_add(&<p0>, &<p1>, {buffer(a)}, {buffer(b)}, {buffer(out)});",
        structures=(
            ("ed_sum", f"{{{scales}, {a.zero}, {b.zero}, {out.zero}, {low}, {high}, {sign}}}"),
            ("ed_pairing", _pairing(node, a, b, out)),
        ),
        overlaps=_over_inputs((a, b), out),
    )


def multiply(node: Node) -> Step:
    """MUL."""
    a, b, out = _two(node)
    int8_tensors(node, a, b, out)
    low, high = activation_range(node, out)
    scale = quantize_multiplier(float(np.float32(a.scale[0] * b.scale[0]) / out.scale[0]))
    return Step(
        node=node,
        call=f"ed_multiply(&<p0>, &<p1>, {buffer(a)}, {buffer(b)}, {buffer(out)});",
        structures=(
            ("ed_product", f"{{{scale.initializer}, {a.zero}, {b.zero}, {out.zero}, {low}, {high}}}"),
            ("ed_pairing", _pairing(node, a, b, out)),
        ),
        overlaps=_over_inputs((a, b), out),
    )


def extreme(node: Node) -> Step:
    """MAXIMUM and MINIMUM of INT8 values in one scale, or of int32 ids."""
    a, b, out = _two(node)
    kinds = {a.dtype, b.dtype, out.dtype}
    if kinds == {"int8"}:
        if {(float(t.scale[0]), t.zero) for t in (a, b)} != {(float(out.scale[0]), out.zero)}:
            raise refuse(node, "joins values of different scales", "requantize them first")
        function = "ed_extreme8"
    elif kinds == {"int32"}:
        function = "ed_extreme32"
    else:
        raise refuse(node, f"works on {', '.join(sorted(kinds))}; INT8 and int32 are written")
    sign = 1 if node.op == "MAXIMUM" else -1
    return Step(
        node=node,
        call=f"{function}({sign}, &<p0>, {buffer(a)}, {buffer(b)}, {buffer(out)});",
        structures=(("ed_pairing", _pairing(node, a, b, out)),),
        overlaps=_over_inputs((a, b), out),
    )


def requantize(node: Node) -> Step:
    """RELU and its kin: another scale and a clamp."""
    x, out = int8_pair(node)
    scale = quantize_multiplier(float(np.float64(x.scale[0]) / np.float64(out.scale[0])))
    bounds = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
    low, high = bounds[node.op]

    def quantized(value: float) -> int:
        return out.zero + int(np.sign(value) * np.floor(abs(np.float64(np.float32(value) / out.scale[0])) + 0.5))

    least = max(-128, quantized(low)) if low is not None else -128
    most = min(127, quantized(high)) if high is not None else 127
    return _requantized(node, x, out, f"{scale.initializer}", least, most)


def _requantized(node: Node, x: Tensor, out: Tensor, scale: str, low: int, high: int) -> Step:
    return Step(
        node=node,
        call=f"ed_requantize(<p0>, {x.zero}, {out.zero}, {low}, {high}, {x.size}, {buffer(x)}, {buffer(out)});",
        structures=(("ed_scale", scale),),
        overlaps={x.index: Overlap(gap=0)},
    )


def quantize(node: Node) -> Step:
    """QUANTIZE: floats at the border, another scale inside, and the two kinds of eight bits into each other."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    if len(out.scale) != 1 or out.dtype not in ("int8", "uint8"):
        raise refuse(node, f"gives {out.dtype} with {len(out.scale)} scales; INT8 with one is written")
    low, high = (-128, 127) if out.dtype == "int8" else (0, 255)
    if x.dtype == "float32":
        numbers = f"{_float(out.scale[0])}, {out.zero}, {low}, {high}, {x.size}"
        call = f"ed_quantize({numbers}, {buffer(x)}, {buffer(out)});"
        return Step(node=node, call=call, overlaps={x.index: Overlap(gap=0)})
    if x.dtype == out.dtype == "int8":
        scale = quantize_multiplier(float(np.float64(x.scale[0]) / np.float64(out.scale[0])))
        return _requantized(node, x, out, scale.initializer, low, high)
    if {x.dtype, out.dtype} <= {"int8", "uint8"}:
        return table(node)
    raise refuse(node, f"takes {x.dtype}; float32, INT8 and UINT8 are written")


def dequantize(node: Node) -> Step:
    """DEQUANTIZE at the border."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    if x.dtype not in ("int8", "uint8") or len(x.scale) != 1 or x.values is not None:
        raise refuse(node, "widens weights or other types than INT8", "use a full-integer file")
    numbers = f"{_float(x.scale[0])}, {x.zero}, {int(x.dtype == 'int8')}, {x.size}"
    gap = max(0, 3 * x.size)  # four bytes are written for each that is read
    return Step(
        node=node,
        call=f"ed_dequantize({numbers}, {buffer(x)}, {buffer(out)});",
        overlaps={x.index: Overlap(gap=gap)},
    )


def _float(value: np.float32) -> str:
    return f"{float(value).hex()}f"


def table(node: Node) -> Step:
    """Any function of one 8-bit value: a table of all 256 answers of the reference kernel."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    kinds = ("int8", "uint8") if node.op == "QUANTIZE" else ("int8",)
    if x.dtype not in kinds or out.dtype not in kinds or len(x.scale) != 1:
        raise refuse(node, f"takes {x.dtype} and gives {out.dtype}; only INT8 is written", "quantize it to INT8")
    values = unary_table(node)
    return Step(
        node=node,
        call=f"ed_look_up(<c:table>, {x.size}, {buffer(x)}, {buffer(out)});",
        constants=(Constant(name="table", values=values),),
        overlaps={x.index: Overlap(gap=0)},
    )


TABLES = ("LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU", "ELU", "GELU", "ABS", "EXP", "SQRT", "RSQRT", "LOG", "NEG")
BUILDERS = {
    "ADD": add,
    "SUB": add,
    "MUL": multiply,
    "MAXIMUM": extreme,
    "MINIMUM": extreme,
    "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
    **dict.fromkeys(("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"), requantize),
    **dict.fromkeys(TABLES, table),
}
