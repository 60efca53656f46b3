"""CSV logs with named columns: rates, ping, CPU and memory use; the time in a column, or `interval_s` between rows."""

from __future__ import annotations

import csv
import io
import math
from datetime import datetime

import numpy as np

from edge_deploy.core.errors import BadInput
from partitioner.traces.column_names import TIME, Column, asked_columns, assign
from partitioner.traces.recorded import Options, Recorded, RowProblems, field_named

__all__ = ["matches", "read"]

DELIMITERS = (",", ";", "\t", "|")
# A step longer than this many usual ones is a gap.
GAP_STEPS = 3.0
# No log was written in seconds after this moment (year 5138), so larger times count milliseconds or less.
LATEST_EPOCH_S = 1e11
STAMPS = ("%Y.%m.%d_%H.%M.%S", "%Y-%m-%d_%H-%M-%S", "%Y/%m/%d %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%H:%M:%S")
MISSING = {"", "-", "na", "n/a", "nan", "null", "none", "inf", "-inf", "infinity"}
_SHARES = {"loss", "edge_load", "edge_memory", "cloud_load", "cloud_memory"}


def matches(text: str) -> bool:
    """Whether the first line that is no comment is a header: several words, or one, none of them a number."""
    lines = [line for line in text[:20000].splitlines() if line.strip() and not line.startswith("#")]
    if not lines or lines[0].lstrip()[:1] in ("[", "{") or text.startswith("# edge-deploy trace"):
        return False
    cells = next(csv.reader([lines[0]], delimiter=_delimiter(lines[0])))
    return not any(_is_number(cell) for cell in cells) and len(lines) > 1 and any(cell.strip() for cell in cells)


def read(text: str, options: Options) -> Recorded:
    """The columns that tell conditions; other columns are left alone.

    Raises:
        BadInput: No column tells a condition, a unit or the time is unknown, or rows are bad: another number of
            cells, text, negative, out of range, going back in time, or a gap. Repairing holds the last good value
            of a bad cell, leaves rows without a usable time out, and lets the entry before a gap last through it.
    """
    names, rows = _table(text, options)
    columns = _columns(names, options)
    problems = RowProblems(options.name, repair=options.repair)
    width = len(names)
    whole = []
    for number, cells in rows:
        if len(cells) != width:
            problems.note(number, f"{len(cells)} cells, the header has {width}", "left out")
        else:
            whole.append((number, cells))
    time_s, kept = _times(whole, names, columns.get(TIME), options, problems)
    values = {
        field: _values(kept, names.index(column.name), column, problems)
        for field, column in columns.items()
        if field != TIME
    }
    repairs = problems.finish()
    if len(time_s) == 0:
        raise BadInput(f"{options.name}: no row is left.")
    step = options.interval_s or (float(np.median(np.diff(time_s))) if len(time_s) > 1 else 1.0)
    values, derived = _both_directions(values, columns, options)
    return Recorded(
        time_s=time_s - time_s[0],
        end_s=float(time_s[-1] - time_s[0]) + step,
        values=values,
        source=options.name,
        repairs=repairs,
        derived=derived,
        unread=tuple(name for name in names if name not in {column.name for column in columns.values()}),
    )


