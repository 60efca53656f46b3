"""Factors for channels between layers, so that one range per tensor and one scale per output channel lose less.

Behind a ReLU a channel may be scaled by any positive factor if the layers around take it back (positive homogeneity:
Qin, Zhou and Xiu on the reduced parameter space of ReLU networks; Nagel et al., arXiv:1906.04721, section 4.1, call it
cross-layer equalisation and balance the ranges of weights). With a scale for each output channel the layer that makes a
channel loses nothing, so what is balanced here is other: small channels of an activation gain steps when they fill its
range, and the layer that reads them loses steps when its columns differ much. Both are counted as expected squared
error of rounding at the reader's outputs; of some ways between "as it is" and "all channels alike" the one with the
least is taken, and none unless it gains. Pure NumPy.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from converters.passes.channel_graph import ChannelGraph, Reader, Statistics
from edge_deploy.core.layer_rule import WeightScale

__all__ = ["Factors", "choose_factors"]

LEVELS = 255
# Powers of a channel's range, of what its readers make of it, and of the weights that make it, tried as factors.
BY_RANGE = (0.0, 0.25, 0.5, 0.75, 1.0)
BY_WEIGHT = (0.0, 0.25, 0.5)
BY_ROW = (0.0, 0.25, 0.5, 1.0)
# A channel that calibration hardly reached gets no more than this: later inputs may reach it.
MOST = 32.0
# Times the largest value seen that a channel keeps room for.
ROOM = 1.25
LEAST_GAIN = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What came out.

    Attributes:
        by_tensor: Factor of each channel of every tensor that has any but 1.
        groups: Sets of channels that were scaled, each between its makers and readers.
        ratio: Of the largest to the smallest range of a channel, mean over those tensors (geometric), before and after.
    """

    by_tensor: dict[Hashable, np.ndarray]
    groups: int
    ratio: tuple[float, float]


def choose_factors(
    graph: ChannelGraph,
    statistics: Mapping[Hashable, Statistics],
    *,
    weight_bits: Mapping[str, int],
    norms: Mapping[Hashable, np.ndarray],
    weight_scale: WeightScale = "channel",
) -> Factors:
    """Factors of all channels.

    Args:
        statistics: Of every tensor that a reader reads or makes, in float.
        weight_bits: By layer name; a layer that is missing stays in float and counts for nothing.
        norms: Squared norm of the weights that make each channel, by tensor; where they are known and nothing is
            clipped, the common factor of a group is such that their sum stays.
        weight_scale: With one scale for a whole weight tensor the layers that make channels gain or lose as well.
    """
    is_uniform = weight_scale == "tensor"
    slots, is_free = graph.resolved()
    factors = np.ones(len(is_free))
    least, most = _limits(graph, slots, statistics, len(is_free))
    groups = 0
    ratios = []
    for tensors in _groups(graph, slots, is_free):
        readers = [r for r in graph.readers if r.tensor in tensors and r.name in weight_bits and r.tensor in statistics]
        if not readers or any(tensor not in statistics for tensor in tensors & {r.tensor for r in graph.readers}):
            continue
        chosen = np.unique(np.concatenate([slots[tensor] for tensor in tensors]))
        makers = [
            reader
            for reader in graph.readers
            if is_uniform and reader.result in tensors and reader.name in weight_bits and reader.tensor in statistics
        ]
        errors: list[_Error | _MakerError] = [
            *(_Error.of(reader, slots, statistics, weight_bits[reader.name], is_uniform) for reader in readers),
            *(_MakerError.of(reader, slots, statistics, weight_bits[reader.name]) for reader in makers),
        ]
        found = _best(readers, errors, chosen[is_free[chosen]], slots, statistics, least, most)
        if found is None:
            continue
        factors[chosen] = found[chosen]
        if np.isinf(most[chosen]).all() and is_free[chosen].all():
            factors[chosen] *= _norm_preserving(tensors, slots, factors, norms)
        groups += 1
        for tensor in {reader.tensor for reader in readers}:
            reach = np.maximum(-statistics[tensor].low, statistics[tensor].high)
            ratios.append((_ratio(reach), _ratio(reach / factors[slots[tensor]])))
    changed = {t: factors[index] for t, index in slots.items() if not np.all(factors[index] == 1)}
    before, after = (float(np.exp(np.mean([np.log(r[i]) for r in ratios]))) if ratios else 1.0 for i in (0, 1))
    return Factors(by_tensor=changed, groups=groups, ratio=(before, after))


