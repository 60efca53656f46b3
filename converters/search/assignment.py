"""Assignments of widths to layers, from the smallest model to the most accurate one: the lower convex hull.

Each layer has a few widths, each with a cost (bytes or seconds) and a noise (squared error that it adds to the answer).
Both add up over layers, noises because rounding errors of different layers hardly correlate. The assignments that are
least noisy at their cost then follow one another by single steps, each layer along the convex hull of its own options,
the step that takes most noise for its cost first (the greedy solution of the multiple-choice knapsack: Sinha and
Zoltners, Operations Research 1979; for bits of layers Dong et al., HAWQ-V2, NeurIPS 2020). Pure Python.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge_deploy.core.errors import BadInput

__all__ = ["Assignment", "Option", "front", "spread_over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One layer at one width.

    Attributes:
        bits: Of its weights; 16 and 32 compute in float.
        cost: Bytes, or seconds.
        noise: Squared error that it adds to the answers, summed over samples.
    """

    bits: int
    cost: float
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A width for every layer, with what it is expected to cost.

    Attributes:
        bits: By layer.
    """

    bits: Mapping[str, int]
    cost: float
    noise: float


def front(options: Mapping[str, Sequence[Option]]) -> tuple[Assignment, ...]:
    """Assignments with the least noise at their cost, the cheapest first.

    Args:
        options: At least one for each layer.

    Raises:
        BadInput: A layer has no option.
    """
    empty = [layer for layer, found in options.items() if not found]
    if empty or not options:
        raise BadInput(f"layers without any width: {', '.join(empty) or 'there is no layer with weights'}.")
    hulls = {layer: _hull(found) for layer, found in options.items()}
    steps = [
        (_gain(before, after), number, layer, after)
        for layer, hull in hulls.items()
        for number, (before, after) in enumerate(pairwise(hull))
    ]
    steps.sort(key=lambda step: (-step[0], step[2], step[1]))
    chosen = {layer: hull[0] for layer, hull in hulls.items()}
    found = [_assignment(chosen)]
    for _, _, layer, option in steps:
        chosen[layer] = option
        found.append(_assignment(chosen))
    return tuple(found)


def spread_over(assignments: Sequence[Assignment], count: int) -> tuple[Assignment, ...]:
    """Some of them, evenly over the decibels of their noise, both ends among them.

    Not over their cost: from some width on, more bytes hardly take noise away.
    """
    if count >= len(assignments):
        return tuple(assignments)
    least = max(assignments[0].noise * 1e-12, 1e-300)
    levels = [math.log(max(assignment.noise, least)) for assignment in assignments]
    wanted = [levels[0] + (levels[-1] - levels[0]) * number / max(count - 1, 1) for number in range(count)]
    places = {min(range(len(levels)), key=lambda place: abs(levels[place] - level)) for level in wanted}
    return tuple(assignments[place] for place in sorted(places))


def _hull(options: Sequence[Option]) -> list[Option]:
    """The lower convex hull over cost: cheapest first, each step with less noise for its cost than the one before."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.cost, o.noise)):
        if hull and option.noise >= hull[-1].noise:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-1], option):
            hull.pop()
        if hull and option.cost <= hull[-1].cost:
            hull.pop()
        hull.append(option)
    return hull


def _gain(before: Option, after: Option) -> float:
    """Noise that a step takes away for its cost."""
    return (before.noise - after.noise) / max(after.cost - before.cost, 1e-30)


def _assignment(chosen: Mapping[str, Option]) -> Assignment:
    return Assignment(
        bits={layer: option.bits for layer, option in chosen.items()},
        cost=sum(option.cost for option in chosen.values()),
        noise=sum(option.noise for option in chosen.values()),
    )
