"""Errors along the layers: what each layer makes of float inputs, and what has come together up to it."""

from __future__ import annotations

from collections.abc import Sequence

from converters.debugger.finding import LayerDiagnosis
from edge_deploy.report.axes import Scale, scale_for
from edge_deploy.report.markup import Markup, element

__all__ = ["errors_picture"]

WIDTH, HEIGHT = 920.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 12.0, 12.0, 40.0
MOST_DB = 70.0  # beyond, an error is that of rounding to float
# With more layers the numbers would touch.
MOST_TICKS = 30


def errors_picture(layers: Sequence[LayerDiagnosis]) -> Markup:
    """Bars of own SNR, a line of accumulated SNR, layers in topological order."""
    known = [value for layer in layers for value in (layer.own_snr_db, layer.snr_db) if value is not None]
    y = scale_for(
        [0.0, *(min(value, MOST_DB) for value in known)], start=HEIGHT - BOTTOM, end=TOP, may_be_logarithmic=False
    )
    step = (WIDTH - LEFT - RIGHT) / max(len(layers), 1)
    drawn = _grid(y)
    points = []
    for number, layer in enumerate(layers):
        left = LEFT + number * step
        told = element("title", _told(layer))
        if layer.own_snr_db is not None:
            top = y(min(layer.own_snr_db, MOST_DB))
            shape = {"x": left + 0.12 * step, "y": top, "width": 0.76 * step, "height": max(HEIGHT - BOTTOM - top, 0.5)}
            drawn.append(element("rect", told, attributes=shape, css="p-int4" if layer.clipped > 0.01 else "p-int8"))
        if layer.snr_db is not None:
            points.append((left + step / 2, y(min(layer.snr_db, MOST_DB)), told))
    line = {"points": " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in points), "fill": "none"}
    drawn.append(element("polyline", attributes=line, css="axis"))
    drawn += [
        element("circle", told, attributes={"cx": a, "cy": b, "r": 2.5}, css="p-float32") for a, b, told in points
    ]
    every = max(1, -(-len(layers) // MOST_TICKS))
    for number in range(0, len(layers), every):
        place = {"x": LEFT + (number + 0.5) * step, "y": HEIGHT - BOTTOM + 14, "text-anchor": "middle"}
        drawn.append(element("text", str(number), attributes=place, css="tick"))
    middle = {"x": (LEFT + WIDTH) / 2, "y": HEIGHT - 6, "text-anchor": "middle"}
    drawn.append(element("text", "number of the layer, inputs first", attributes=middle, css="axis-title"))
    turned = {"x": 13.0, "y": HEIGHT / 2, "transform": f"rotate(-90 13 {HEIGHT / 2:.1f})", "text-anchor": "middle"}
    drawn.append(element("text", "SNR in dB", attributes=turned, css="axis-title"))
    box = {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "role": "img", "aria-label": "errors along the layers"}
    return element("svg", drawn, attributes=box, css="plot")


def _told(layer: LayerDiagnosis) -> str:
    parts = [layer.layer]
    parts += [f"by itself {layer.own_snr_db:.1f} dB"] if layer.own_snr_db is not None else []
    parts += [f"in the artifact {layer.snr_db:.1f} dB"] if layer.snr_db is not None else []
    parts += [f"{layer.clipped:.1%} clipped"] if layer.clipped > 0.001 else []
    return ", ".join(parts)


def _grid(y: Scale) -> list[Markup]:
    drawn = []
    for tick in y.ticks:
        if tick < 0:
            continue
        line = {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": y(tick), "y2": y(tick)}
        drawn.append(element("line", attributes=line, css="grid"))
        place = {"x": LEFT - 6, "y": y(tick) + 4, "text-anchor": "end"}
        drawn.append(element("text", f"{tick:g}", attributes=place, css="tick"))
    return drawn
