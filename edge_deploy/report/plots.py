"""The accuracy-size-latency picture of a model: two scatter plots that share their vertical axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_deploy.core.benchmark import percentiles
from edge_deploy.core.units import format_bytes, format_seconds
from edge_deploy.report.artifacts import difference_of, measured_where, metric_name, worst
from edge_deploy.report.collect import Entry, Model
from edge_deploy.report.look import colour, named, shape
from edge_deploy.report.markup import Markup, element
from edge_deploy.report.scatter import Axis, Point, scatter

__all__ = ["plots"]

# Above this a file computes what the float model computes; drawing 130 dB to scale would flatten all the others.
MOST_DB = 80.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quality:
    """What the vertical axis shows, and how to read it off an artifact."""

    name: str
    whisker: str
    axis: Axis
    read: Callable[[Entry], tuple[float, tuple[float, float] | None] | None]
    line: tuple[float, str] | None = None


def plots(model: Model) -> Markup | None:
    """Quality over size, and over latency where it was measured; None where nothing was compared."""
    quality = _metric(model) or _likeness(model)
    drawn = []
    sized = _points(model, quality, lambda e: (float(e.artifact.device_bytes), None), format_bytes)
    if sized:
        axis = Axis(title="size on the device", write=format_bytes, is_amount=True)
        picture = scatter(sized, axis, quality.axis, title=f"{model.name}: {quality.name} over size", line=quality.line)
        caption = element("figcaption", f"{quality.name} over size", element("span", quality.whisker, css="muted"))
        drawn.append(element("figure", caption, picture))
    timed = _points(model, quality, _latency, format_seconds)
    if timed:
        axis = Axis(title="latency, p50 with p10 to p90", write=format_seconds, is_amount=True)
        picture = scatter(
            timed, axis, quality.axis, title=f"{model.name}: {quality.name} over latency", line=quality.line
        )
        caption = element(
            "figcaption", f"{quality.name} over latency", element("span", measured_where(model), css="muted")
        )
        drawn.append(element("figure", caption, picture))
    if not drawn:
        return None
    legend = element("div", (element("span", named(entry)) for entry in model.entries), css="legend")
    return element("div", element("div", drawn, css="plots"), legend)


def _points(
    model: Model,
    quality: _Quality,
    where: Callable[[Entry], tuple[float, tuple[float, float] | None] | None],
    write: Callable[[float], str],
) -> list[Point]:
    points = []
    for entry in model.entries:
        x, y = where(entry), quality.read(entry)
        if x is not None and y is not None:
            points.append(
                Point(
                    label=entry.label,
                    x=x[0],
                    x_range=x[1],
                    y=y[0],
                    y_range=y[1],
                    shape=shape(entry),
                    css=colour(entry),
                    tooltip=f"{entry.label}: {write(x[0])}, {quality.axis.write(y[0])}",
                )
            )
    return points


def _latency(entry: Entry) -> tuple[float, tuple[float, float] | None] | None:
    if entry.benchmark is None:
        return None
    summary = percentiles(entry.benchmark)
    return summary.p50_s, (summary.p10_s, summary.p90_s)


def _metric(model: Model) -> _Quality | None:
    """The first metric that every artifact with labels has; the whisker is the 95 % interval of the difference."""
    found = [d for entry in model.entries for d in entry.artifact.verification.differences]
    if not found:
        return None
    metric, source = found[0].metric, found[0].source

    def read(entry: Entry) -> tuple[float, tuple[float, float] | None] | None:
        difference = difference_of(entry, metric)
        if difference is None:
            return None
        return difference.artifact, (difference.source + difference.low, difference.source + difference.high)

    def write(value: float) -> str:
        return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.4f}"

    return _Quality(
        axis=Axis(title=metric_name(metric), write=write),
        read=read,
        line=(source, f"float model {write(source)}"),
        name=metric_name(metric),
        whisker="whisker: 95 % interval of the paired difference",
    )


def _likeness(model: Model) -> _Quality:
    def read(entry: Entry) -> tuple[float, tuple[float, float] | None] | None:
        found = worst(entry)
        return None if found is None or not found.finite else (min(found.snr_db, MOST_DB), None)

    shortened = any((found := worst(entry)) is not None and found.snr_db > MOST_DB for entry in model.entries)
    return _Quality(
        name="Likeness",
        whisker=f"{MOST_DB:.0f} dB stands for more" if shortened else "",
        axis=Axis(title="SNR against the float model, dB", write=lambda value: f"{value:.3g}"),
        read=read,
    )
