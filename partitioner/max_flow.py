"""Minimum s-t cut of small graphs in plain Python: push-relabel (Goldberg and Tarjan 1988), its first phase only.

Only the cut is wanted, not the flow, so excess that cannot reach the sink stays where it is. Capacities are floats; a
residual capacity becomes exactly 0 when an arc is saturated, so nothing has to be scaled to integers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

__all__ = ["min_cut"]

# Relabels of all nodes from the sink after this many relabels a node: keeps labels exact where excess runs back.
_RELABELS_A_NODE = 0.25


def min_cut(
    supply: list[float], demand: list[float], arcs: Iterable[tuple[int, int, float, float]]
) -> tuple[float, list[bool]]:
    """The cheapest cut between a source and a sink that every node may be tied to.

    Args:
        supply: By node: capacity from the source; paid when the node is on the sink's side.
        demand: By node: capacity to the sink; paid when the node is on the source's side.
        arcs: (from, to, capacity, capacity of the way back); paid when `from` is on the source's side and `to` on
            the sink's. Capacities may be inf.

    Returns:
        The cost, and by node whether it is on the source's side.
    """
    count = len(supply)
    listed = list(arcs)
    # Excess that finds no room wanders until it is known to be stuck, so the side that holds less of it sends.
    turned = sum(max(s - d, 0.0) for s, d in zip(supply, demand, strict=True)) > sum(
        max(d - s, 0.0) for s, d in zip(supply, demand, strict=True)
    )
    sender, receiver = (demand, supply) if turned else (supply, demand)
    head: list[int] = []
    residual: list[float] = []
    leaving: list[list[int]] = [[] for _ in range(count)]
    for tail, to, capacity, back in listed:
        if turned:
            capacity, back = back, capacity
        leaving[tail].append(len(head))
        leaving[to].append(len(head) + 1)
        head += (to, tail)
        residual += (capacity, back)
    # What a node can pass from source to sink by itself flows at once.
    excess = [max(s - d, 0.0) for s, d in zip(sender, receiver, strict=True)]
    sink = [max(d - s, 0.0) for s, d in zip(sender, receiver, strict=True)]
    _push(head, residual, leaving, excess, sink)
    on_source = [(label > count) != turned for label in _labels(head, residual, leaving, sink)]
    paid = sum(d if here else s for here, s, d in zip(on_source, supply, demand, strict=True))
    paid += sum(forth for tail, to, forth, _ in listed if on_source[tail] and not on_source[to])
    paid += sum(back for tail, to, _, back in listed if on_source[to] and not on_source[tail])
    return paid, on_source


def _labels(head: list[int], residual: list[float], leaving: list[list[int]], sink: list[float]) -> list[int]:
    """Steps from each node to the sink along arcs with residual capacity; one more than nodes where out of reach."""
    far = len(sink) + 1
    label = [1 if room > 0.0 else far for room in sink]
    reached = [node for node, steps in enumerate(label) if steps == 1]
    for node in reached:  # grows while it is walked: breadth first
        steps = label[node] + 1
        for arc in leaving[node]:
            tail = head[arc]
            if label[tail] == far and residual[arc ^ 1] > 0.0:
                label[tail] = steps
                reached.append(tail)
    return label


def _push(
    head: list[int], residual: list[float], leaving: list[list[int]], excess: list[float], sink: list[float]
) -> None:
    """Move excess towards the sink until what is left cannot reach it; changes residual, excess and sink."""
    far = len(sink) + 1
    label, active = _start(head, residual, leaving, excess, sink)
    held = _histogram(label)
    waiting = [left > 0.0 and steps < far for left, steps in zip(excess, label, strict=True)]
    relabels = 0
    while active:
        if relabels > _RELABELS_A_NODE * far + 10:
            relabels = 0
            label, active = _start(head, residual, leaving, excess, sink)
            held = _histogram(label)
            waiting = [left > 0.0 and steps < far for left, steps in zip(excess, label, strict=True)]
            continue
        node = active.popleft()
        waiting[node] = False
        left = excess[node]
        height = label[node]
        while left > 0.0 and height < far:
            moved = min(left, sink[node])
            sink[node] -= moved
            left -= moved
            if left <= 0.0:
                break
            lowest = far
            for arc in leaving[node]:
                if residual[arc] <= 0.0:
                    continue
                to = head[arc]
                if label[to] >= height:
                    lowest = min(lowest, label[to])
                    continue
                moved = min(left, residual[arc])
                residual[arc] -= moved
                residual[arc ^ 1] += moved
                excess[to] += moved
                left -= moved
                if not waiting[to]:
                    waiting[to] = True
                    active.append(to)
                if left <= 0.0:
                    break
            else:
                held[height] -= 1
                if not held[height]:
                    # No node is left at this height, so nothing above it reaches the sink any more.
                    for other, steps in enumerate(label):
                        if steps > height:
                            label[other] = far
                    height = far
                    break
                height = min(lowest + 1, far)
                held[height] += 1
                relabels += 1
        excess[node] = left
        label[node] = height


def _start(
    head: list[int], residual: list[float], leaving: list[list[int]], excess: list[float], sink: list[float]
) -> tuple[list[int], deque[int]]:
    """Exact labels, and the nodes whose excess can reach the sink, in order."""
    label = _labels(head, residual, leaving, sink)
    return label, deque(node for node, left in enumerate(excess) if left > 0.0 and label[node] <= len(sink))


def _histogram(label: list[int]) -> list[int]:
    """Nodes at each height."""
    held = [0] * (len(label) + 2)
    for steps in label:
        held[steps] += 1
    return held