def _ratio(reach: np.ndarray) -> float:
    used = reach[reach > 0]
    return float(used.max() / used.min()) if len(used) else 1.0


def _limits(
    graph: ChannelGraph, slots: Mapping[Hashable, np.ndarray], statistics: Mapping[Hashable, Statistics], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest factor of each channel.

    What is clipped at 6 is clipped at 6 times its factor once it is scaled, so a channel may fill the range only as far
    as it never reached the clip, and cannot shrink: one that does reach 6 stays as it is. Values beyond those of
    calibration are clipped earlier than in float, as any range from calibration does.
    """
    least, most = np.full(count, 1.0 / MOST), np.full(count, np.inf)
    for tensor, bound in graph.bounds.items():
        index = slots[tensor]
        seen = statistics[tensor].high if tensor in statistics else np.full(len(index), bound)
        np.maximum.at(least, index, np.minimum(ROOM * seen / bound, 1.0))
        np.minimum.at(most, index, 1.0)
    return least, most


def _groups(graph: ChannelGraph, slots: Mapping[Hashable, np.ndarray], is_free: np.ndarray) -> list[set[Hashable]]:
    """Tensors that share channels with each other, of those that have free ones."""
    first: dict[int, int] = {}
    found: list[set[Hashable] | None] = []
    for tensor, index in slots.items():
        own = np.unique(index[is_free[index]]).tolist()
        if not own:
            continue
        met = sorted({first[slot] for slot in own if slot in first})
        target = met[0] if met else len(found)
        if not met:
            found.append(set())
        merged = found[target]
        assert merged is not None
        merged.add(tensor)
        for other in met[1:]:
            gone = found[other]
            assert gone is not None
            merged |= gone
            found[other] = None
            first = {slot: target if place == other else place for slot, place in first.items()}
        first.update(dict.fromkeys(own, target))
    return [group for group in found if group]


def _best(
    readers: list[Reader],
    errors: Sequence[_Error | _MakerError],
    free: np.ndarray,
    slots: Mapping[Hashable, np.ndarray],
    statistics: Mapping[Hashable, Statistics],
    least: np.ndarray,
    most: np.ndarray,
) -> np.ndarray | None:
    """The factors with the least error; None where "as it is" is best."""
    reach, weight = np.zeros(len(least)), np.zeros(len(least))
    for reader in readers:
        index = slots[reader.tensor]
        found = statistics[reader.tensor]
        magnitude = np.maximum(-found.low, found.high)
        # Small channels fill the range but for some room, because later samples may go beyond these.
        np.maximum.at(reach, index, np.minimum(ROOM * magnitude / max(magnitude.max(), 1e-30), 1.0))
        energy = np.square(reader.weights).sum(axis=(1, 3)).reshape(-1)
        np.add.at(weight, index[reader.slots], energy / _power(reader, statistics))
    made = np.zeros(len(least))
    for maker in (error for error in errors if isinstance(error, _MakerError)):
        np.maximum.at(made, maker.index, maker.rows)
    reach = np.maximum(reach, 1.0 / MOST)
    by = [reach[free], _even(np.sqrt(weight[free])), _even(made[free])]
    plain = np.ones(len(least))
    smallest, chosen = (1 - LEAST_GAIN) * sum(error.under(plain) for error in errors), None
    powers = product(BY_RANGE, BY_WEIGHT, BY_ROW if made.any() else (0.0,))
    for by_range, by_weight, by_row in powers:
        raw = by[0] ** by_range * by[1] ** -by_weight * by[2] ** by_row
        # Where something is clipped, 1 means "fills the range"; elsewhere only ratios count.
        if not np.isfinite(most[free]).any():
            raw = raw / np.exp(np.mean(np.log(raw)))
        tried = plain.copy()
        tried[free] = np.clip(raw, least[free], most[free])
        error = sum(each.under(tried) for each in errors)
        if error < smallest:
            smallest, chosen = error, tried
    return chosen


def _even(values: np.ndarray) -> np.ndarray:
    """Relative to the median of those above zero, none further from it than `MOST`."""
    typical = float(np.median(values[values > 0])) if np.any(values > 0) else 1.0
    return np.clip(values / typical, 1.0 / MOST, MOST)


def _power(reader: Reader, statistics: Mapping[Hashable, Statistics]) -> float:
    found = float(statistics[reader.result].square.sum()) if reader.result in statistics else 0.0
    return max(found, 1e-30)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """Expected squared error at a reader's outputs, over their power, for factors of all channels."""

    index: np.ndarray
    columns: np.ndarray
    low: np.ndarray
    high: np.ndarray
    square: np.ndarray
    largest: np.ndarray
    energy: np.ndarray
    taps: int
    limit: float
    power: float
    is_uniform: bool

    @classmethod
    def of(
        cls,
        reader: Reader,
        slots: Mapping[Hashable, np.ndarray],
        statistics: Mapping[Hashable, Statistics],
        bits: int,
        is_uniform: bool,
    ) -> _Error:
        found = statistics[reader.tensor]
        return cls(
            index=slots[reader.tensor],
            columns=reader.slots,
            low=found.low,
            high=found.high,
            square=found.square,
            largest=np.abs(reader.weights).max(axis=3),
            energy=np.square(reader.weights).sum(axis=(1, 3)),
            taps=reader.weights.shape[3],
            limit=2.0 ** (bits - 1) - 1,
            power=_power(reader, statistics),
            is_uniform=is_uniform,
        )

    def under(self, factors: np.ndarray) -> float:
        """Rounding of the tensor, and of the weights."""
        own = factors[self.index]
        step = (float((self.high / own).max()) - float((self.low / own).min())) / LEVELS
        columns = own[self.columns].reshape(self.energy.shape)
        by_tensor = step**2 * float((self.energy * columns**2).sum())
        scales = (self.largest * columns[:, None, :]).max(axis=2) / self.limit
        if self.is_uniform:
            scales = np.full_like(scales, scales.max())
        read = self.taps * (self.square[self.columns].reshape(columns.shape) / columns**2).sum(axis=1)
        by_weights = float((scales**2).sum(axis=1) @ read)
        return (by_tensor + by_weights) / 12 / self.power


@dataclass(frozen=True, slots=True, kw_only=True)
class _MakerError:
    """Expected squared error of rounding the weights that make channels, with one scale for all, over their power."""

    index: np.ndarray
    rows: np.ndarray
    read: np.ndarray
    limit: float
    power: float

    @classmethod
    def of(
        cls,
        reader: Reader,
        slots: Mapping[Hashable, np.ndarray],
        statistics: Mapping[Hashable, Statistics],
        bits: int,
    ) -> _MakerError:
        groups, outputs, inputs, taps = reader.weights.shape
        square = statistics[reader.tensor].square[reader.slots].reshape(groups, inputs).sum(axis=1)
        return cls(
            index=slots[reader.result],
            rows=np.abs(reader.weights).max(axis=(2, 3)).reshape(-1),
            read=taps * np.repeat(square, outputs),
            limit=2.0 ** (bits - 1) - 1,
            power=_power(reader, statistics),
        )

    def under(self, factors: np.ndarray) -> float:
        """A channel's error comes back times its factor."""
        own = factors[self.index]
        scale = float((self.rows / own).max()) / self.limit
        return scale**2 * float(own**2 @ self.read) / 12 / self.power


def _norm_preserving(
    tensors: set[Hashable],
    slots: Mapping[Hashable, np.ndarray],
    factors: np.ndarray,
    norms: Mapping[Hashable, np.ndarray],
) -> float:
    """The common factor that keeps the squared norm of all weights that make these channels."""
    known = [tensor for tensor in tensors if tensor in norms]
    before = sum(float(norms[tensor].sum()) for tensor in known)
    after = sum(float((norms[tensor] / factors[slots[tensor]] ** 2).sum()) for tensor in known)
    return float(np.sqrt(after / before)) if before > 0 and after > 0 else 1.0
