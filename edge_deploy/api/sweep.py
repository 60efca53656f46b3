"""Our own sweep: the study's eight CNNs under a grid of conditions, modelled, with some points really measured.

Everything lies in one folder and is found again: profiles, curves, partitions of points, measured pairs. A run that was
killed goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.api.study import PAGE, STUDY, Study
from edge_deploy.core.child import run_in_child
from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.profile import LoadPoint, ModelProfile
from edge_deploy.core.serde import from_json, read_json, write_json
from edge_deploy.zoo.adaptive_dnn_nets import NETS
from partitioner.cost import cost
from partitioner.cut_table import CutTable, build_cut_table
from partitioner.engine.run import run_tasks
from partitioner.profiles.slowdown import with_slowdowns
from partitioner.study.findings import analyse
from partitioner.study.grid import DEFAULT_GRID, Grid
from partitioner.study.model_error import Pair, draw_pairs, summarise
from partitioner.study.modelled import modelled_tasks, read_modelled
from partitioner.study.published_cuts import published_cuts

__all__ = ["CPU_SHARES", "MEMORY_SHARES", "SweptNet", "sweep"]

CHILDREN = "edge_deploy.api.sweep_children"
# PyTorch computes in the calling thread, so that a half stays on its core; see `edge_deploy.zoo.keras_layers`.
ENVIRONMENT = {"KERAS_BACKEND": "torch"}
# Pairs that would take longer are not run: 500 of them are to be done in half an hour.
LONGEST_PAIR_S = 10.0
CPU_SHARES = (0.25, 0.5, 0.75, 1.0)
MEMORY_SHARES = (0.4, 0.8)
# Long enough to be timed under load, short enough to be timed often.
SLOWDOWN_NET = "alexnet"
HOST = "this host"
# A load average from which on what is timed shares its core with others.
BUSY = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SweptNet:
    """One net as it was profiled: the content of profiles/NET.json."""

    name: str
    seed: int
    graph: LayerGraph
    profile: ModelProfile


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Points:
    """The content of slowdown.json."""

    net: str
    points: tuple[LoadPoint, ...]


def sweep(
    out: Path,
    *,
    nets: Sequence[str] = tuple(NETS),
    grid: Grid = DEFAULT_GRID,
    edge_slower: float = 4.0,
    measure: int = 0,
    repeats: int = 1,
    rounds: int = 5,
    seed: int = 0,
    engine: str = "local",
    scheduler: str | None = None,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda stage: None,
) -> Study:
    """Model the sweep into the folder `out`, which may hold a part of it already, and write study.json and report.html.

    Args:
        nets: Names in `edge_deploy.zoo.adaptive_dnn_nets.NETS`.
        edge_slower: How many times slower than this host the edge is taken to be. The cloud is this host, so with
            anything but 1 the edge's times are estimates.
        measure: Pairs of cut and condition that are really run, both halves on this host.
        repeats: Requests of each of these pairs.
        rounds: Passes through a net behind each layer's median.
        seed: Of weights, inputs and the draw of pairs.
        engine, scheduler, jobs: See `partitioner.engine.run.run_tasks`.

    Raises:
        BadInput: An unknown net, an option out of range, or a file in `out` is damaged.
        MissingExtra: TensorFlow or pyarrow is not installed.
    """
    unknown = [name for name in nets if name not in NETS]
    if unknown or not nets:
        raise BadInput(f"nets {', '.join(unknown) or 'none'}: must be some of {', '.join(NETS)}.")
    if not edge_slower > 0 or measure < 0 or repeats < 1 or rounds < 1:
        raise BadInput("sweep: edge_slower must be positive, measure at least 0, repeats and rounds at least 1.")
    swept = [_profiled(out, name, seed, rounds, progress) for name in nets]
    points = _slowdown(out, seed, progress)
    hosts = {net.name: with_slowdowns(net.profile, points) for net in swept}
    cuts = {net.name: published_cuts(net.graph, net.name) for net in swept}
    tables = {net.name: _table(net, cuts[net.name], hosts[net.name], edge_slower) for net in swept}
    tasks = {name: modelled_tasks(table, grid) for name, table in tables.items()}
    every = [task for mine in tasks.values() for task in mine]
    ran = run_tasks(
        every,
        out / "points",
        engine=engine,
        scheduler=scheduler,
        jobs=jobs,
        progress=lambda done, total: progress(f"{done} of {total} stretches modelled") if done % 10 == 0 else None,
    )
    pairs = _measured(out, swept, cuts, hosts, grid, measure, repeats, seed, progress) if measure else ()
    found = []
    for name, table in tables.items():
        progress(f"analyse {name}")
        found.append(analyse(read_modelled(name, out / "points", tasks[name], table, grid), noisy=False))
    total = sum(each.values for each in found)
    study = Study(
        source=f"{len(nets)} CNNs with random weights",
        provenance="modelled",
        findings=tuple(found),
        notes=(
            f"{total:,} modelled points: {sum(len(mine) for mine in cuts.values())} cuts (234 published for all eight "
            f"nets) under {len(grid):,} conditions; {ran.executed} stretches computed now, {ran.found} found.",
            f"Layer times were measured on this host ({swept[0].profile.kernels}); the cloud is this host, the edge is "
            f"taken to be {edge_slower:g} times slower.",
            *dict.fromkeys(f"{net.name}: {note}." for net in swept for note in net.profile.notes),
            f"Measured pairs: no memory pressure, no queue in the cloud, at most {LONGEST_PAIR_S:g} s by the model.",
            "Transfer includes the round trip and the wait in the cloud's queue.",
            "Modelled values have no noise, so an informed policy would reach the oracle; what a look-up captures says "
            "how much of the gain hangs on which factor.",
        ),
        model_error=summarise(pairs),
        pairs=pairs,
    )
    _write(study, out)
    return study


def _profiled(out: Path, name: str, seed: int, rounds: int, progress: Callable[[str], None]) -> SweptNet:
    path = out / "profiles" / f"{name}.json"
    if path.exists():
        kept = read_json(SweptNet, path)
        if kept.seed == seed:
            return kept
    progress(f"profile {name}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    found = run_in_child(
        f"{CHILDREN}:profile_net",
        {"name": name, "seed": seed, "rounds": rounds},
        stage=f"profile of {name}",
        environment=ENVIRONMENT,
    )
    graph = from_json(LayerGraph, found["graph"], where=f"graph of {name}")
    layer_s = {key: float(value) for key, value in found["layer_s"].items()}
    whole_s = float(found["whole_s"])
    profile = ModelProfile(
        artifact=f"{name}, random weights, seed {seed}",
        sha256="",
        device=HOST,
        kernels=found["kernels"],
        provenance="measured",
        source=f"each layer timed alone, median of {rounds} passes",
        layer_s=layer_s,
        # A pass is nothing but its layers: what a busy machine adds to it belongs to no call.
        overhead_s=0.0,
        whole_s=whole_s,
        notes=(_busy(load),) if load > BUSY else (),
    )
    swept = SweptNet(name=name, seed=seed, graph=graph, profile=profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(swept, path)
    return swept


def _busy(load: float) -> str:
    return f"the host was busy (load average {load:.1f}): its times are too long, and those of another day differ"


def _slowdown(out: Path, seed: int, progress: Callable[[str], None]) -> tuple[LoadPoint, ...]:
    path = out / "slowdown.json"
    if path.exists():
        return read_json(_Points, path).points
    progress("slowdown under load")
    found = run_in_child(
        f"{CHILDREN}:measure_slowdown",
        {
            "name": SLOWDOWN_NET,
            "seed": seed,
            "cpu_shares": list(CPU_SHARES),
            "memory_shares": list(MEMORY_SHARES),
            "rounds": 3,
            "passes": 3,
        },
        stage="slowdown under load",
        environment=ENVIRONMENT,
    )
    points = tuple(from_json(LoadPoint, each, where="load point") for each in found)
    write_json(_Points(net=SLOWDOWN_NET, points=points), path)
    return points


def _table(net: SweptNet, cuts: Sequence[Cut], host: ModelProfile, edge_slower: float) -> CutTable:
    edge = host
    if edge_slower != 1:
        edge = dataclasses.replace(
            host,
            device=f"{edge_slower:g} times slower than {HOST}",
            provenance="estimated",
            source=f"{host.source}, times {edge_slower:g}",
            layer_s={name: seconds * edge_slower for name, seconds in host.layer_s.items()},
            overhead_s=host.overhead_s * edge_slower,
            whole_s=host.whole_s * edge_slower,
        )
    return build_cut_table(net.graph, cuts, edge=edge, cloud=host)


def _measured(
    out: Path,
    swept: Sequence[SweptNet],
    cuts: dict[str, tuple[Cut, ...]],
    hosts: dict[str, ModelProfile],
    grid: Grid,
    count: int,
    repeats: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[Pair, ...]:
    """Pairs from the part of the grid that can be made real here: no memory pressure, no queue of other people."""
    real = Grid(levels={k: v for k, v in grid.levels.items() if not k.endswith("_memory") and k != "cloud_queue_s"})
    rows = real.rows(0, len(real))
    tables = {
        net.name: build_cut_table(net.graph, cuts[net.name], edge=hosts[net.name], cloud=hosts[net.name])
        for net in swept
    }
    modelled = {name: cost(table, rows).total_s for name, table in tables.items()}
    # More than enough, so that those that would take too long can be passed over. A pair keeps the number it was drawn
    # with, whatever else is passed over.
    places = {name: len(mine) for name, mine in cuts.items()}
    most = sum(places.values()) * len(real)
    drawn = draw_pairs(places, len(real), count=min(4 * count, most), seed=seed)
    short = [
        (number, net, cut, row)
        for number, (net, cut, row) in enumerate(drawn)
        if modelled[net][row, cut] <= LONGEST_PAIR_S
    ][:count]
    wanted: list[dict[str, Any]] = [
        {"net": net, "number": number, "cut": cut, "conditions": {k: float(v[row]) for k, v in rows.items()}}
        for number, net, cut, row in short
    ]
    found: list[Pair] = []
    for net in swept:
        log = out / "pairs" / f"{net.name}-seed{seed}-x{repeats}.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        mine = sorted((each for each in wanted if each["net"] == net.name), key=lambda each: each["cut"])
        known = _lines(log)
        missing = [each for each in mine if not _is_same(each, known.get(each["number"]))]
        if missing:
            progress(f"measure {len(missing)} pairs of {net.name}")
            run_in_child(
                f"{CHILDREN}:measure_pairs",
                {"name": net.name, "seed": net.seed, "pairs": missing, "log": str(log), "repeats": repeats},
                stage=f"measured pairs of {net.name}",
                timeout_s=24 * 3600.0,
                environment=ENVIRONMENT,
            )
            known = _lines(log)
        found += [_pair(each, tables[net.name], known[each["number"]]) for each in mine]
    return tuple(found)


def _pair(wanted: Mapping[str, Any], table: CutTable, line: Mapping[str, Any]) -> Pair:
    arrays = {name: np.array([value]) for name, value in wanted["conditions"].items()}
    return Pair(
        net=wanted["net"],
        number=wanted["number"],
        cut=wanted["cut"],
        conditions=wanted["conditions"],
        modelled_s=float(cost(table, arrays).total_s[0, wanted["cut"]]),
        measured_s=tuple(line["measured_s"]),
        parts_s=line["parts_s"],
    )


def _is_same(wanted: Mapping[str, Any], line: Mapping[str, Any] | None) -> bool:
    """Another grid or another list of nets numbers its pairs otherwise."""
    return line is not None and all(line.get(key) == wanted[key] for key in ("cut", "conditions"))


def _lines(log: Path) -> dict[int, dict[str, Any]]:
    """Measured pairs by number; a line that a killed run left unfinished is measured again."""
    found = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            each = json.loads(line)
        except ValueError:
            continue
        if isinstance(each, dict) and "number" in each:
            found[each["number"]] = each
    return found


def _write(study: Study, out: Path) -> None:
    from edge_deploy.report.document import write_page
    from edge_deploy.report.study_page import study_page

    write_json(study, out / STUDY)
    text = study_page(
        study.findings,
        source=study.source,
        provenance=study.provenance,
        notes=study.notes,
        errors=study.model_error,
        pairs=study.pairs,
    )
    write_page(text, out / PAGE)
