"""Our own CSV: every condition field in SI units, so that what is written reads back bit for bit."""

from __future__ import annotations

import csv
import io

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS
from edge_deploy.core.errors import BadInput
from partitioner.traces.recorded import Options, Recorded, RowProblems

__all__ = ["MAGIC", "matches", "read"]

MAGIC = "# edge-deploy trace 1"


def matches(text: str) -> bool:
    """Whether the first line says so."""
    return text.startswith("# edge-deploy trace")


def read(text: str, options: Options) -> Recorded:
    """The fields as they stand.

    Raises:
        BadInput: Another version, missing columns or comments, or bad rows; repairing leaves bad rows out.
    """
    lines = text.splitlines()
    if lines[0].strip() != MAGIC:
        raise BadInput(f"{options.name}: {lines[0]!r}: this edge-deploy reads {MAGIC.removeprefix('# ')!r}.")
    notes = [line[2:].partition(": ")[::2] for line in lines if line.startswith("# ") and ": " in line]
    said = {key: value for key, value in notes if key != "repair"}
    rows = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    expected = ["time_s", *CONDITION_FIELDS]
    header = next(csv.reader([rows[0][1]])) if rows else []
    if header != expected:
        raise BadInput(f"{options.name}: columns {', '.join(header) or 'none'}: must be {', '.join(expected)}.")
    try:
        end_s = float(said["end_s"])
    except (KeyError, ValueError) as error:
        raise BadInput(f"{options.name}: the line '# end_s: SECONDS' is missing or no number.") from error
    problems = RowProblems(options.name, repair=options.repair)
    good: list[list[float]] = []
    for number, line in rows[1:]:
        cells = next(csv.reader(io.StringIO(line)))
        found = _problem(cells, expected, good)
        if found:
            problems.note(number, found, "left out")
        else:
            good.append([float(cell) for cell in cells])
    repairs = problems.finish()
    if not good:
        raise BadInput(f"{options.name}: no row is good.")
    columns = np.array(good).T
    filled = {key.removeprefix("filled "): value for key, value in said.items() if key.startswith("filled ")}
    return Recorded(
        time_s=columns[0] - columns[0][0],
        end_s=end_s - columns[0][0],
        values=dict(zip(CONDITION_FIELDS, columns[1:], strict=True)),
        source=said.get("source", options.name),
        repairs=(*(value for key, value in notes if key == "repair"), *repairs),
        derived=filled,
    )


def _problem(cells: list[str], expected: list[str], good: list[list[float]]) -> str:
    if len(cells) != len(expected):
        return f"{len(cells)} cells, must be {len(expected)}"
    for name, cell in zip(expected, cells, strict=True):
        try:
            value = float(cell)
        except ValueError:
            return f"{name} = {cell[:40]!r} is not a number"
        if not np.isfinite(value) or value < 0:
            return f"{name} = {cell} must be finite and not negative"
        if name in ("loss", "edge_load", "edge_memory", "cloud_load", "cloud_memory") and value > 1:
            return f"{name} = {cell} is a share, must be at most 1"
    if good and float(cells[0]) <= good[-1][0]:
        return f"time_s = {cells[0]} does not go forward (before: {good[-1][0]:g})"
    return ""
