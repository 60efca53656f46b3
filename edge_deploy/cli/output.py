"""What commands print: results on stdout (JSON with --json), progress and logs on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from edge_deploy.core.progress import Growth

__all__ = ["AsJson", "human_bytes", "print_json", "print_table", "progress_bar"]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def print_json(value: Any) -> None:
    """`value` (a dataclass or plain values) as JSON on stdout."""
    from edge_deploy.core.serde import to_json

    print(json.dumps(to_json(value), indent=1))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; columns whose cells are all numbers are right-aligned."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(_is_numeric(row[index]) for row in rows)
        table.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    width = None if sys.stdout.isatty() else 200
    console = Console(width=width, soft_wrap=False)
    # Not as the table's own title, which is folded to the width of a narrow table.
    console.print(escape(title), style="italic", highlight=False)
    console.print(table)


def _is_numeric(cell: str) -> bool:
    return not cell or cell[0] in "0123456789+-."


def human_bytes(count: float) -> str:
    """Bytes in the unit a person would choose: 97704 -> "97.7 kB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 100 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f} B"


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr that advances with each named stage; plain lines where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage: print(f"- {stage}", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(bar_width=30), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("start", total=total)
        begun = False

        def advance(stage: str) -> None:
            nonlocal begun
            is_new = begun and not isinstance(stage, Growth)
            bar.update(task, description=stage, advance=1 if is_new else 0)
            begun = True

        yield advance
        bar.update(task, completed=total, description="done")
