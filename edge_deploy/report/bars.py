"""Small drawings that stand in table cells and grids: a bar, a histogram of weights before and after."""

from __future__ import annotations

from edge_deploy.core.layer_errors import WeightHistogram
from edge_deploy.report.markup import Markup, element, join

__all__ = ["bar", "histogram"]

BAR_WIDTH, BAR_HEIGHT = 90.0, 9.0
CHART_WIDTH, CHART_HEIGHT, CHART_FOOT = 210.0, 78.0, 16.0


def bar(share: float, text: str, *, css: str = "bar") -> Markup:
    """A bar filled to `share` in [0, 1], with its number beside it."""
    filled = BAR_WIDTH * min(max(share, 0.0), 1.0)
    size = {"width": BAR_WIDTH, "height": BAR_HEIGHT, "aria-hidden": "true"}
    drawn = element(
        "svg",
        element("rect", attributes={"width": BAR_WIDTH, "height": BAR_HEIGHT, "rx": 2}, css="bar-back"),
        element("rect", attributes={"width": filled, "height": BAR_HEIGHT, "rx": 2}, css=css),
        attributes=size,
    )
    return element("span", drawn, " ", element("span", text, css="number"), css="barred")


def histogram(layer: str, counted: WeightHistogram, *, note: str = "", css: str = "") -> Markup:
    """Weights of one layer: float as a filled area, quantized as sticks; both scaled to their own highest bin."""
    float_top = max(max(counted.float_counts), 1)
    quantized_top = max(max(counted.quantized_counts), 1)
    low, high = counted.edges[0], counted.edges[-1]
    base = CHART_HEIGHT - CHART_FOOT

    def x(edge: float) -> float:
        return (edge - low) / (high - low) * CHART_WIDTH

    corners = [(0.0, base)]
    for count, left, right in zip(counted.float_counts, counted.edges[:-1], counted.edges[1:], strict=True):
        y = base * (1 - count / float_top)
        corners += [(x(left), y), (x(right), y)]
    corners.append((CHART_WIDTH, base))
    sticks = [
        element(
            "line",
            attributes={
                "x1": x((left + right) / 2),
                "x2": x((left + right) / 2),
                "y1": base,
                "y2": base * (1 - count / quantized_top),
            },
            css=f"stick {css}",
        )
        for count, left, right in zip(counted.quantized_counts, counted.edges[:-1], counted.edges[1:], strict=True)
        if count
    ]
    labels = [
        element("text", f"{low:.3g}", attributes={"x": 0, "y": CHART_HEIGHT - 3}, css="tick"),
        element(
            "text",
            f"{high:.3g}",
            attributes={"x": CHART_WIDTH, "y": CHART_HEIGHT - 3, "text-anchor": "end"},
            css="tick",
        ),
    ]
    if low < 0 < high:
        labels.append(
            element("text", "0", attributes={"x": x(0.0), "y": CHART_HEIGHT - 3, "text-anchor": "middle"}, css="tick")
        )
    area = element("polygon", attributes={"points": " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}, css="area")
    floor = element("line", attributes={"x1": 0, "x2": CHART_WIDTH, "y1": base, "y2": base}, css="axis")
    box = {"viewBox": f"0 0 {CHART_WIDTH:.0f} {CHART_HEIGHT:.0f}", "role": "img", "aria-label": f"weights of {layer}"}
    drawn = element("svg", join((area, sticks, floor, labels)), attributes=box, css="histogram")
    return element("figure", element("figcaption", layer, element("span", note, css="muted")), drawn)
