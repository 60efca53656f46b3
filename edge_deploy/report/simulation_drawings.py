"""Drawings of a simulation: link, cut and latency along a trace, and how latencies are distributed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.units import format_seconds
from edge_deploy.report.axes import Scale, scale_for
from edge_deploy.report.markup import Markup, element

__all__ = ["SIMULATION_STYLE", "AlongTrace", "along_trace", "distributions", "legend"]

WIDTH, LEFT, RIGHT = 900.0, 74.0, 12.0
# Told apart with any colour vision (Okabe and Ito); black-ish and grey are for the static cut and the oracle.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7a4fa3", "#8a6100", "#c0392b", "#16a085")
KNOWN = {"static": "var(--ink)", "oracle": "#8c8c8c"}
BINS = 300
SIMULATION_STYLE = """
svg.wide { width: 100%; height: auto; display: block; overflow: visible; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.thin { stroke-width: 1.1; opacity: .85; }
.fill { fill: var(--int8); opacity: .16; stroke: none; }
.load { fill: none; stroke: var(--fair); stroke-width: 1.1; }
.link { fill: none; stroke: var(--int8); stroke-width: 1.2; }
.verdict { font-weight: 600; margin: .75rem 0; font-size: 1.05rem; }
tr.bound td { color: var(--soft); font-style: italic; }
tr.static td { font-weight: 600; }
figure { margin-bottom: .75rem; }
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlongTrace:
    """One trace and what policies did on it.

    Attributes:
        time_s: Start of each entry of the trace, with `uplink_bps` and `edge_load`.
        cuts: Ids in the order of the cut table: from all-cloud to all-edge where they are prefixes.
        decided: By policy: ticks and index of the cut from each on.
        latency: By policy: arrivals and latencies.
    """

    source: str
    end_s: float
    time_s: np.ndarray
    uplink_bps: np.ndarray
    edge_load: np.ndarray
    cuts: tuple[str, ...]
    decided: Mapping[str, tuple[np.ndarray, np.ndarray]]
    latency: Mapping[str, tuple[np.ndarray, np.ndarray]]


def legend(shown: Sequence[str], names: Sequence[str]) -> Markup:
    """Colours of the policies in `shown`; `names`: all of them."""
    keys = [
        element(
            "span", element("span", attributes={"style": f"background:{_colour(names, name)}"}, css="key"), " ", name
        )
        for name in shown
    ]
    return element("div", keys, css="legend")


def along_trace(found: AlongTrace, shown: Sequence[str], names: Sequence[str]) -> Markup:
    """Three panels over one time axis: the link and the load, the cut in force, the latency.

    Args:
        shown: Policies to draw; `names`: all of them, for the colours.
    """
    x = scale_for([0.0, found.end_s], start=LEFT, end=WIDTH - RIGHT, may_be_logarithmic=False, margin=0.0)
    link_high, cut_high, latency_high, gap = 110.0, 150.0, 170.0, 26.0
    tops = (8.0, 8.0 + link_high + gap, 8.0 + link_high + cut_high + 2 * gap)
    bottom = tops[2] + latency_high
    drawn = [
        *_link_panel(found, x, tops[0], link_high),
        *_cut_panel(found, shown, names, x, tops[1], cut_high),
        *_latency_panel(found, shown, names, x, tops[2], latency_high),
    ]
    for tick in x.ticks:
        drawn.append(_line(x(tick), bottom, x(tick), bottom + 4, "axis"))
        drawn.append(_text(x(tick), bottom + 16, f"{tick:g}", "tick", "middle"))
    drawn.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 32, "seconds of the trace", "axis-title", "middle"))
    label = f"link, cut and latency along {found.source}"
    box = {"viewBox": f"0 0 {WIDTH:.0f} {bottom + 38:.0f}", "role": "img", "aria-label": label}
    return element("svg", element("title", label), drawn, attributes=box, css="wide")


def _link_panel(found: AlongTrace, x: Scale, top: float, high: float) -> list[Markup]:
    rates = found.uplink_bps / 1e6
    up = rates[rates > 0]
    low = max(float(np.quantile(up, 0.01)), 1e-4) if len(up) else 0.1
    most = max(float(up.max()), low * 2) if len(up) else 1.0
    y = scale_for([low, most], start=top + high, end=top, may_be_logarithmic=True, margin=0.05)
    drawn = _grid(y, lambda value: f"{value:g}")
    points = _steps(found.time_s, np.maximum(rates, y.low), found.end_s, x, y)
    drawn.append(element("polyline", attributes={"points": points}, css="link"))
    title = "uplink, Mbit/s"
    if found.edge_load.max() > 0:
        share = Scale(low=0.0, high=1.0, start=top + high, end=top, logarithmic=False, ticks=())
        points = _steps(found.time_s, found.edge_load, found.end_s, x, share)
        drawn.append(element("polyline", attributes={"points": points}, css="load"))
        title += " (blue); load of the edge, 0 to 1 (brown)"
    drawn.append(_text(LEFT, top - 1, title, "axis-title", "start"))
    return drawn


