"""The README's table of `make bench-devices`: a line for each model and precision, a column for each runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from device_tests.tasks.quality import Quality
from device_tests.tasks.run import SuiteRow
from edge_deploy.core.units import format_bytes

__all__ = ["SUMMARY_COLUMNS", "is_refused", "remarks", "summary_rows"]

SUMMARY_COLUMNS = (
    *("task (items, floor)", "precision", "LiteRT", "ExecuTorch", "TFLM", "generated C"),
    *("M instructions", "RAM", "flash"),
)
RUNTIMES = SUMMARY_COLUMNS[2:6]
BOARD = "qemu:cortex-m4"
PUBLISHED = "published "
FOR_MICROCONTROLLERS = " for microcontrollers"
SHARES = ("accuracy",)  # metrics that are told in per cent


def summary_rows(rows: Sequence[SuiteRow]) -> Iterator[tuple[str, ...]]:
    """Quality on all items of the host, and what generated C takes on a Cortex-M4.

    Of a model with a file of its own for microcontrollers, LiteRT's column tells of the one for phones.
    """
    told: set[str] = set()
    for (model, precision), mine in _lines(rows).items():
        cells = [_cell(_of_runtime(mine, runtime)) for runtime in RUNTIMES]
        board = next((row for row in mine if row.device == BOARD), None)
        name = model if model in told else _title(model, mine)
        told.add(model)
        yield (name, precision.replace("int", "INT"), *cells, *_board_cells(board))


def remarks(rows: Sequence[SuiteRow]) -> str:
    """What the intervals of a line's runtimes say of each other, and those of rows below their floor."""
    apart, pairs = [], 0
    for (model, precision), mine in _lines(rows).items():
        found = [(runtime, row.quality) for runtime in RUNTIMES if (row := _of_runtime(mine, runtime)) and row.quality]
        for place, (first, one) in enumerate(found):
            for second, other in found[place + 1 :]:
                pairs += 1
                if one.low > other.high or other.low > one.high:
                    apart.append(f"{model} {precision}: {first} and {second}")
    said = f"{pairs} pairs of runtimes in a line, the 95 % intervals of {pairs - len(apart)} overlap"
    said += f"; those that do not: {'; '.join(apart)}" if apart else ""
    below = [row.quality for row in rows if row.quality is not None and row.quality.verdict == "missed"]
    held = sum(not quality.resolved for quality in below)
    return (
        f"Of {said}. The intervals are those of each row alone; answers to the same items were not compared in pairs. "
        f"Of {len(below)} rows below their floor (all devices), {held} have an interval that holds it."
    )


def is_refused(row: SuiteRow) -> bool:
    """The runtime cannot have the model, which is a finding; anything else that failed is to be mended."""
    return row.problem_kind == "Unsupported" or (row.problem_kind == "BadInput" and "refuses it" in row.problem)


def _lines(rows: Iterable[SuiteRow]) -> dict[tuple[str, str], list[SuiteRow]]:
    """Rows by model and precision."""
    found: dict[tuple[str, str], list[SuiteRow]] = {}
    for row in rows:
        found.setdefault((_model(row), row.precision), []).append(row)
    return found


def _model(row: SuiteRow) -> str:
    name = row.model.removesuffix(FOR_MICROCONTROLLERS)
    return f"{name.removeprefix(PUBLISHED)}, published" if name.startswith(PUBLISHED) else name


def _of_runtime(rows: Sequence[SuiteRow], runtime: str) -> SuiteRow | None:
    """On the host; of several the one that is not for microcontrollers only."""
    found = [row for row in rows if row.device == "host" and _runtime(row) == runtime]
    found.sort(key=lambda row: row.model.endswith(FOR_MICROCONTROLLERS))
    return found[0] if found else None


def _runtime(row: SuiteRow) -> str:
    if row.format == "tflite":
        return "TFLM" if row.runtime.startswith("tflite-micro") else "LiteRT"
    return {"executorch": "ExecuTorch", "c": "generated C"}[row.format]


def _title(model: str, rows: Sequence[SuiteRow]) -> str:
    found = next((row.quality for row in rows if row.quality is not None and row.device == "host"), None)
    if found is None:
        return model
    metric = "" if found.metric in SHARES else f", {found.metric.upper()}"
    floor = "" if found.floor is None else f", {_value(found, found.floor, digits=0)}"
    return f"{model}{metric} ({found.items:,}{floor})"


def _cell(row: SuiteRow | None) -> str:
    if row is None:
        return ""
    if row.quality is None:
        return "refused" if is_refused(row) else "failed"
    return _value(row.quality, row.quality.value, digits=1)


def _value(quality: Quality, value: float, *, digits: int) -> str:
    return f"{value:.{digits}%}".replace("%", " %") if quality.metric in SHARES else f"{value:.4f}"


def _board_cells(row: SuiteRow | None) -> tuple[str, str, str]:
    if row is None:
        return ("", "", "")
    if row.instructions is None:
        return (_cell(row), "", "")
    millions = row.instructions / 1e6
    ram, flash = ("" if size is None else format_bytes(size) for size in (row.memory_bytes, row.flash_bytes))
    return (f"{millions:.2f}" if millions >= 1 else f"{millions:.3f}", ram, flash)
