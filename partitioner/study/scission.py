"""Scission's question on its own tables: which device, edge and cloud, and where to part the layers among them.

A table of blocks (runs of layers between legal cuts, timed on each machine) and a table of links give the time of every
way to lay the blocks out over up to three tiers (Lockhart et al., UCC 2020): block times, and for each hop one ping and
the bytes over the bandwidth.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput, NoFeasiblePlan
from partitioner.traces.container import read_text

__all__ = ["INPUT_BYTES", "TIERS", "Answer", "BlockTable", "Link", "answers", "read_blocks", "read_links"]

TIERS = ("device", "edge", "cloud")
# The image that Scission assumes where nothing else is said.
INPUT_BYTES = 150_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTable:
    """The blocks of one model, timed on every machine.

    Attributes:
        first, last: Layer numbers at which each block starts and ends.
        bytes: Of each block's output, as one tensor file.
        seconds: By machine, one value a block.
        tier: By machine: device, edge or cloud.
    """

    model: str
    first: tuple[int, ...]
    last: tuple[int, ...]
    bytes: tuple[int, ...]
    seconds: dict[str, tuple[float, ...]]
    tier: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """From one machine to another."""

    ping_s: float
    bits_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One layout.

    Attributes:
        machines: By tier that runs something.
        ends: By tier that runs something: the last layer there.
        total_s: All of it; compute_s and link_s are its parts.
    """

    machines: dict[str, str]
    ends: dict[str, int]
    total_s: float
    compute_s: float
    link_s: float


def read_blocks(path: Path) -> dict[str, BlockTable]:
    """Tables by model, from a CSV with the columns system, dnn, input_layer, output_layer, seconds, output_bytes.

    A system is named TIER-MACHINE, e.g. "edge-vm2Core".

    Raises:
        BadInput: A column is missing, a row is bad, or machines disagree on the blocks of a model.
    """
    rows = _rows(path, ("system", "dnn", "input_layer", "output_layer", "seconds", "output_bytes"))
    found: dict[str, dict[str, list[tuple[int, int, float, int]]]] = {}
    problems = []
    for number, cells in rows:
        try:
            block = (int(cells[2]), int(cells[3]), float(cells[4]), int(float(cells[5])))
        except ValueError:
            problems.append(f"{path}: line {number}: layers, seconds and bytes must be numbers.")
            continue
        if not math.isfinite(block[2]) or min(block) < 0 or block[1] < block[0]:
            problems.append(f"{path}: line {number}: a value is negative or not finite, or the block ends early.")
        elif cells[0].partition("-")[0] not in TIERS:
            problems.append(f"{path}: line {number}: system {cells[0]!r} must begin with device-, edge- or cloud-.")
        else:
            found.setdefault(cells[1], {}).setdefault(cells[0], []).append(block)
    if problems:
        raise BadInput(*problems[:12])
    return {model: _table(path, model, systems) for model, systems in found.items()}


def _table(path: Path, model: str, systems: Mapping[str, Sequence[tuple[int, int, float, int]]]) -> BlockTable:
    shapes = {
        system: [(first, last, size) for first, last, _, size in sorted(blocks)] for system, blocks in systems.items()
    }
    reference = next(iter(shapes.values()))
    other = next((system for system, shape in shapes.items() if shape != reference), None)
    if other is not None:
        raise BadInput(f"{path}: {model}: the blocks of {other} differ from those of {next(iter(shapes))}.")
    return BlockTable(
        model=model,
        first=tuple(first for first, _, _ in reference),
        last=tuple(last for _, last, _ in reference),
        bytes=tuple(size for _, _, size in reference),
        seconds={
            system.partition("-")[2]: tuple(seconds for _, _, seconds, _ in sorted(blocks))
            for system, blocks in systems.items()
        },
        tier={system.partition("-")[2]: system.partition("-")[0] for system in systems},
    )


def read_links(path: Path) -> dict[tuple[str, str], Link]:
    """Links by source and destination, from a CSV with source, destination, ping(ms), bandwidth(mbps).

    Raises:
        BadInput: A column is missing or a row is bad.
    """
    found, problems = {}, []
    for number, cells in _rows(path, ("source", "destination", "ping(ms)", "bandwidth(mbps)")):
        try:
            link = Link(ping_s=float(cells[2]) / 1000, bits_per_s=float(cells[3]) * 1e6)
        except ValueError:
            problems.append(f"{path}: line {number}: ping and bandwidth must be numbers.")
            continue
        if not (math.isfinite(link.ping_s) and math.isfinite(link.bits_per_s) and link.ping_s >= 0 < link.bits_per_s):
            problems.append(f"{path}: line {number}: the ping must not be negative and the bandwidth positive.")
        found[cells[0], cells[1]] = link
    if problems:
        raise BadInput(*problems[:12])
    return found


