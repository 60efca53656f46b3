"""A network as range equalisation sees it: tensors of channels, and which channels must share one factor.

A factor s of a channel means: the layer that makes the channel gives 1/s of it, the layers that read it take s times as
much, and everything between passes a positive factor on. What does not (a sigmoid, the sum with a constant, the border
of the model) keeps the factors of its channels at 1. Formats are read into this form by the adapters beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["ChannelGraph", "Reader", "Statistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Of each channel of one tensor over calibration.

    Attributes:
        low: Smallest value, at most 0, and `high` the largest, at least 0.
        square: Mean of the squared values.
    """

    low: np.ndarray
    high: np.ndarray
    square: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A layer with weights that reads a tensor.

    Attributes:
        weights: [groups, outputs, inputs, taps]; input i of group g is column g * inputs + i.
        slots: Channel of the tensor behind each column.
        result: Key of the tensor that it makes.
    """

    name: str
    tensor: Hashable
    result: Hashable
    weights: np.ndarray
    slots: np.ndarray


@dataclass(slots=True)
class ChannelGraph:
    """Built operator by operator; `resolved` says which channels share a factor and which must keep 1.

    Attributes:
        makers: Tensor to name of the layer that can give fractions of its channels.
        readers: Layers that can take multiples of the channels they read.
        bounds: Tensor to the value at which it is clipped above, as a ReLU6 does at 6.
    """

    makers: dict[Hashable, str] = field(default_factory=dict)
    readers: list[Reader] = field(default_factory=list)
    bounds: dict[Hashable, float] = field(default_factory=dict)
    _slots: dict[Hashable, np.ndarray] = field(default_factory=dict)
    _equal: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _frozen: list[np.ndarray] = field(default_factory=list)
    _count: int = 0

    def add(self, tensor: Hashable, channels: int) -> None:
        """Take in a tensor; again, it stays as it is."""
        if tensor not in self._slots:
            self._slots[tensor] = np.arange(self._count, self._count + channels)
            self._count += channels

    def channels(self, tensor: Hashable) -> int:
        """Number of channels."""
        return len(self._slots[tensor])

    def freeze(self, *tensors: Hashable) -> None:
        """Channels of these keep the factor 1."""
        self._frozen += [self._slots[tensor] for tensor in tensors if tensor in self._slots]

    def tie(self, one: Hashable, other: Hashable) -> None:
        """Channel i of one passes into channel i of the other; tensors of different numbers of channels are frozen."""
        if self.channels(one) == self.channels(other):
            self._equal.append((self._slots[one], self._slots[other]))
        else:
            self.freeze(one, other)

    def join(self, parts: Sequence[Hashable], whole: Hashable) -> None:
        """Channels of the parts, one part after another, pass into the whole."""
        if sum(self.channels(part) for part in parts) == self.channels(whole):
            self._equal.append((np.concatenate([self._slots[part] for part in parts]), self._slots[whole]))
        else:
            self.freeze(*parts, whole)

    def spread(self, one: Hashable, other: Hashable, *, channels_last: bool) -> None:
        """Pixels of an image become channels of their own: a flattening."""
        have, want = self.channels(one), self.channels(other)
        if want % have:
            self.freeze(one, other)
            return
        slots = self._slots[one]
        wide = np.tile(slots, want // have) if channels_last else np.repeat(slots, want // have)
        self._equal.append((wide, self._slots[other]))

    def resolved(self) -> tuple[dict[Hashable, np.ndarray], np.ndarray]:
        """For each tensor the factor that each of its channels has, as an index, and which factors are free."""
        labels = np.arange(self._count)
        while True:
            before = labels.copy()
            for one, other in self._equal:
                least = np.minimum(labels[one], labels[other])
                np.minimum.at(labels, one, least)
                np.minimum.at(labels, other, least)
                # What they were equal to before must follow, or a chain would take as many rounds as it is long.
                np.minimum.at(labels, before[one], labels[one])
                np.minimum.at(labels, before[other], labels[other])
            labels = labels[labels]
            if np.array_equal(labels, before):
                break
        kept, index = np.unique(labels, return_inverse=True)
        is_free = np.ones(len(kept), bool)
        for slots in self._frozen:
            is_free[index[slots]] = False
        return {tensor: index[slots] for tensor, slots in self._slots.items()}, is_free
