"""Bytes and time along the layers: what would cross after each, and how long each takes on edge and cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_deploy.core.units import format_bytes, format_seconds
from edge_deploy.report.axes import Scale, scale_for
from edge_deploy.report.markup import Markup, element

__all__ = ["AlongLayers", "layers_picture"]

WIDTH, HEIGHT = 920.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 12.0, 12.0, 34.0
# With more layers the bars would be thinner than a line.
MOST_TICKS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class AlongLayers:
    """One entry a position in the topological order; position 0 stands before the first layer.

    Attributes:
        names: Of the layer that ends at each position; the first is "(input)".
        up_bytes: That cross there, encoded.
        legal: Whether a cut can be made there.
        edge_s: Of the layer itself on the idle edge; 0 for position 0. `cloud_s` likewise.
        chosen: Position of the chosen cut; None where it is no prefix.
    """

    names: tuple[str, ...]
    up_bytes: tuple[int, ...]
    legal: tuple[bool, ...]
    edge_s: tuple[float, ...]
    cloud_s: tuple[float, ...]
    chosen: int | None


def layers_picture(found: AlongLayers) -> tuple[Markup, Markup]:
    """A picture of bytes and a picture of times."""
    rows = range(len(found.names))
    told = [
        f"{found.names[i]}: {format_bytes(found.up_bytes[i])}" + ("" if found.legal[i] else ", no legal cut")
        for i in rows
    ]
    css = ["p-int8" if legal else "bar-back" for legal in found.legal]
    sizes = _bars(
        [float(size) for size in found.up_bytes],
        css,
        told,
        write=format_bytes,
        title="bytes that cross",
        chosen=found.chosen,
    )
    times = [
        f"{found.names[i]}: edge {format_seconds(found.edge_s[i])}, cloud {format_seconds(found.cloud_s[i])}"
        for i in rows
    ]
    clocks = _bars(
        list(found.edge_s),
        ["p-int4"] * len(rows),
        times,
        write=format_seconds,
        title="time of each layer",
        chosen=found.chosen,
        second=list(found.cloud_s),
    )
    return sizes, clocks


def _bars(
    values: Sequence[float],
    css: Sequence[str],
    told: Sequence[str],
    *,
    write: Callable[[float], str],
    title: str,
    chosen: int | None,
    second: Sequence[float] = (),
) -> Markup:
    positive = [value for value in (*values, *second) if value > 0] or [1.0]
    y = scale_for(positive, start=HEIGHT - BOTTOM, end=TOP, may_be_logarithmic=True)
    step = (WIDTH - LEFT - RIGHT) / len(values)
    drawn = [*_grid(y, write)]
    for number, value in enumerate(values):
        left = LEFT + number * step
        drawn.append(_bar(left + 0.08 * step, 0.84 * step, value, y, css[number], told[number]))
        if second:
            drawn.append(_bar(left + 0.3 * step, 0.4 * step, second[number], y, "p-int8", told[number]))
    if chosen is not None:
        at = LEFT + (chosen + 1) * step
        line = {"x1": at, "x2": at, "y1": TOP, "y2": HEIGHT - BOTTOM}
        drawn.append(element("line", element("title", "the chosen cut"), attributes=line, css="axis"))
    every = max(1, -(-len(values) // MOST_TICKS))
    for number in range(0, len(values), every):
        place = {"x": LEFT + (number + 0.5) * step, "y": HEIGHT - BOTTOM + 14, "text-anchor": "middle"}
        drawn.append(element("text", str(number), attributes=place, css="tick"))
    middle = {"x": (LEFT + WIDTH) / 2, "y": HEIGHT - 4, "text-anchor": "middle"}
    drawn.append(element("text", "layers before the cut", attributes=middle, css="axis-title"))
    box = {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "role": "img", "aria-label": title}
    return element("svg", drawn, attributes=box, css="plot")


def _bar(x: float, width: float, value: float, y: Scale, css: str, told: str) -> Markup:
    top = y(value) if value > 0 else HEIGHT - BOTTOM
    shape = {"x": x, "y": top, "width": width, "height": HEIGHT - BOTTOM - top}
    return element("rect", element("title", told), attributes=shape, css=css)


def _grid(y: Scale, write: Callable[[float], str]) -> list[Markup]:
    drawn = []
    for tick in y.ticks:
        at = y(tick)
        line = {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": at, "y2": at}
        drawn.append(element("line", attributes=line, css="grid"))
        place = {"x": LEFT - 6, "y": at + 4, "text-anchor": "end"}
        drawn.append(element("text", write(tick), attributes=place, css="tick"))
    return drawn