def _cut_panel(
    found: AlongTrace, shown: Sequence[str], names: Sequence[str], x: Scale, top: float, high: float
) -> list[Markup]:
    """Only the cuts that someone used get a row."""
    used = sorted({int(cut) for name in shown for cut in np.unique(found.decided[name][1])})
    place = np.zeros(len(found.cuts))
    place[used] = np.arange(len(used))
    y = Scale(
        low=-0.5,
        high=max(len(used) - 0.5, 0.5),
        start=top + high,
        end=top,
        logarithmic=False,
        ticks=tuple(range(len(used))),
    )
    skip = max(1, len(used) // 10)
    drawn = _grid(y, lambda value: found.cuts[used[int(value)]] if int(value) % skip == 0 else "")
    for number, name in enumerate(shown):
        ticks, decided = found.decided[name]
        # Beside each other, not on top.
        offset = (number - (len(shown) - 1) / 2) * 0.09
        points = _steps(ticks, place[decided] + offset, found.end_s, x, y)
        style = {"points": points, "style": f"stroke:{_colour(names, name)}"}
        drawn.append(element("polyline", element("title", name), attributes=style, css="line thin"))
    drawn.append(_text(LEFT, top - 6, "cut in force", "axis-title", "start"))
    return drawn


def _latency_panel(
    found: AlongTrace, shown: Sequence[str], names: Sequence[str], x: Scale, top: float, high: float
) -> list[Markup]:
    lines = {name: _binned(*found.latency[name], found.end_s) for name in shown}
    values = [value for _, means in lines.values() for value in means.tolist() if np.isfinite(value)] or [1.0]
    y = scale_for(values, start=top + high, end=top, may_be_logarithmic=True, margin=0.05)
    drawn = _grid(y, format_seconds)
    for name in shown:
        moments, means = lines[name]
        shown_means = np.where(np.isfinite(means), means, y.high)
        points = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in zip(moments.tolist(), shown_means.tolist(), strict=True))
        style = {"points": points, "style": f"stroke:{_colour(names, name)}"}
        drawn.append(element("polyline", element("title", name), attributes=style, css="line thin"))
    drawn.append(_text(LEFT, top - 6, "latency, mean of neighbouring requests", "axis-title", "start"))
    return drawn


def _binned(arrival_s: np.ndarray, latency_s: np.ndarray, end_s: float) -> tuple[np.ndarray, np.ndarray]:
    bins = np.minimum((arrival_s / end_s * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    total = np.bincount(bins, weights=latency_s, minlength=BINS)
    some = count > 0
    return (np.arange(BINS)[some] + 0.5) * end_s / BINS, total[some] / count[some]


def distributions(
    found: Mapping[str, tuple[Sequence[float], Sequence[float]]], shown: Sequence[str], names: Sequence[str]
) -> Markup:
    """Share of requests that take no longer, over latency."""
    top, high = 10.0, 250.0
    values = [value for name in shown for value in found[name][0]]
    x = scale_for(values or [1.0], start=LEFT, end=WIDTH - RIGHT, may_be_logarithmic=True, margin=0.03)
    y = Scale(low=0.0, high=1.0, start=top + high, end=top, logarithmic=False, ticks=(0.0, 0.25, 0.5, 0.75, 0.95, 1.0))
    drawn = _grid(y, lambda value: f"{value:.0%}")
    for tick in x.ticks:
        drawn.append(_line(x(tick), top, x(tick), top + high, "grid"))
        drawn.append(_text(x(tick), top + high + 16, format_seconds(tick), "tick", "middle"))
    for name in shown:
        latency, share = found[name]
        points = " ".join(f"{x(v):.1f},{y(s):.1f}" for v, s in zip(latency, share, strict=True))
        style = {"points": points, "style": f"stroke:{_colour(names, name)}"}
        drawn.append(element("polyline", element("title", name), attributes=style, css="line"))
    drawn.append(_text((LEFT + WIDTH - RIGHT) / 2, top + high + 34, "latency of a request", "axis-title", "middle"))
    label = "share of requests over latency"
    box = {"viewBox": f"0 0 {WIDTH:.0f} {top + high + 40:.0f}", "role": "img", "aria-label": label}
    return element("svg", element("title", label), drawn, attributes=box, css="wide")


def _steps(times: np.ndarray, values: np.ndarray, end_s: float, x: Scale, y: Scale) -> str:
    """A line that keeps each value until the next; values that do not change take no points."""
    changed = np.concatenate(([True], np.diff(values) != 0))
    times, values = times[changed], values[changed]
    if len(times) > 4 * BINS:  # finer than the page can show
        keep = np.linspace(0, len(times) - 1, 4 * BINS).astype(np.int64)
        times, values = times[keep], values[keep]
    ends = np.append(times[1:], end_s)
    parts = []
    for begin, end, value in zip(times.tolist(), ends.tolist(), values.tolist(), strict=True):
        at = f"{y(value):.1f}"
        parts.append(f"{x(begin):.1f},{at} {x(end):.1f},{at}")
    return " ".join(parts)


def _grid(y: Scale, write: Callable[[float], str]) -> list[Markup]:
    drawn = []
    for tick in y.ticks:
        drawn.append(_line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid"))
        drawn.append(_text(LEFT - 6, y(tick) + 4, write(tick), "tick", "end"))
    return drawn


def _colour(names: Sequence[str], name: str) -> str:
    others = [other for other in names if other not in KNOWN]
    return KNOWN.get(name) or COLOURS[others.index(name) % len(COLOURS)]


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return element("line", attributes={"x1": x1, "y1": y1, "x2": x2, "y2": y2}, css=css)


def _text(x: float, y: float, text: str, css: str, anchor: str) -> Markup:
    return element("text", text, attributes={"x": x, "y": y, "text-anchor": anchor}, css=css)
