"""What one operator of a TFLite file becomes, and why that differs from what was asked."""

from __future__ import annotations

from dataclasses import dataclass

from edge_deploy.core.precision import Activations

__all__ = ["FLOAT", "Choice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What one operator becomes.

    Attributes:
        bits: Of the weights; 8 for an integer operator without; 16 float16; 32 leaves the operator in float.
        asked: Bits that were asked.
        reason: Why `bits` differs from `asked`.
        activations: What it computes on; float for 16 and 32 bits.
        one_scale: Its weights have one scale instead of one for each output channel.
    """

    bits: int
    asked: int
    reason: str = ""
    activations: Activations = "int8"
    one_scale: bool = False

    @property
    def is_integer(self) -> bool:
        """Whether the operator reads and writes integers that stand for floats."""
        return self.bits < 16 and self.activations in ("int8", "int16")

    @property
    def is_narrow(self) -> bool:
        """Whether it stays among floats and its weights become narrow."""
        return self.bits < 32 and not self.is_integer


FLOAT = Choice(bits=32, asked=32, activations="float")
