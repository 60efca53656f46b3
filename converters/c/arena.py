"""One arena for all values of a graph: each lies there from its making to its last reading, offline and for good.

Tensors are placed one after another at the lowest offset that does not collide, in several orders, of which the best is
kept. By size is what TensorFlow Lite Micro does; beyond it, an output may lie over an input that dies with the step, as
far as the step's order of reading and writing allows (diagonal memory optimisation, arXiv:2010.01668).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Arena", "Block", "Pair", "plan"]

ALIGNMENT = 4
ORDERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Bytes that are alive from step `first` to step `last`, both included."""

    key: str
    bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`made` may lie over `read` where read's offset - made's offset >= gap, in multiples of `multiple`."""

    made: str
    read: str
    gap: int
    multiple: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """Offsets by key, and the bytes in all."""

    offsets: Mapping[str, int]
    bytes: int


def plan(blocks: Sequence[Block], pairs: Sequence[Pair] = (), *, seed: int = 0) -> Arena:
    """The smallest arena that was found; the same for the same input."""
    allowed = {(pair.made, pair.read): pair for pair in pairs}
    partners: dict[str, list[Pair]] = {}
    for pair in pairs:
        partners.setdefault(pair.made, []).append(pair)
        partners.setdefault(pair.read, []).append(pair)
    generator = random.Random(seed)
    best: Arena | None = None
    for order in _orders(blocks, generator):
        found = _place(order, allowed, partners, best.bytes if best else None)
        if found is not None and (best is None or found.bytes < best.bytes):
            best = found
    assert best is not None
    return best


def _orders(blocks: Sequence[Block], generator: random.Random) -> list[list[Block]]:
    by_size = sorted(blocks, key=lambda block: (-block.bytes, block.first, block.key))
    by_time = sorted(blocks, key=lambda block: (block.first, -block.bytes, block.key))
    by_span = sorted(blocks, key=lambda block: (-(block.last - block.first), -block.bytes, block.key))
    orders = [by_size, by_time, by_time[::-1], by_span]
    for _ in range(ORDERS if len(blocks) < 200 else ORDERS // 8):
        jitter = {block.key: block.bytes * generator.uniform(0.3, 1.0) for block in blocks}
        orders.append(sorted(by_size, key=lambda block: -jitter[block.key]))
    return orders


def _place(
    order: Sequence[Block],
    allowed: Mapping[tuple[str, str], Pair],
    partners: Mapping[str, list[Pair]],
    limit: int | None,
) -> Arena | None:
    placed: list[tuple[Block, int]] = []
    offsets: dict[str, int] = {}
    total = 0
    for block in order:
        alive = [(other, at) for other, at in placed if other.first <= block.last and block.first <= other.last]
        candidates = {0} | {_aligned(at + other.bytes) for other, at in alive}
        for pair in partners.get(block.key, ()):
            step = max(ALIGNMENT, pair.multiple if pair.multiple > 1 else 1)
            if pair.made == block.key and pair.read in offsets:
                candidates.add(max(0, (offsets[pair.read] - max(0, _up(pair.gap, step)))) // ALIGNMENT * ALIGNMENT)
                candidates.add(offsets[pair.read])
            elif pair.read == block.key and pair.made in offsets:
                candidates.add(_aligned(offsets[pair.made] + max(0, pair.gap)))
                candidates.add(offsets[pair.made])
        for at in sorted(candidates):
            if all(_fits(block, at, other, place, allowed) for other, place in alive):
                break
        else:  # behind everything there is always room
            at = _aligned(max(place + other.bytes for other, place in alive))
        placed.append((block, at))
        offsets[block.key] = at
        total = max(total, at + block.bytes)
        if limit is not None and total >= limit:
            return None
    return Arena(offsets=offsets, bytes=_aligned(total))


def _fits(one: Block, at: int, other: Block, place: int, allowed: Mapping[tuple[str, str], Pair]) -> bool:
    if at + one.bytes <= place or place + other.bytes <= at:
        return True
    pair = allowed.get((one.key, other.key))
    distance = place - at
    if pair is None:
        pair = allowed.get((other.key, one.key))
        distance = at - place
    return pair is not None and distance >= pair.gap and distance % pair.multiple == 0


def _aligned(offset: int) -> int:
    return _up(offset, ALIGNMENT)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
