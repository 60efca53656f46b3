"""A scatter plot as SVG: one marker an artifact, shape by format, colour by precision, whiskers for uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edge_deploy.report.axes import Scale, scale_for
from edge_deploy.report.markup import Markup, element

__all__ = ["Axis", "Point", "marker", "scatter"]

WIDTH, HEIGHT = 460.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 16.0, 14.0, 48.0
LETTER_WIDTH, LINE_HEIGHT = 5.9, 13.0
# Left, top, right, bottom.
_Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What an axis says.

    Attributes:
        write: A tick's text.
        is_amount: Positive values that may need a logarithmic scale.
    """

    title: str
    write: Callable[[float], str]
    is_amount: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One artifact.

    Attributes:
        x_range: Whisker from low to high; None for none.
        css: Colour class.
    """

    label: str
    x: float
    y: float
    shape: str
    css: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    tooltip: str = ""


def scatter(points: Sequence[Point], x: Axis, y: Axis, *, title: str, line: tuple[float, str] | None = None) -> Markup:
    """The plot.

    Args:
        points: At least one, all finite.
        line: A horizontal line and its text, e.g. the float model's accuracy.
    """
    x_values = [value for point in points for value in (point.x, *(point.x_range or ()))]
    y_values = [value for point in points for value in (point.y, *(point.y_range or ()))]
    y_values += [line[0]] if line else []
    x_scale = scale_for(x_values, start=LEFT, end=WIDTH - RIGHT, may_be_logarithmic=x.is_amount)
    y_scale = scale_for(y_values, start=HEIGHT - BOTTOM, end=TOP, may_be_logarithmic=False)
    drawn = [*_grid(x_scale, y_scale, x, y)]
    markers = [_around(x_scale(p.x), y_scale(p.y), x_scale(p.x), y_scale(p.y), 6) for p in points]
    avoided = [_whisker_box(line, x_scale, y_scale) for point in points for line in _whisker_ends(point)]
    taken = list(markers)
    if line:
        at = y_scale(line[0])
        drawn.append(_line(LEFT, at, WIDTH - RIGHT, at, "reference"))
        avoided.append(_around(LEFT, at, WIDTH - RIGHT, at, 1))
        sides = ((LEFT + 4, "start"), (WIDTH - RIGHT - 2, "end"), ((LEFT + WIDTH - RIGHT) / 2, "middle"))
        places = [(x_at, at + dy, anchor) for dy in (-5.0, 13.0) for x_at, anchor in sides]
        drawn.append(_written(line[1], "tick", places, taken, avoided))
    for point in points:
        ends = _whisker_ends(point)
        drawn += [_line(x_scale(a), y_scale(b), x_scale(c), y_scale(d), f"whisker {point.css}") for a, b, c, d in ends]
    drawn += [_point(point, x_scale, y_scale) for point in points]
    for point in points:
        places = _label_places(x_scale(point.x), y_scale(point.y))
        drawn.append(_written(point.label, "label", places, taken, avoided))
    box = {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "role": "img", "aria-label": title}
    return element("svg", element("title", title), drawn, attributes=box, css="plot")


def marker(shape: str, css: str, x: float, y: float, *, size: float = 5.5) -> Markup:
    """A filled circle, or a square or diamond of about the same area."""
    if shape == "circle":
        return element("circle", attributes={"cx": x, "cy": y, "r": size}, css=css)
    half = size * 0.9 if shape == "square" else size * 1.25
    corners = (
        ((-half, -half), (half, -half), (half, half), (-half, half))
        if shape == "square"
        else ((0, -half), (half, 0), (0, half), (-half, 0))
    )
    return element(
        "polygon", attributes={"points": " ".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in corners)}, css=css
    )


def _grid(x_scale: Scale, y_scale: Scale, x: Axis, y: Axis) -> list[Markup]:
    drawn = []
    for tick in _readable(x_scale, x):
        at = x_scale(tick)
        drawn.append(_line(at, TOP, at, HEIGHT - BOTTOM, "grid"))
        drawn.append(_text(at, HEIGHT - BOTTOM + 15, x.write(tick), "tick", anchor="middle"))
    for tick in _readable(y_scale, y):
        at = y_scale(tick)
        drawn.append(_line(LEFT, at, WIDTH - RIGHT, at, "grid"))
        drawn.append(_text(LEFT - 6, at + 4, y.write(tick), "tick", anchor="end"))
    drawn.append(_line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
    drawn.append(_line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, "axis"))
    scale = " (logarithmic)" if x_scale.logarithmic else ""
    drawn.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x.title + scale, "axis-title", anchor="middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = {"x": 13.0, "y": middle, "transform": f"rotate(-90 13 {middle:.2f})", "text-anchor": "middle"}
    drawn.append(element("text", y.title, attributes=turned, css="axis-title"))
    return drawn


def _readable(scale: Scale, axis: Axis) -> list[float]:
    """Ticks whose texts differ: where all values are nearly equal the others would repeat one number."""
    texts: dict[str, float] = {}
    for tick in scale.ticks:
        texts.setdefault(axis.write(tick), tick)
    return list(texts.values())


def _whisker_ends(point: Point) -> list[tuple[float, float, float, float]]:
    """Lines from (x, y) to (x, y), in the values' units."""
    ends = []
    if point.x_range:
        ends.append((point.x_range[0], point.y, point.x_range[1], point.y))
    if point.y_range:
        ends.append((point.x, point.y_range[0], point.x, point.y_range[1]))
    return ends


