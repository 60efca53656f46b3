"""The page of a search: size against loss of every converted point, what was chosen and how it was confirmed."""

from __future__ import annotations

from collections import Counter

from converters.search.finding import UNIFORM, SearchPoint, SearchReport
from edge_deploy.core.artifact import PairedDifference
from edge_deploy.core.units import format_bytes, format_seconds
from edge_deploy.report.document import document
from edge_deploy.report.markup import Child, Markup, element
from edge_deploy.report.scatter import Axis, Point, scatter
from edge_deploy.report.tables import Column, facts, table

__all__ = ["search_page", "told_bits", "told_difference"]

SMALLEST_SHOWN = 1e-12


def search_page(report: SearchReport) -> str:
    """The whole HTML text."""
    best = "smallest" if report.aim == "size" else "fastest"
    title = f"{report.model} {report.target}: {best} within {report.max_drop:g}"
    made = [point for point in report.points if point.difference is not None]
    return document(
        f"{title} - edge-deploy search",
        element("h1", title),
        element(
            "p",
            element("strong", f"{report.verdict}: "),
            report.chosen or "no point stays within the limit",
            css="lead",
        ),
        element("p", element("code", report.command)) if report.command else "",
        facts(_facts(report)),
        element("h2", "Points"),
        _picture(report, made) if made else "",
        element(
            "p",
            f"Every marker is a converted artifact, evaluated on {report.search_samples} samples; whiskers are 95 % "
            "intervals of the paired difference. Diamonds are the points that no other beats.",
            css="muted",
        ),
        _points(report),
        (element("p", note, css="muted") for note in report.notes),
        element("h2", "Widths of the chosen point") if report.chosen else "",
        _widths(report),
    )


def _facts(report: SearchReport) -> list[tuple[str, Child]]:
    pairs: list[tuple[str, Child]] = []
    if report.confirmation is not None:
        pairs.append(
            (
                f"{report.metric} on {report.confirm_samples} samples that the search did not use",
                told_difference(report.confirmation),
            )
        )
    pairs.append(("expected noise against measured, rank correlation", _rank(report.noise_rank, report.ranked)))
    pairs.append(
        (
            f"expected noise against the drop of {report.metric}, rank correlation",
            _rank(report.drop_rank, report.ranked),
        )
    )
    pairs.append(("cost", report.cost_unit))
    return pairs


def _rank(value: float | None, points: int) -> str:
    return "cannot be told (too few points, or all alike)" if value is None else f"{value:+.2f} over {points} points"


def told_difference(found: PairedDifference) -> str:
    """A paired difference in one line."""
    interval = f"95 % {found.low:+.4f} to {found.high:+.4f}"
    return f"{found.source:.4f} -> {found.artifact:.4f} ({found.difference:+.4f}, {interval})"


def told_bits(point: SearchPoint) -> str:
    """How many layers have each width."""
    counts = Counter(point.bits.values())
    return ", ".join(f"{counts[bits]} x {bits}" for bits in sorted(counts))


def _picture(report: SearchReport, made: list[SearchPoint]) -> Markup:
    points = []
    for point in made:
        found = point.difference
        assert found is not None, "the caller asks for evaluated points only"
        style = "p-int4" if point.name == report.chosen else "p-float32" if point.is_uniform else "p-int8"
        label = "chosen" if point.name == report.chosen else point.name.removeprefix(UNIFORM)
        points.append(
            Point(
                label=label if not label.startswith("mix-") else "",
                x=max(_size(report, point), SMALLEST_SHOWN),
                y=found.difference,
                shape="diamond" if point.name in report.front else "circle",
                css=style,
                y_range=(found.low, found.high),
                tooltip=f"{point.name}: {told_bits(point)}; {told_difference(found)}; {point.snr_db:.1f} dB",
            )
        )
    write = format_bytes if report.aim == "size" else format_seconds
    x = Axis(
        title="size on the device" if report.aim == "size" else "time of a call on this host",
        write=lambda v: write(v),
        is_amount=True,
    )
    y = Axis(title=f"{report.metric}, artifact less float", write=lambda v: f"{v:+.3f}")
    return element(
        "div",
        element(
            "figure", scatter(points, x, y, title="points", line=(-report.max_drop, f"limit -{report.max_drop:g}"))
        ),
        css="plots",
    )


def _size(report: SearchReport, point: SearchPoint) -> float:
    return float(point.device_bytes) if report.aim == "size" or point.seconds is None else point.seconds


def _points(report: SearchReport) -> Markup:
    columns: list[Column[SearchPoint]] = [
        Column(title="Point", cell=lambda p: p.name + (" (chosen)" if p.name == report.chosen else "")),
        Column(title="Layers x bits", cell=told_bits),
        Column(title="Size", cell=lambda p: format_bytes(p.device_bytes) if p.device_bytes else None, numeric=True),
        Column(
            title="Layers with weights, expected",
            cell=lambda p: format_seconds(p.cost) if report.aim == "speed" and not p.failure else None,
            numeric=True,
        ),
        Column(title="Call", cell=lambda p: None if p.seconds is None else format_seconds(p.seconds), numeric=True),
        Column(title="SNR", cell=lambda p: f"{p.snr_db:.1f} dB" if p.difference is not None else None, numeric=True),
        Column(title=report.metric, cell=lambda p: None if p.difference is None else told_difference(p.difference)),
        Column(title="On the front", cell=lambda p: "yes" if p.name in report.front else None),
        Column(title="Failure", cell=lambda p: p.failure or None),
    ]
    return table(columns, list(report.points), row_css=lambda p: "changed" if p.name == report.chosen else "")


def _widths(report: SearchReport) -> Markup:
    chosen = next((point for point in report.points if point.name == report.chosen), None)
    if chosen is None:
        return element("p", "")
    columns: list[Column[tuple[str, int]]] = [
        Column(title="Layer", cell=lambda r: r[0]),
        Column(title="Bits", cell=lambda r: str(r[1]), numeric=True),
    ]
    return table(columns, list(chosen.bits.items()), css="layers")
