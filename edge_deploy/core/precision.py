"""The precisions that `--precision` takes: what weights are stored as, what layers compute on; defined here alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_deploy.core.errors import BadInput

__all__ = ["PRECISIONS", "Activations", "Precision", "find_precision", "form_word", "width_word"]

Activations: TypeAlias = Literal["float", "dynamic", "int8", "int16"]
"""What a layer computes on: floats, INT8 with a scale found by each inference, INT8 or INT16 with calibrated scales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """One precision.

    Attributes:
        weight_bits: 32 (float), 16 (float16), 8 or 4; of weights and embedding tables.
        mlp_bits: Of the MLPs of a recommender, which are small and read once a sample.
        summary: What it is, for lists.
    """

    name: str
    weight_bits: int
    activations: Activations
    mlp_bits: int
    summary: str

    @property
    def needs_ranges(self) -> bool:
        """Whether activations have scales that calibration finds."""
        return self.activations in ("int8", "int16")


_ALL = (
    Precision(name="float32", weight_bits=32, activations="float", mlp_bits=32, summary="as trained"),
    Precision(
        name="float16",
        weight_bits=16,
        activations="float",
        mlp_bits=16,
        summary="float16 weights: half the size; what computes them depends on the device",
    ),
    Precision(name="int8", weight_bits=8, activations="int8", mlp_bits=8, summary="INT8 weights and activations"),
    Precision(
        name="int4",
        weight_bits=4,
        activations="int8",
        mlp_bits=8,
        summary="packed INT4 weights and tables, INT8 activations; INT8 MLPs in recommenders",
    ),
    Precision(
        name="int8-dynamic",
        weight_bits=8,
        activations="dynamic",
        mlp_bits=8,
        summary="INT8 weights, activations quantized by each inference; no calibration",
    ),
    Precision(
        name="int8-weight",
        weight_bits=8,
        activations="float",
        mlp_bits=8,
        summary="INT8 weights, float activations; no calibration",
    ),
    Precision(
        name="int4-weight",
        weight_bits=4,
        activations="float",
        mlp_bits=4,
        summary="packed INT4 weights, float activations; no calibration",
    ),
    Precision(
        name="int16x8",
        weight_bits=8,
        activations="int16",
        mlp_bits=8,
        summary="INT8 weights, INT16 activations: for microcontrollers; phones run it without XNNPACK",
    ),
)
PRECISIONS: dict[str, Precision] = {precision.name: precision for precision in _ALL}


def find_precision(name: str, *, where: str = "--precision") -> Precision:
    """The precision of this name.

    Raises:
        BadInput: No such precision.
    """
    if name not in PRECISIONS:
        raise BadInput(f"{where} {name}: must be one of {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]


def form_word(bits: int, activations: Activations) -> str:
    """How support tables call this form of a layer: "int4", "int8-dynamic", "int8-weight", "int16x8", "float16", ..."""
    if bits >= 16:
        return f"float{bits}"
    words = {"int8": f"int{bits}", "int16": f"int16x{bits}", "dynamic": f"int{bits}-dynamic"}
    return words.get(activations, f"int{bits}-weight")


def width_word(bits: int) -> str:
    """How reports call a width: "int4", "int8", "float16", "float32"."""
    return f"float{bits}" if bits >= 16 else f"int{bits}"
