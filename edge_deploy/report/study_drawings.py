"""Drawings of a study: stacked shares, bars with intervals, and the best cut of every condition as a map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_deploy.core.units import format_seconds
from edge_deploy.report.axes import scale_for
from edge_deploy.report.markup import Markup, element

__all__ = ["STUDY_STYLE", "Bar", "bars", "best_cut_map", "colour_of", "modelled_over_measured", "stacked_shares"]

FACTOR_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e0a800", "#56b4e9", "#8a5a00", "#7a7a7a")
STUDY_STYLE = """
svg.shares, svg.bars, svg.map { width: 100%; height: auto; display: block; overflow: visible; }
.rest { fill: var(--line); }
.in-bar { fill: #fff !important; font-size: 10px !important; }
.b-plain { fill: var(--float32); } .b-good { fill: var(--good); } .b-oracle { fill: var(--int8); }
.interval { stroke: var(--ink); stroke-width: 1.4; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; margin: .75rem 0; }
.pair { fill: var(--int8); fill-opacity: .45; }
.verdict { font-weight: 600; margin: .5rem 0; }
"""
# Dark blue, blue-green, green, yellow: readable without colours too, since it gets lighter all the way (viridis).
_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
WIDTH = 460.0
LETTER_WIDTH = 5.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One horizontal bar.

    Attributes:
        text: What stands behind it.
        interval: Whisker from low to high; None for none.
        css: b-plain, b-good or b-oracle.
    """

    label: str
    value: float
    text: str
    css: str = "b-plain"
    interval: tuple[float, float] | None = None


def colour_of(share: float) -> str:
    """A colour for a place between first (0) and last (1)."""
    place = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    mixed = [a + (b - a) * (place - low) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True)]
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def stacked_shares(
    rows: Sequence[tuple[str, Mapping[str, float], float]], factors: Sequence[str], title: str
) -> Markup:
    """One bar a row, filled by each factor's share; grey is what they leave.

    Args:
        rows: Label, shares by factor, rest.
    """
    left, high, gap = 62.0, 22.0, 8.0
    drawn = []
    for at, (label, shares, rest) in enumerate(rows):
        y = at * (high + gap)
        drawn.append(_text(left - 6, y + 15, label, "tick", "end"))
        x = left
        pieces = [(factor, shares[factor], _factor_colour(factors, factor)) for factor in factors]
        for name, share, colour in (*pieces, ("rest", rest, "")):
            width = share * (WIDTH - left)
            box = {"x": x, "y": y, "width": width, "height": high, **({"fill": colour} if colour else {})}
            hover = element("title", f"{label}: {_plain_factor(name)} {share:.1%}")
            drawn.append(element("rect", hover, attributes=box, css="" if colour else "rest"))
            if width > 30:
                drawn.append(_text(x + width / 2, y + 15, f"{share:.0%}", "in-bar" if colour else "tick", "middle"))
            x += width
    tall = len(rows) * (high + gap)
    picture = element("svg", element("title", title), drawn, attributes=_box(tall, title), css="shares")
    legend = [_key(_factor_colour(factors, factor), _plain_factor(factor)) for factor in factors]
    rest_key = _key("var(--line)", "interactions and noise")
    return element("div", picture, element("div", legend, rest_key, css="legend"))


def bars(rows: Sequence[Bar], title: str) -> Markup:
    """Horizontal bars from zero, with whiskers."""
    left, high, gap = 172.0, 20.0, 8.0
    values = [value for row in rows for value in (row.value, *(row.interval or ()))]
    scale = scale_for([0.0, *values], start=left, end=WIDTH - 78, may_be_logarithmic=False, margin=0.02)
    zero = scale(0.0)
    tall = len(rows) * (high + gap)
    drawn = []
    for at, row in enumerate(rows):
        y = at * (high + gap)
        start, end = sorted((zero, scale(row.value)))
        drawn.append(_text(left - 8, y + 14, row.label, "tick", "end"))
        box = {"x": start, "y": y, "width": max(end - start, 0.5), "height": high, "rx": 2}
        drawn.append(element("rect", element("title", f"{row.label}: {row.text}"), attributes=box, css=row.css))
        reach = end
        if row.interval:
            low, up = (scale(value) for value in row.interval)
            drawn.append(_line(low, y + high / 2, up, y + high / 2, "interval"))
            reach = max(reach, up)
        drawn.append(_text(reach + 6, y + 14, row.text, "tick", "start"))
    drawn.append(_line(zero, 0, zero, tall - gap, "axis"))
    return element("svg", element("title", title), drawn, attributes=_box(tall, title), css="bars")


