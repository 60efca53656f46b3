"""One picture of the partitioner's journey, as an SVG file that a README can show: where, when, and does it pay."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_deploy.report.markup import Markup, element
from edge_deploy.report.plan_layers import AlongLayers, layers_picture
from edge_deploy.report.plan_map import CutMap, cut_map_drawing
from edge_deploy.report.simulation_drawings import COLOURS, KNOWN, AlongTrace, along_trace

__all__ = ["journey_picture"]

WIDTH = 940.0
MARGIN = 10.0
# A picture in a page cannot see the page's colours: light, on white.
STYLE = """
svg { --ink: #1c2026; --soft: #5d6673; --line: #d9dde3; --int8: #0072b2; --int4: #d55e00; --fair: #b58900;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow: visible; }
text { fill: var(--ink); font-size: 11px; }
.tick { fill: var(--soft); font-size: 10.5px; } .axis-title { fill: var(--soft); font-size: 11.5px; }
.heading { font-size: 16px; font-weight: 600; } .told { fill: var(--soft); font-size: 12.5px; }
.grid { stroke: var(--line); stroke-width: 1; } .axis { stroke: var(--soft); stroke-width: 1.5; }
.p-int8 { fill: var(--int8); } .p-int4 { fill: var(--int4); } .bar-back { fill: var(--line); }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } .thin { stroke-width: 1.1; opacity: .85; }
.link { fill: none; stroke: var(--int8); stroke-width: 1.2; }
.load { fill: none; stroke: var(--fair); stroke-width: 1.1; }
"""
LAYER_KEYS = (
    ("#0072b2", "bytes that cross; time in the cloud (narrow)"),
    ("#d55e00", "time on the edge (wide)"),
)


def journey_picture(
    title: str,
    layers: AlongLayers,
    layers_told: str,
    where: CutMap,
    where_told: str,
    along: AlongTrace,
    shown: Sequence[str],
    along_told: str,
) -> str:
    """The SVG text: bytes and times along the layers, the map of best cuts, and a trace with what policies did on it.

    Args:
        layers_told, where_told, along_told: A line under each heading.
        shown: Policies to draw along the trace.
    """
    drawn_map, legend = cut_map_drawing(where)
    panels = (
        (
            "What crosses after each layer, and how long each layer takes",
            layers_told,
            layers_picture(layers),
            LAYER_KEYS,
        ),
        ("The best cut moves with the link and the load", where_told, (drawn_map,), legend),
        (
            "Does moving it pay?",
            along_told,
            (along_trace(along, shown, shown),),
            tuple((_colour(shown, name), name) for name in shown),
        ),
    )
    drawn: list[Markup] = []
    y = 30.0
    for number, (heading, told, pictures, keys) in enumerate(panels, start=1):
        drawn.append(_text(MARGIN, y, f"{number}  {heading}", "heading"))
        drawn.append(_text(MARGIN, y + 20, told, "told"))
        y += 36
        for picture in pictures:
            placed, tall = _placed(picture, y)
            drawn.append(placed)
            y += tall + 4
        drawn += _legend(keys, y + 8)
        y += 56
    tall = y - 24
    ground = element("rect", attributes={"width": WIDTH, "height": tall, "fill": "#ffffff"})
    box = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {WIDTH:.0f} {tall:.0f}",
        "width": f"{WIDTH:.0f}",
        "role": "img",
        "aria-label": title,
    }
    svg = element("svg", element("title", title), element("style", Markup(STYLE)), ground, drawn, attributes=box)
    return f"{svg}\n"


def _placed(picture: Markup, y: float) -> tuple[Markup, float]:
    """A drawing of ours at a height of this picture, and how tall it is there."""
    found = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', picture)
    assert found is not None, "our drawings have a box"
    width = WIDTH - 2 * MARGIN
    tall = float(found[2]) * width / float(found[1])
    place = f'<svg x="{MARGIN:.0f}" y="{y:.1f}" width="{width:.0f}" height="{tall:.1f}" '
    return Markup(place + picture.removeprefix("<svg ")), tall


def _legend(keys: Sequence[tuple[str, str]], y: float) -> list[Markup]:
    """As many keys as fit on a line."""
    drawn, x = [], 70.0
    for colour, text in keys:
        wide = 38 + 6.6 * len(text)
        if x + wide > WIDTH:
            break
        drawn.append(element("rect", attributes={"x": x, "y": y - 9, "width": 11, "height": 11, "fill": colour}))
        drawn.append(_text(x + 16, y, text, "told"))
        x += wide
    return drawn


def _colour(names: Sequence[str], name: str) -> str:
    if name in KNOWN:
        return KNOWN[name].replace("var(--ink)", "#1c2026")
    return COLOURS[[other for other in names if other not in KNOWN].index(name) % len(COLOURS)]


def _text(x: float, y: float, text: str, css: str) -> Markup:
    return element("text", text, attributes={"x": x, "y": y}, css=css)
