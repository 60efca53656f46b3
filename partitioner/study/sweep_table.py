"""A measured sweep as arrays: seconds of every cut of one model under every condition."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput
from partitioner.traces.container import read_text

__all__ = ["Sweep", "make_sweep", "read_sweeps"]

MODEL_NAMES = ("model", "dnn", "net", "cnn")
CUT_NAMES = ("cut", "cut_layer", "cut_point", "cut_id", "split", "split_point", "layer", "partition")
TIMES = {"total": "total", "end_to_end": "total", "latency": "total", "edge": "edge", "device": "edge",
         "cloud": "cloud", "server": "cloud"}  # fmt: skip
_UNITS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6}
# The digits of weights_<5 digits>.txt and what they stand for (McNamee et al., IEEE CLOUD 2021).
RAW_NAME = re.compile(r"weights_([0-9]{5})\.txt\Z")
RAW_FACTORS = ("network_mbit_s", "cloud_cpu_stress_pct", "edge_mem_stress_pct", "cloud_mem_stress_pct",
               "edge_cpu_stress_pct")  # fmt: skip
RAW_LEVELS = ((50.0, 25.0, 10.0), *((0.0, 50.0, 100.0),) * 4)
SHOWN_PROBLEMS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Seconds of n conditions by C cuts.

    Attributes:
        factors: Names of the conditions' columns.
        levels: Their values, shape (n, factors); every row differs from the others.
        cuts: Names in order, from the first cut (most in the cloud) to the last.
        total_s: Shape (n, C); NaN where a cut was not measured under a condition.
        edge_s, cloud_s: The same shape, all NaN where the file does not tell them.
        repeats: Most rows that were averaged into one value.
        values: Values that are there.
    """

    name: str
    factors: tuple[str, ...]
    levels: np.ndarray
    cuts: tuple[str, ...]
    total_s: np.ndarray
    edge_s: np.ndarray
    cloud_s: np.ndarray
    repeats: int = 1
    values: int = field(default=0)

    def __post_init__(self) -> None:
        if (np.isnan(self.total_s).all(axis=1)).any():
            raise BadInput(f"sweep {self.name}: a condition has no measured cut.")

    @property
    def transfer_s(self) -> np.ndarray:
        """What is neither edge nor cloud: encoding, transfer, decoding."""
        return np.asarray(self.total_s - self.edge_s - self.cloud_s)


def read_sweeps(path: Path) -> tuple[Sweep, ...]:
    """The sweeps in a file or folder: one a CSV file (also compressed), or one a folder of weights_<5 digits>.txt.

    A CSV has a column of the cut (`cut_layer`), columns of seconds (`total_s`, and `edge_s` and `cloud_s` where known;
    `_ms` and `_us` too), and one column for each factor of the condition; a column `condition` is only a label,
    and one named `model`, `dnn`, `net` or `cnn` parts the file into one sweep a model.

    Raises:
        BadInput: Nothing there, a column is missing, or a row is bad; names file and line.
    """
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder.")
    if path.is_file():
        return (_read_raw((path,), path.parent.name),) if RAW_NAME.search(path.name) else _read_csv(path)
    raw_folders = sorted({file.parent for file in path.rglob("weights_*.txt") if RAW_NAME.search(file.name)})
    tables = sorted(file for file in path.rglob("*") if re.search(r"\.csv(\.(xz|gz|bz2))?\Z", file.name))
    found = [sweep for file in tables for sweep in _read_csv(file)]
    found += [_read_raw(tuple(sorted(folder.glob("weights_*.txt"))), folder.name) for folder in raw_folders]
    if not found:
        raise BadInput(f"{path}: holds no sweep: a CSV with the columns cut_layer, total_s and one for each factor.")
    return tuple(found)


def make_sweep(
    name: str, factors: Sequence[str], rows: Mapping[tuple[float, ...], Mapping[str, Sequence[tuple[float, ...]]]]
) -> Sweep:
    """A sweep from seconds by condition and cut; several values of one cut under one condition are averaged.

    Args:
        rows: By the condition's levels, then by cut: (total, edge, cloud) seconds of each repeat.
    """
    conditions = list(rows)
    cuts = sorted({cut for cells in rows.values() for cut in cells}, key=_natural)
    place = {cut: index for index, cut in enumerate(cuts)}
    seconds = np.full((3, len(conditions), len(cuts)), math.nan)
    repeats = 1
    for row, condition in enumerate(conditions):
        for cut, values in rows[condition].items():
            seconds[:, row, place[cut]] = np.mean(np.array(values), axis=0)
            repeats = max(repeats, len(values))
    return Sweep(
        name=name,
        factors=tuple(factors),
        levels=np.array(conditions, dtype=np.float64).reshape(len(conditions), len(factors)),
        cuts=tuple(cuts),
        total_s=seconds[0],
        edge_s=seconds[1],
        cloud_s=seconds[2],
        repeats=repeats,
        values=int(np.isfinite(seconds[0]).sum()),
    )