def modelled_over_measured(points: Sequence[tuple[float, float]]) -> Markup:
    """A dot for each pair (measured, modelled) and the line on which both agree; logarithmic."""
    tall = 300.0
    values = [value for point in points for value in point if value > 0]
    low, high = min(values), max(values)
    spread = [low, max(high, low * 10)]
    x = scale_for(spread, start=52.0, end=WIDTH - 10, may_be_logarithmic=True, margin=0.03)
    y = scale_for(spread, start=tall - 40, end=10.0, may_be_logarithmic=True, margin=0.03)
    drawn = []
    for tick in x.ticks:
        drawn += [_line(x(tick), 10, x(tick), tall - 40, "grid"), _line(52, y(tick), WIDTH - 10, y(tick), "grid")]
        drawn += [
            _text(x(tick), tall - 25, format_seconds(tick), "tick", "middle"),
            _text(46, y(tick) + 4, format_seconds(tick), "tick", "end"),
        ]
    drawn.append(_line(x(spread[0]), y(spread[0]), x(spread[1]), y(spread[1]), "reference"))
    drawn += [element("circle", attributes={"cx": x(a), "cy": y(b), "r": 2.2}, css="pair") for a, b in points]
    drawn.append(_text((52 + WIDTH) / 2, tall - 6, "measured", "axis-title", "middle"))
    title = "modelled over measured seconds"
    return element("svg", element("title", title), drawn, attributes=_box(tall, title), css="map")


def best_cut_map(
    factors: Sequence[str],
    levels: Sequence[Sequence[float]],
    best: Sequence[int],
    names: Sequence[str],
    title: str,
    order: Sequence[str],
) -> Markup:
    """A cell for each condition, coloured by the place of its best cut between first and last.

    Args:
        order: Factors, most important first: they become rows and columns in turn, so that both stay readable.
    """
    ranked = [list(factors).index(name) for name in order]
    down, across = ranked[1::2], ranked[0::2]
    rows = sorted({tuple(condition[at] for at in down) for condition in levels})
    columns = sorted({tuple(condition[at] for at in across) for condition in levels})
    left, top = 96.0, 8.0
    wide = (WIDTH - left) / max(len(columns), 1)
    tall = max(min(wide, 30.0), 170.0 / max(len(rows), 1))
    drawn = []
    for condition, cut in zip(levels, best, strict=True):
        row = rows.index(tuple(condition[at] for at in down))
        column = columns.index(tuple(condition[at] for at in across))
        said = ", ".join(f"{_plain_factor(name)} {_level(name, v)}" for name, v in zip(factors, condition, strict=True))
        share = cut / max(len(names) - 1, 1)
        box = {"x": left + column * wide, "y": top + row * tall, "width": wide - 0.6, "height": tall - 0.6}
        hover = element("title", f"{said}: cut {names[cut]}")
        drawn.append(element("rect", hover, attributes={**box, "fill": colour_of(share)}))
    skip = max(1, math.ceil(len(rows) / 14))
    for at, row_levels in enumerate(rows[::skip]):
        y = top + at * skip * tall + tall / 2 + 4
        drawn.append(_text(left - 6, y, _levels(factors, down, row_levels), "tick", "end"))
    base = top + len(rows) * tall
    texts = [_levels(factors, across, column) for column in columns]
    spread = max(1, math.ceil(LETTER_WIDTH * (max(map(len, texts)) + 2) / wide))
    for at in range(0, len(columns), spread):
        drawn.append(_text(left + (at + 0.5) * wide, base + 13, texts[at], "tick", "middle"))
    across_title = " / ".join(_plain_factor(factors[at]) for at in across)
    drawn.append(_text((left + WIDTH) / 2, base + 28, across_title, "axis-title", "middle"))
    picture = element("svg", element("title", title), drawn, attributes=_box(base + 32, title), css="map")
    down_title = element("p", "rows: " + " / ".join(_plain_factor(factors[at]) for at in down), css="muted")
    shown = sorted({0, *best, len(names) - 1})
    shown = shown[:: max(1, math.ceil(len(shown) / 7))]
    legend = [_key(colour_of(cut / max(len(names) - 1, 1)), f"cut {names[cut]}") for cut in shown]
    return element("div", picture, down_title, element("div", legend, css="legend"))


def _factor_colour(factors: Sequence[str], name: str) -> str:
    return FACTOR_COLOURS[list(factors).index(name) % len(FACTOR_COLOURS)]


def _plain_factor(name: str) -> str:
    for ending, plain in (("_stress_pct", ""), ("_mbit_s", " Mbit/s"), ("_bps", " Mbit/s"), ("_s", " ms")):
        if name.endswith(ending):
            name = name.removesuffix(ending) + plain
            break
    return name.replace("_", " ")


def _level(name: str, value: float) -> str:
    """In the unit that `_plain_factor` names."""
    factor = 1e-6 if name.endswith("_bps") else 1e3 if name.endswith("_s") and not name.endswith("_mbit_s") else 1.0
    return f"{value * factor:.3g}"


def _levels(factors: Sequence[str], places: Sequence[int], values: Sequence[float]) -> str:
    return " / ".join(_level(factors[at], value) for at, value in zip(places, values, strict=True))


def _key(colour: str, text: str) -> Markup:
    swatch = element("span", attributes={"style": f"background:{colour}"}, css="key")
    return element("span", swatch, " ", text)


def _box(tall: float, title: str) -> dict[str, object]:
    return {"viewBox": f"0 0 {WIDTH:.0f} {tall:.0f}", "role": "img", "aria-label": title}


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return element("line", attributes={"x1": x1, "y1": y1, "x2": x2, "y2": y2}, css=css)


def _text(x: float, y: float, text: str, css: str, anchor: str) -> Markup:
    return element("text", text, attributes={"x": x, "y": y, "text-anchor": anchor}, css=css)
