"""A scatter plot as SVG: one marker an artifact, shape by format, colour by precision, whiskers for uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_deploy.report.axes import Scale, scale_for
from edge_deploy.report.markup import Markup, element

__all__ = ["Axis", "Point", "marker", "scatter"]

WIDTH, HEIGHT = 460.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 16.0, 14.0, 48.0
LETTER_WIDTH, LINE_HEIGHT = 5.9, 13.0


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
    taken = [(x_scale(p.x) - 6, y_scale(p.y) - 6, x_scale(p.x) + 6, y_scale(p.y) + 6) for p in points]
    if line:
        at = y_scale(line[0])
        drawn.append(_line(LEFT, at, WIDTH - RIGHT, at, "reference"))
        drawn.append(_text(LEFT + 4, at - 4, line[1], "tick", anchor="start"))
        taken.append(_box(LEFT + 4, at - 4, "start", LETTER_WIDTH * len(line[1])))
    drawn += [whisker for point in points for whisker in _whiskers(point, x_scale, y_scale)]
    drawn += [_point(point, x_scale, y_scale) for point in points]
    for point in points:
        drawn.append(_label(point, x_scale(point.x), y_scale(point.y), taken))
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


def _whiskers(point: Point, x_scale: Scale, y_scale: Scale) -> list[Markup]:
    x, y = x_scale(point.x), y_scale(point.y)
    drawn = []
    if point.x_range:
        drawn.append(_line(x_scale(point.x_range[0]), y, x_scale(point.x_range[1]), y, f"whisker {point.css}"))
    if point.y_range:
        drawn.append(_line(x, y_scale(point.y_range[0]), x, y_scale(point.y_range[1]), f"whisker {point.css}"))
    return drawn


def _point(point: Point, x_scale: Scale, y_scale: Scale) -> Markup:
    shape = marker(point.shape, f"marker {point.css}", x_scale(point.x), y_scale(point.y))
    return element("g", element("title", point.tooltip or point.label), shape)


def _label(point: Point, x: float, y: float, taken: list[tuple[float, float, float, float]]) -> Markup:
    """The label at the first place around its marker where it covers nothing; its box is added to `taken`."""
    width = LETTER_WIDTH * len(point.label)
    places = [
        (x + dx, y + dy, anchor)
        for reach in (1.0, 2.0, 3.0)
        for dx, dy, anchor in (
            (10, 4, "start"),
            (-10, 4, "end"),
            (0, 4 - 13 * reach, "middle"),
            (0, 4 + 14 * reach, "middle"),
            (9, 4 - 11 * reach, "start"),
            (9, 4 + 12 * reach, "start"),
            (-9, 4 - 11 * reach, "end"),
            (-9, 4 + 12 * reach, "end"),
        )
    ]
    best: tuple[float, float, str] = places[0]
    box = _box(*best, width)
    for place in places:
        candidate = _box(*place, width)
        inside = (
            candidate[0] >= LEFT and candidate[2] <= WIDTH - 2 and candidate[1] >= 0 and candidate[3] <= HEIGHT - BOTTOM
        )
        if inside and not any(_overlap(candidate, other) for other in taken):
            best, box = place, candidate
            break
    taken.append(box)
    return _text(best[0], best[1], point.label, "label", anchor=best[2])


def _box(x: float, y: float, anchor: str, width: float) -> tuple[float, float, float, float]:
    left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
    return (left, y - LINE_HEIGHT + 3, left + width, y + 3)


def _overlap(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return element("line", attributes={"x1": x1, "y1": y1, "x2": x2, "y2": y2}, css=css)


def _text(x: float, y: float, text: str, css: str, *, anchor: str) -> Markup:
    return element("text", text, attributes={"x": x, "y": y, "text-anchor": anchor}, css=css)