def _natural(cut: str) -> tuple[float, str]:
    return (float(cut), "") if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", cut) else (math.inf, cut)


def _read_csv(path: Path) -> tuple[Sweep, ...]:
    lines = read_text(path)[0].splitlines()
    header = [name.strip() for name in next(csv.reader(lines[:1]))]
    cut_at, times, factors = _columns(header, path)
    model_at = next((header.index(name) for name in MODEL_NAMES if name in header), None)
    by_model: dict[str, dict[tuple[float, ...], dict[str, list[tuple[float, ...]]]]] = {}
    problems: list[str] = []
    for number, cells in enumerate(csv.reader(io.StringIO("\n".join(lines[1:]))), start=2):
        if not cells:
            continue
        problem = "" if len(cells) == len(header) else f"{len(cells)} cells, the header has {len(header)}"
        if not problem:
            problem = _problem(cells, header, times, factors)
        if problem:
            problems.append(f"{path}: line {number}: {problem}.")
            continue
        seconds = tuple(
            float(cells[times[part][0]]) * times[part][1] if part in times else math.nan
            for part in ("total", "edge", "cloud")
        )
        condition = tuple(float(cells[at]) for at in factors)
        rows = by_model.setdefault("" if model_at is None else cells[model_at].strip(), {})
        rows.setdefault(condition, {}).setdefault(cells[cut_at].strip(), []).append(seconds)
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        raise BadInput(*problems[:SHOWN_PROBLEMS], *([f"{path}: and {more} more."] if more > 0 else []))
    if not by_model:
        raise BadInput(f"{path}: holds no rows.")
    name = re.sub(r"\.csv(\.\w+)?\Z", "", path.name)
    return tuple(make_sweep(model or name, [header[at] for at in factors], rows) for model, rows in by_model.items())


def _columns(header: list[str], path: Path) -> tuple[int, dict[str, tuple[int, float]], list[int]]:
    """Where the cut stands, the seconds (with their unit), and the factors."""
    times: dict[str, tuple[int, float]] = {}
    for at, name in enumerate(header):
        word, _, unit = name.lower().rpartition("_")
        word = word.removesuffix("_time").removesuffix("_latency")
        if word in TIMES and unit in _UNITS and TIMES[word] not in times:
            times[TIMES[word]] = (at, _UNITS[unit])
    cut_at = next((header.index(name) for name in CUT_NAMES if name in header), None)
    problems = []
    if cut_at is None:
        problems.append(f"{path}: no column of the cut ({', '.join(CUT_NAMES[:4])}) among {', '.join(header)}.")
    if "total" not in times:
        problems.append(f"{path}: no column of the total time (total_s or total_ms) among {', '.join(header)}.")
    factors = [at for at, name in enumerate(header) if name not in ("condition", *MODEL_NAMES) and at != cut_at
               and at not in [place for place, _ in times.values()]]  # fmt: skip
    if not factors and not problems:
        problems.append(f"{path}: no column of a factor beside the cut and the times.")
    if problems or cut_at is None:
        raise BadInput(*problems)
    return cut_at, times, factors


def _problem(cells: list[str], header: list[str], times: Mapping[str, tuple[int, float]], factors: list[int]) -> str:
    for at in (*factors, *(place for place, _ in times.values())):
        try:
            value = float(cells[at])
        except ValueError:
            return f"{header[at]} = {cells[at][:40]!r} is not a number"
        if not math.isfinite(value):
            return f"{header[at]} = {cells[at]} is not finite"
        if value < 0 and at not in factors:
            return f"{header[at]} = {cells[at]} is negative"
    return ""


def _read_raw(files: tuple[Path, ...], name: str) -> Sweep:
    """The files as they were published: lines "total edge cloud cut", the condition in the file's name."""
    rows: dict[tuple[float, ...], dict[str, list[tuple[float, ...]]]] = {}
    for file in files:
        found = RAW_NAME.search(file.name)
        digits = [int(digit) for digit in found.group(1)] if found else []
        if not digits or max(digits) > 2:
            raise BadInput(f"{file}: the name must be weights_ and five digits from 0 to 2.")
        condition = tuple(levels[digit] for levels, digit in zip(RAW_LEVELS, digits, strict=True))
        for number, line in enumerate(read_text(file)[0].splitlines(), start=1):
            cells = re.split(r"[\s,;]+", line.strip("[]() \t"))
            if cells == [""]:
                continue
            try:
                total, edge, cloud = (float(cell) for cell in cells[:3])
                cut = f"{float(cells[3]):g}"
            except (ValueError, IndexError) as error:
                raise BadInput(f"{file}: line {number}: must be four numbers: total edge cloud cut.") from error
            rows.setdefault(condition, {}).setdefault(cut, []).append((total, edge, cloud))
    return make_sweep(name.removeprefix("outputs_"), RAW_FACTORS, rows)
