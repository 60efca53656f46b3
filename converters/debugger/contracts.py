"""What a rig shows of a float model and one artifact of it, side by side, one batch of samples at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

__all__ = ["Arrays", "Grid", "Rig", "Seen", "Site"]

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The real values that an integer tensor with one scale can hold.

    Attributes:
        low: The smallest, and `high` the largest of them.
    """

    scale: float
    low: float
    high: float

    @staticmethod
    def of(scale: float, zero_point: int, *, lowest: int = -128, highest: int = 127) -> Grid:
        """The grid of an integer type with these limits."""
        return Grid(scale=scale, low=(lowest - zero_point) * scale, high=(highest - zero_point) * scale)

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """The nearest values of the grid; outside ones become its ends."""
        stored = np.rint((values - self.low) / self.scale) * self.scale + self.low
        nearest: np.ndarray = np.clip(stored, self.low, self.high)
        return nearest

    def clipped(self, values: np.ndarray) -> int:
        """How many values lie outside by more than rounding."""
        half = self.scale / 2
        return int(((values < self.low - half) | (values > self.high + half)).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place where both models hold the same value: an input, or what a layer computes.

    Attributes:
        layer: The layer's name in the artifact, or the input's.
        dtype: Type in which the artifact stores the value.
        grid: Of an integer value with one scale; None for others.
    """

    layer: str
    op: str
    kind: Literal["input", "layer"]
    dtype: str
    grid: Grid | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One batch at every site; real values by layer, [batch, ...].

    Attributes:
        want: What the float model computes.
        got: What the artifact computes, with all the error from before.
        own_want: What the layer's float operator makes of the float model's values, rounded to the type in which the
            artifact's layer reads them; missing where layers cannot be told apart like that.
        own_got: What the artifact's layer makes of the same values.
    """

    want: Arrays
    got: Arrays
    own_want: Arrays = field(default_factory=dict)
    own_got: Arrays = field(default_factory=dict)

    def own_errors(self) -> dict[str, np.ndarray]:
        """What each layer adds by itself."""
        return {layer: self.own_got[layer] - self.own_want[layer] for layer in self.own_got if layer in self.own_want}


class Rig(Protocol):
    """A float model and one artifact."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """Inputs first, then layers in topological order."""

    @property
    def batch(self) -> int:
        """Samples in one call."""

    @property
    def method(self) -> str:
        """How layers are run, in a few words for the reader."""

    def see(self, feeds: Arrays) -> Seen:
        """Run both models on arrays [batch, ...] by source input name.

        Raises:
            ToolchainError: A runtime failed.
        """

    def answer(self, feeds: Arrays, errors: Arrays) -> np.ndarray:
        """The float model's first output [batch, values] when these errors are added to the values at their sites."""