def answers(
    table: BlockTable,
    links: Mapping[tuple[str, str], Link],
    *,
    input_bytes: int = INPUT_BYTES,
    must: Mapping[str, Sequence[int]] | None = None,
    top: int = 5,
) -> tuple[Answer, ...]:
    """The fastest layouts, best first; any tier may run nothing unless it must.

    Args:
        must: By tier: layers that run there.

    Raises:
        BadInput: An unknown tier or layer.
        NoFeasiblePlan: No layout keeps to `must` over the links there are.
    """
    wanted = {tier: sorted(set(layers)) for tier, layers in (must or {}).items()}
    _check(table, wanted)
    by_tier = {tier: [machine for machine, where in table.tier.items() if where == tier] for tier in TIERS}
    found: list[Answer] = []
    sizes = np.array([input_bytes, *table.bytes], dtype=np.float64)
    for used in itertools.product((False, True), repeat=3):
        # The request starts at the device, so a layout without any layer there still needs to know which one it is.
        machines = [by_tier[tier] if tier == "device" or on else [""] for tier, on in zip(TIERS, used, strict=True)]
        for trio in itertools.product(*machines):
            found += _layouts(table, links, sizes, dict(zip(TIERS, trio, strict=True)), used, wanted)
    if not found:
        raise NoFeasiblePlan(f"{table.model}: no layout over these links runs what it must where it must.")
    return tuple(sorted(found, key=lambda each: each.total_s)[:top])


def _check(table: BlockTable, wanted: Mapping[str, Sequence[int]]) -> None:
    problems = [f"{tier}: unknown tier; known: {', '.join(TIERS)}." for tier in wanted if tier not in TIERS]
    covered = {layer for first, last in zip(table.first, table.last, strict=True) for layer in range(first, last + 1)}
    problems += [
        f"{tier} must run layer {layer}: {table.model} has layers {min(covered)} to {max(covered)}."
        for tier, layers in wanted.items()
        for layer in layers
        if layer not in covered
    ]
    if problems:
        raise BadInput(*problems)


def _layouts(
    table: BlockTable,
    links: Mapping[tuple[str, str], Link],
    sizes: np.ndarray,
    machine: Mapping[str, str],
    used: tuple[bool, ...],
    wanted: Mapping[str, Sequence[int]],
) -> list[Answer]:
    """Every layout in which exactly the `used` tiers run something."""
    tiers = [tier for tier, on in zip(TIERS, used, strict=True) if on]
    blocks = len(table.last)
    hops = []
    before = machine["device"]
    for tier in tiers:
        if machine[tier] != before:
            link = links.get((before, machine[tier]))
            if link is None:
                return []
            hops.append((tier, link))
            before = machine[tier]
    found = []
    for inner in itertools.combinations(range(1, blocks), len(tiers) - 1) if tiers else ():
        starts = dict(zip(tiers, (0, *inner), strict=True))
        stops = dict(zip(tiers, (*inner, blocks), strict=True))
        if not all(
            tier in starts and table.first[starts[tier]] <= layer <= table.last[stops[tier] - 1]
            for tier, layers in wanted.items()
            for layer in layers
        ):
            continue
        compute = sum(sum(table.seconds[machine[tier]][starts[tier] : stops[tier]]) for tier in tiers)
        transfer = sum(link.ping_s + sizes[starts[tier]] * 8 / link.bits_per_s for tier, link in hops)
        found.append(
            Answer(
                machines={tier: machine[tier] for tier in tiers},
                ends={tier: table.last[stops[tier] - 1] for tier in tiers},
                total_s=float(compute + transfer),
                compute_s=float(compute),
                link_s=float(transfer),
            )
        )
    return found


def _rows(path: Path, wanted: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Cells of the wanted columns with their line numbers."""
    lines = list(csv.reader(io.StringIO(read_text(path)[0])))
    header = [name.strip() for name in lines[0]]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise BadInput(f"{path}: no column {', '.join(missing)}; it has {', '.join(header)}.")
    places = [header.index(name) for name in wanted]
    rows = [(number, cells) for number, cells in enumerate(lines[1:], start=2) if cells]
    short = [number for number, cells in rows if len(cells) < len(header)]
    if short or not rows:
        raise BadInput(f"{path}: line {short[0]}: fewer cells than the header." if short else f"{path}: no rows.")
    return [(number, [cells[place].strip() for place in places]) for number, cells in rows]
