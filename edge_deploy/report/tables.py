"""Tables as HTML: columns that nothing is known about are left out, numbers stand right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_deploy.report.markup import Child, Markup, element

__all__ = ["Column", "facts", "table"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[T]):
    """One column.

    Attributes:
        cell: The cell's content for a row; None where nothing is known.
        group: A second heading above neighbouring columns with the same text.
    """

    title: str
    cell: Callable[[T], Child | None]
    numeric: bool = False
    group: str = ""


def table(
    columns: Sequence[Column[T]], rows: Sequence[T], *, css: str = "", row_css: Callable[[T], str] | None = None
) -> Markup:
    """A table that scrolls sideways when the window is narrow."""
    cells = [[column.cell(row) for column in columns] for row in rows]
    known = [index for index in range(len(columns)) if any(line[index] is not None for line in cells)]
    shown = [columns[index] for index in known]
    head = [element("tr", (_heading(column) for column in shown))]
    if any(column.group for column in shown):
        head.insert(0, element("tr", _groups(shown)))
    body = [
        element("tr", (_cell(columns[index], line[index]) for index in known), css=row_css(row) if row_css else "")
        for row, line in zip(rows, cells, strict=True)
    ]
    return element("div", element("table", element("thead", head), element("tbody", body), css=css), css="scroll")


def facts(pairs: Sequence[tuple[str, Child]]) -> Markup:
    """Names with their values, one a line."""
    return element("dl", ((element("dt", name), element("dd", value)) for name, value in pairs))


def _heading(column: Column[T]) -> Markup:
    return element("th", column.title, attributes={"scope": "col"}, css="number" if column.numeric else "")


def _cell(column: Column[T], content: Child | None) -> Markup:
    if content is None:
        return element("td", "–", css="number muted" if column.numeric else "muted")
    return element("td", content, css="number" if column.numeric else "")


def _groups(columns: Sequence[Column[T]]) -> list[Markup]:
    """Headings over runs of columns of one group."""
    drawn: list[Markup] = []
    at = 0
    while at < len(columns):
        end = at
        while end < len(columns) and columns[end].group == columns[at].group:
            end += 1
        title = columns[at].group
        drawn.append(
            element("th", title, attributes={"colspan": end - at, "scope": "colgroup"}, css="group" if title else "")
        )
        at = end
    return drawn
