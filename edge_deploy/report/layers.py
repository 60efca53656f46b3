"""What every layer of an artifact became, how far it is from the float model, and how its weights look."""

from __future__ import annotations

from dataclasses import dataclass

from edge_deploy.core.artifact import LayerOutcome
from edge_deploy.core.layer_errors import LayerError
from edge_deploy.core.units import format_bytes
from edge_deploy.report.bars import bar, histogram
from edge_deploy.report.collect import Entry
from edge_deploy.report.look import colour, named
from edge_deploy.report.markup import Child, Markup, element
from edge_deploy.report.tables import Column, table

__all__ = ["layer_table", "weight_histograms"]

# What is short enough to look at without asking for it.
OPEN_UP_TO_CHARTS = 14
# One scale for all artifacts, so that bars of different precisions can be compared.
FULL_BAR_DB = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    outcome: LayerOutcome
    error: LayerError | None


def layer_table(entry: Entry) -> Markup:
    """Asked and got of every layer with weights, with its error where that was measured."""
    errors = {error.layer: error for error in entry.layers.layers} if entry.layers else {}
    outcomes = entry.artifact.outcomes
    rows = [_Row(outcome=outcome, error=errors.get(outcome.layer)) for outcome in outcomes]
    columns: list[Column[_Row]] = [
        Column(title="Layer", cell=lambda r: r.outcome.layer),
        Column(title="Operator", cell=lambda r: r.outcome.op),
        Column(title="Asked", cell=lambda r: r.outcome.asked),
        Column(title="Got", cell=lambda r: r.outcome.got),
        Column(title="Reason", cell=lambda r: r.outcome.reason or None),
        Column(title="Bits per weight", cell=lambda r: _bits(r.outcome), numeric=True),
        Column(title="Weights", cell=lambda r: _bytes(r.outcome), numeric=True),
        Column(title="Runs on", cell=lambda r: r.outcome.runs_on),
        Column(title="Output SNR", cell=lambda r: _snr(entry, r.error.snr_db if r.error else None)),
        Column(title="Weight SNR", cell=lambda r: _decibels(r.error.weight_snr_db if r.error else None), numeric=True),
    ]
    changed = sum(not outcome.is_as_asked for outcome in outcomes)
    count = f"{len(outcomes)} layers with weights"
    verdict = f"{count}, all as asked" if not changed else f"{changed} of {count} not as asked"
    method = entry.layers.method if entry.layers else ""
    content = [
        element("summary", named(entry), " ", element("span", f"{verdict}", css="fair" if changed else "muted")),
        element("p", f"Output SNR: {method}", css="muted") if method else "",
        table(columns, rows, css="layers", row_css=lambda r: "" if r.outcome.is_as_asked else "changed"),
    ]
    return element("details", content, attributes={"open": "" if changed else None})


def weight_histograms(entry: Entry) -> Markup | None:
    """A small chart for each layer whose weights were counted; None where none were."""
    counted = [error for error in (entry.layers.layers if entry.layers else ()) if error.weights]
    if not counted:
        return None
    charts = [
        histogram(error.layer, error.weights, note=_decibels(error.weight_snr_db) or "", css=colour(entry))
        for error in counted
        if error.weights
    ]
    summary = element("summary", named(entry), " ", element("span", f"{len(charts)} layers", css="muted"))
    is_open = len(charts) <= OPEN_UP_TO_CHARTS
    return element(
        "details", summary, element("div", charts, css="weights"), attributes={"open": "" if is_open else None}
    )


def _bits(outcome: LayerOutcome) -> Child | None:
    return f"{outcome.weight_bits:.2f}".rstrip("0").rstrip(".") if outcome.weight_bits else None


def _bytes(outcome: LayerOutcome) -> Child | None:
    if not outcome.weight_bytes:
        return None
    beside = f" + {format_bytes(outcome.beside_bytes)} beside" if outcome.beside_bytes else ""
    return format_bytes(outcome.weight_bytes) + beside


def _snr(entry: Entry, snr_db: float | None) -> Child | None:
    return None if snr_db is None else bar(snr_db / FULL_BAR_DB, f"{snr_db:.1f} dB", css=colour(entry))


def _decibels(snr_db: float | None) -> str | None:
    return None if snr_db is None else f"{snr_db:.1f} dB"