def _table(text: str, options: Options) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows with their line numbers as an editor counts them."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]
    if not lines:
        raise BadInput(f"{options.name}: holds no rows.")
    delimiter = _delimiter(lines[0][1])
    try:
        table = list(csv.reader(io.StringIO("\n".join(line for _, line in lines)), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise BadInput(f"{options.name}: not a CSV file ({error}).") from error
    if len(table) != len(lines):
        raise BadInput(f"{options.name}: a quoted cell runs over several lines; write one row a line.")
    names = [name.strip() for name in table[0]]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise BadInput(f"{options.name}: two columns are named {', '.join(twice)}.")
    if len(table) < 2:
        raise BadInput(f"{options.name}: a header without rows.")
    return names, [(number, row) for (number, _), row in zip(lines[1:], table[1:], strict=True)]


def _delimiter(line: str) -> str:
    return max(DELIMITERS, key=line.count)


def _columns(names: list[str], options: Options) -> dict[str, Column]:
    asked = asked_columns(dict(options.columns), names, where=options.name)
    unwanted = {field_named(key, where=options.name, also=(TIME, "rate")) for key in options.columns}
    found = {field: column for field, column in assign(names).items() if field not in unwanted}
    taken = {column.name for column in asked.values()}
    columns = {**{field: column for field, column in found.items() if column.name not in taken}, **asked}
    if "rate" in columns and {"uplink_bps", "downlink_bps"} & set(columns):
        del columns["rate"]
    if options.interval_s is not None and TIME not in asked:
        columns.pop(TIME, None)
    told = [field for field in columns if field != TIME]
    if not told:
        raise BadInput(
            f"{options.name}: no column tells a rate, a ping or a load; it has {', '.join(names)}. Name them, e.g. "
            "--column uplink=NAME:Mbit/s --column rtt=NAME:ms --column edge_load=NAME:%."
        )
    problems = [
        f"{options.name}: column {columns[field].name}: its unit is unknown; say it: "
        f"--column {field}={columns[field].name}:{_example_unit(field)}, or leave it out: --column {field}=."
        for field in told
        if columns[field].factor is None
    ]
    if TIME not in columns and options.interval_s is None:
        problems.append(
            f"{options.name}: no column of time among {', '.join(names)}; say how far the rows are apart "
            "(--interval 1s), or which column it is (--column time=NAME:ms)."
        )
    if problems:
        raise BadInput(*problems)
    return columns


def _example_unit(field: str) -> str:
    return "Mbit/s" if field.endswith("_bps") or field == "rate" else "ms" if field.endswith("_s") else "%"


def _times(
    rows: list[tuple[int, list[str]]], names: list[str], column: Column | None, options: Options, problems: RowProblems
) -> tuple[np.ndarray, list[tuple[int, list[str]]]]:
    if column is None:
        return np.arange(len(rows), dtype=np.float64) * (options.interval_s or 1.0), rows
    at = names.index(column.name)
    seconds = [_seconds(cells[at].strip(), column.factor) for _, cells in rows]
    known = [value for value in seconds if value is not None]
    steps = np.diff(known)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    kept: list[tuple[int, list[str]]] = []
    times: list[float] = []
    for (number, cells), now in zip(rows, seconds, strict=True):
        if now is None:
            problems.note(number, f"{column.name} = {cells[at][:40]!r} is not a time", "left out")
            continue
        if times and now <= times[-1]:
            how = "goes back in time" if now < times[-1] else "repeats the time of the row before"
            problems.note(number, f"{column.name} = {cells[at].strip()} {how}", "left out")
            continue
        if times and now - times[-1] > GAP_STEPS * usual:
            gap = f"a gap of {now - times[-1]:.6g} s before it (rows are {usual:.6g} s apart)"
            problems.note(number, gap, "the row before lasts through it")
        times.append(now)
        kept.append((number, cells))
    return np.array(times), kept


def _seconds(text: str, factor: float | None) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return _stamp(text)
    if not math.isfinite(value):
        return None
    if factor is not None:
        return value * factor
    for unit in (1.0, 1e-3, 1e-6, 1e-9):
        if abs(value) * unit < LATEST_EPOCH_S:
            return value * unit
    return None


def _stamp(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    for layout in STAMPS:
        try:
            # The zone does not matter: only differences are used.
            return (datetime.strptime(text, layout) - datetime(1970, 1, 1)).total_seconds()
        except ValueError:
            continue
    return None


def _values(rows: list[tuple[int, list[str]]], at: int, column: Column, problems: RowProblems) -> np.ndarray:
    factor = column.factor or 1.0
    values = np.empty(len(rows))
    held: float | None = None
    waiting: list[int] = []
    for entry, (number, cells) in enumerate(rows):
        text = cells[at].strip()
        found = _cell_problem(text, column, factor)
        if not found:
            held = float(text) * factor
            values[waiting] = held
            waiting = []
        else:
            how = "the last good value holds" if held is not None else "the first good value holds"
            problems.note(number, f"{column.name} = {text[:40]!r} {found}", how)
            if held is None:
                waiting.append(entry)
        values[entry] = 0.0 if held is None else held
    if rows and held is None:
        problems.finish()
        raise BadInput(f"column {column.name}: no value is good.")
    return values


def _cell_problem(text: str, column: Column, factor: float) -> str:
    if text.lower() in MISSING:
        return "is missing"
    try:
        value = float(text)
    except ValueError:
        return "is not a number"
    if not math.isfinite(value):
        return "is not finite"
    if value < 0:
        return "is negative"
    if column.field in _SHARES and value * factor > 1 + 1e-9:
        return f"is more than {1 / factor:g}"
    return ""


def _both_directions(
    values: dict[str, np.ndarray], columns: dict[str, Column], options: Options
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    values = {field: np.minimum(array, 1.0) if field in _SHARES else array for field, array in values.items()}
    derived: dict[str, str] = {}
    rate = values.pop("rate", None)
    if rate is not None:
        told = "downlink_bps" if options.direction == "down" else "uplink_bps"
        values[told] = rate
        if not options.direction:
            derived[told] = f"{columns['rate'].name}, which names no direction"
    for one, other in (("uplink_bps", "downlink_bps"), ("downlink_bps", "uplink_bps")):
        if one in values and other not in values:
            values[other] = values[one]
            return values, {**derived, other: f"as {one.removesuffix('_bps')} (the file has one rate)"}
    return values, derived


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
