"""The page of the debugger: the cause, errors along the layers, figures of every layer, what would help, the proof."""

from __future__ import annotations

from collections.abc import Sequence

from converters.debugger.finding import Diagnosis, Fix, LayerDiagnosis, Likeness, Proof, WhatIf
from edge_deploy.core.units import format_bytes
from edge_deploy.report.bars import bar
from edge_deploy.report.debug_picture import errors_picture
from edge_deploy.report.document import document
from edge_deploy.report.markup import Child, Markup, element
from edge_deploy.report.tables import Column, facts, table

__all__ = ["debug_page", "told_likeness"]


def debug_page(diagnosis: Diagnosis, *, fix: Fix | None, proofs: Sequence[Proof]) -> str:
    """The whole HTML text."""
    title = f"{diagnosis.artifact} {diagnosis.format} {diagnosis.recipe}"
    ranked = sorted(diagnosis.layers, key=lambda layer: -layer.noise_share)
    numbers = {layer.layer: number for number, layer in enumerate(diagnosis.layers)}
    return document(
        f"{title} - edge-deploy debug",
        element("h1", f"{title}: where the error comes from"),
        element("p", element("strong", "Cause: "), diagnosis.cause.text, css="lead"),
        _fix(fix),
        facts(_facts(diagnosis)),
        (element("p", f"Note: {note}", css="fair") for note in diagnosis.notes),
        element("h2", "Along the layers"),
        element(
            "figure",
            errors_picture(diagnosis.layers),
            element(
                "figcaption",
                "Bars: each layer by itself, on the float model's values; orange where values are clipped. Line: the "
                "same place in the artifact, with all errors before it. Higher is better.",
                css="muted",
            ),
        ),
        element("h2", "Proven") if proofs else "",
        _proven(proofs) if proofs else "",
        element("h2", "Layers by their part of the error"),
        element(
            "p",
            "Part: squared error of the answer if only this layer were as in the artifact, over the sum of all. "
            "What-ifs are estimates: SNR and score of the answer with the errors of all other layers as they are.",
            css="muted",
        ),
        _layers(ranked, numbers),
    )


def _fix(fix: Fix | None) -> Markup:
    if fix is None:
        return element("p", "No change of a single layer is expected to help.")
    return element(
        "p", element("strong", f"What helps most: {fix.text}. "), element("br"), element("code", fix.command)
    )


def _facts(diagnosis: Diagnosis) -> list[tuple[str, Child]]:
    score = diagnosis.float_score
    pairs: list[tuple[str, Child]] = [
        ("samples", str(diagnosis.samples)),
        ("the artifact, measured", told_likeness(diagnosis.measured, diagnosis.metric)),
        ("estimated from its layers", told_likeness(diagnosis.estimated, diagnosis.metric)),
        ("compared by", diagnosis.method),
    ]
    if score is not None:
        pairs.insert(1, (f"float {diagnosis.metric}", f"{score:.4f}"))
    return pairs


def told_likeness(found: Likeness, metric: str) -> str:
    """SNR, agreement and score in one line."""
    parts = ["identical" if found.snr_db >= 999 else f"{found.snr_db:.1f} dB"]
    parts += [f"agreement {found.top1_agreement:.1%}"] if found.top1_agreement is not None else []
    parts += [f"{metric} {found.score:.4f}"] if found.score is not None else []
    return ", ".join(parts)


def _proven(proofs: Sequence[Proof]) -> Markup:
    columns: list[Column[Proof]] = [
        Column(title="Change", cell=lambda p: p.change),
        Column(title="Estimated", cell=lambda p: None if p.estimated is None else told_likeness(p.estimated, "score")),
        Column(title="Before", cell=lambda p: told_likeness(p.before, "score")),
        Column(title="After, measured", cell=lambda p: told_likeness(p.after, "score")),
        Column(title="Bytes before", cell=lambda p: format_bytes(p.bytes_before), numeric=True),
        Column(title="Bytes after", cell=lambda p: format_bytes(p.device_bytes), numeric=True),
        Column(title="Samples", cell=lambda p: str(p.samples), numeric=True),
    ]
    return table(columns, list(proofs))


def _layers(ranked: Sequence[LayerDiagnosis], numbers: dict[str, int]) -> Markup:
    columns: list[Column[LayerDiagnosis]] = [
        Column(title="Layer", cell=lambda r: r.layer),
        Column(title="No.", cell=lambda r: str(numbers[r.layer]), numeric=True),
        Column(title="Operator", cell=lambda r: r.op),
        Column(title="Became", cell=lambda r: r.got or r.dtype),
        Column(title="Bits", cell=lambda r: f"{r.weight_bits:.3g}" if r.weight_bits else None, numeric=True),
        Column(title="Part of the error", cell=lambda r: bar(r.noise_share, f"{r.noise_share:.1%}")),
        Column(title="Own SNR", cell=lambda r: _decibels(r.own_snr_db), numeric=True),
        Column(title="Own MSE", cell=lambda r: None if r.own_mse is None else f"{r.own_mse:.3g}", numeric=True),
        Column(title="SNR in the artifact", cell=lambda r: _decibels(r.snr_db), numeric=True),
        Column(title="Float values", cell=lambda r: f"{r.low:.4g} to {r.high:.4g}"),
        Column(
            title="Range stored",
            cell=lambda r: None if r.stored_low is None else f"{r.stored_low:.4g} to {r.stored_high:.4g}",
        ),
        Column(title="Clipped", cell=lambda r: f"{r.clipped:.2%}" if r.clipped else None, numeric=True),
        Column(title="At INT8", cell=lambda r: _what_if(r.what_if, "int8"), group="Answer, estimated"),
        Column(title="In float", cell=lambda r: _what_if(r.what_if, "float32"), group="Answer, estimated"),
    ]
    return table(columns, list(ranked), css="layers", row_css=lambda r: "changed" if r.clipped > 0.01 else "")


def _decibels(value: float | None) -> str | None:
    if value is None:
        return None
    return "exact" if value >= 150 else f"{value:.1f} dB"


def _what_if(found: Sequence[WhatIf], precision: str) -> str | None:
    likeness = next((each.likeness for each in found if each.precision == precision), None)
    if likeness is None:
        return None
    score = "" if likeness.score is None else f", {likeness.score:.4f}"
    return f"{_decibels(likeness.snr_db)}{score}"