def _whisker_box(ends: tuple[float, float, float, float], x_scale: Scale, y_scale: Scale) -> _Box:
    return _around(x_scale(ends[0]), y_scale(ends[1]), x_scale(ends[2]), y_scale(ends[3]), 2)


def _around(x1: float, y1: float, x2: float, y2: float, margin: float) -> _Box:
    return (min(x1, x2) - margin, min(y1, y2) - margin, max(x1, x2) + margin, max(y1, y2) + margin)


def _point(point: Point, x_scale: Scale, y_scale: Scale) -> Markup:
    shape = marker(point.shape, f"marker {point.css}", x_scale(point.x), y_scale(point.y))
    return element("g", element("title", point.tooltip or point.label), shape)


def _label_places(x: float, y: float) -> list[tuple[float, float, str]]:
    """Where a label may stand around its marker, best first: position and anchor of the text."""
    places = [(x + 10, y + 4, "start"), (x - 10, y + 4, "end")]
    for reach in (1.0, 2.0, 3.0):
        for dx, anchor in ((0.0, "middle"), (9.0, "start"), (-9.0, "end")):
            places += [(x + dx, y + 4 - 12 * reach, anchor), (x + dx, y + 4 + 13 * reach, anchor)]
    return places


def _written(
    text: str, css: str, places: list[tuple[float, float, str]], taken: list[_Box], avoided: list[_Box]
) -> Markup:
    """The text at the first place where it covers nothing; its box is added to `taken`.

    Args:
        taken: What must not be covered; if every place does, the first place is used.
        avoided: What should not be covered where another place is left.
    """
    width = LETTER_WIDTH * len(text)
    inside = [place for place in places if _is_inside(_box(*place, width))]
    free = [place for place in inside if not any(_overlap(_box(*place, width), other) for other in taken)]
    best = [place for place in free if not any(_overlap(_box(*place, width), other) for other in avoided)]
    x, y, anchor = (best or free or inside or places)[0]
    taken.append(_box(x, y, anchor, width))
    return _text(x, y, text, css, anchor=anchor)


def _is_inside(box: _Box) -> bool:
    return box[0] >= LEFT and box[2] <= WIDTH - 2 and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM


def _box(x: float, y: float, anchor: str, width: float) -> _Box:
    left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
    return (left, y - LINE_HEIGHT + 3, left + width, y + 3)


def _overlap(one: _Box, two: _Box) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return element("line", attributes={"x1": x1, "y1": y1, "x2": x2, "y2": y2}, css=css)


def _text(x: float, y: float, text: str, css: str, *, anchor: str) -> Markup:
    return element("text", text, attributes={"x": x, "y": y, "text-anchor": anchor}, css=css)
