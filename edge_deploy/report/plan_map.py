"""The map of best cuts: uplink along, CPU load of the edge upwards, one colour a cut."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edge_deploy.report.axes import Scale, scale_for
from edge_deploy.report.markup import Markup, element, join

__all__ = ["CutMap", "cut_map", "cut_map_drawing"]

WIDTH, HEIGHT = 920.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 12.0, 46.0
# Told apart by people with any colour vision (Okabe and Ito), then again in paler tints.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6100", "#7a4fa3")
NOTHING = "#9aa0a6"


@dataclass(frozen=True, slots=True, kw_only=True)
class CutMap:
    """Best cuts on a grid.

    Attributes:
        uplink_bps: Increasing.
        edge_load: Increasing.
        cuts: By load and uplink: id of the best cut; "" where none is feasible.
        here: The conditions of the plan: uplink and load.
        note: What a reader should know of the map.
    """

    uplink_bps: tuple[float, ...]
    edge_load: tuple[float, ...]
    cuts: tuple[tuple[str, ...], ...]
    here: tuple[float, float]
    note: str = ""


def cut_map(found: CutMap) -> Markup:
    """The map with its legend, most frequent cut first."""
    drawing, legend = cut_map_drawing(found)
    keys = [element("span", _key(colour), f" {text}") for colour, text in legend]
    return join([drawing, element("div", keys, css="legend")])


def cut_map_drawing(found: CutMap) -> tuple[Markup, tuple[tuple[str, str], ...]]:
    """The map as SVG, and its legend as colours and texts, most frequent cut first."""
    x = _logarithmic(found.uplink_bps[0], found.uplink_bps[-1])
    y = Scale(low=0.0, high=1.0, start=HEIGHT - BOTTOM, end=TOP, logarithmic=False, ticks=(0.0, 0.25, 0.5, 0.75, 1.0))
    counted = Counter(itertools.chain.from_iterable(found.cuts))
    colour = {cut: COLOURS[number % len(COLOURS)] for number, (cut, _) in enumerate(counted.most_common())}
    colour[""] = NOTHING
    drawn = [*_cells(found, x, y, colour), *_axes(x, y), *_mark(found, x, y)]
    box = {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "role": "img", "aria-label": "best cut by uplink and edge load"}
    total = sum(counted.values())
    legend = tuple(
        (colour[cut], f"{cut or 'no feasible cut'} ({count / total:.0%})") for cut, count in counted.most_common()
    )
    return element("svg", drawn, attributes=box, css="plot"), legend


def _cells(found: CutMap, x: Scale, y: Scale, colour: dict[str, str]) -> list[Markup]:
    """One rectangle for each run of equal cuts in a row."""
    edges_x = _edges([x(value) for value in found.uplink_bps], x.start, x.end)
    edges_y = _edges([y(value) for value in found.edge_load], y.start, y.end)
    drawn = []
    for row, cuts in enumerate(found.cuts):
        column = 0
        for cut, run in itertools.groupby(cuts):
            length = len(list(run))
            shape = {
                "x": edges_x[column],
                "y": edges_y[row + 1],
                "width": edges_x[column + length] - edges_x[column],
                "height": edges_y[row] - edges_y[row + 1],
                "fill": colour[cut],
                "shape-rendering": "crispEdges",
            }
            drawn.append(element("rect", element("title", cut or "no feasible cut"), attributes=shape))
            column += length
    return drawn


def _axes(x: Scale, y: Scale) -> list[Markup]:
    drawn = []
    for tick in x.ticks:
        text = f"{tick / 1e6:g}"
        drawn.append(_text(x(tick), HEIGHT - BOTTOM + 15, text, "tick", "middle"))
    for tick in y.ticks:
        drawn.append(_text(LEFT - 6, y(tick) + 4, f"{tick:.0%}", "tick", "end"))
    drawn.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "uplink, Mbit/s (logarithmic)", "axis-title", "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = {"x": 13.0, "y": middle, "transform": f"rotate(-90 13 {middle:.2f})", "text-anchor": "middle"}
    drawn.append(element("text", "load of the edge's CPU", attributes=turned, css="axis-title"))
    return drawn


def _mark(found: CutMap, x: Scale, y: Scale) -> list[Markup]:
    uplink, load = found.here
    if uplink <= 0:
        return []
    ring = {"cx": x(uplink), "cy": y(load), "r": 5.0, "fill": "none", "stroke": "#000", "stroke-width": 3.5}
    inner = ring | {"stroke": "#fff", "stroke-width": 1.5}
    return [element("circle", element("title", "this plan"), attributes=shape) for shape in (ring, inner)]


def _edges(centres: Sequence[float], start: float, end: float) -> list[float]:
    between = [(one + other) / 2 for one, other in itertools.pairwise(centres)]
    return [start, *between, end]


def _logarithmic(low: float, high: float) -> Scale:
    ticks = scale_for([low, high], start=0.0, end=1.0, may_be_logarithmic=True, margin=0.0).ticks
    return Scale(low=low, high=high, start=LEFT, end=WIDTH - RIGHT, logarithmic=True, ticks=ticks)


def _key(colour: str) -> Markup:
    square = element("rect", attributes={"width": 12, "height": 12, "fill": colour})
    return element("svg", square, attributes={"width": 12, "height": 12, "aria-hidden": "true"}, css="icon")


def _text(x: float, y: float, text: str, css: str, anchor: str) -> Markup:
    return element("text", text, attributes={"x": x, "y": y, "text-anchor": anchor}, css=css)
