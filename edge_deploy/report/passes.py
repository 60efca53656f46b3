"""The passes of a model's artifacts: what each did to the error on held calibration samples, and whether it stayed."""

from __future__ import annotations

from dataclasses import dataclass

from edge_deploy.core.passes import PASSES, PassRecord
from edge_deploy.report.collect import Entry, Model
from edge_deploy.report.look import badge, named
from edge_deploy.report.markup import Child, Markup, element
from edge_deploy.report.tables import Column, table

__all__ = ["passes_section"]

HELP = (
    "Each figure is of the whole quantized model on calibration samples that it was not made from: without the pass, "
    "then with it, the other passes being as the artifact has them. A pass that gains nothing is not applied."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    entry: Entry
    record: PassRecord


def passes_section(model: Model) -> Markup | None:
    """One row for each artifact and pass; None where no artifact tells of any."""
    rows = [_Row(entry=entry, record=record) for entry in model.entries for record in entry.artifact.passes]
    if not rows:
        return None
    columns: list[Column[_Row]] = [
        Column(title="Artifact", cell=lambda r: named(r.entry)),
        Column(title="Pass", cell=_pass),
        Column(
            title="", cell=lambda r: badge("applied", "good") if r.record.applied else badge("not applied", "plain")
        ),
        Column(
            title="SNR", cell=lambda r: _pair(r.record.before_snr_db, r.record.after_snr_db, "{:.1f}"), numeric=True
        ),
        Column(
            title="Same top-1",
            cell=lambda r: _pair(r.record.before_agreement, r.record.after_agreement, "{:.1%}"),
            numeric=True,
        ),
        Column(
            title="Accuracy",
            cell=lambda r: _pair(r.record.before_accuracy, r.record.after_accuracy, "{:.1%}"),
            numeric=True,
        ),
        Column(title="Samples", cell=lambda r: str(r.record.samples) if r.record.samples else None, numeric=True),
        Column(title="What it did", cell=lambda r: r.record.detail or None),
    ]
    return element(
        "div", element("h3", "Passes before and after"), element("p", HELP, css="muted"), table(columns, rows)
    )


def _pass(row: _Row) -> Child:
    name = row.record.name
    return element("span", name, attributes={"title": PASSES.get(name, "")})


def _pair(before: float | None, after: float | None, form: str) -> Child | None:
    return None if before is None or after is None else f"{form.format(before)} -> {form.format(after)}"
