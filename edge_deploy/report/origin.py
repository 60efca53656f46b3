"""How a model's artifacts were made: source, inputs, calibration, tools, files with checksums, warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_deploy.core.tensor import TensorInfo
from edge_deploy.core.units import format_bytes
from edge_deploy.report.collect import Entry, Model
from edge_deploy.report.markup import Child, Markup, element
from edge_deploy.report.tables import facts

__all__ = ["model_facts", "origin_section", "warnings_section"]


def model_facts(model: Model) -> Markup:
    """What the model takes, gives and costs."""
    artifact = model.entries[0].artifact
    pairs: list[tuple[str, Child]] = [
        ("source", model.source),
        ("kind", artifact.kind),
        ("inputs", "; ".join(_tensor(info) for info in artifact.source_inputs)),
        ("outputs", "; ".join(_tensor(info) for info in artifact.source_outputs)),
    ]
    if artifact.graph.layers:
        pairs.append(("layers", f"{len(artifact.graph.layers)} in {artifact.format}"))
    if artifact.graph.macs:
        pairs.append(("multiply-accumulates", f"{artifact.graph.macs / 1e6:.3g} million for one inference"))
    return facts(pairs)


def warnings_section(model: Model) -> Markup | None:
    """Warnings and notes of all artifacts, each once; None where there are none."""
    texts: dict[str, list[str]] = {}
    for entry in model.entries:
        for text in (*entry.artifact.warnings, *entry.artifact.verification.notes):
            texts.setdefault(text, []).append(entry.label)
    if not texts:
        return None
    items = [
        element("li", text, " ", element("span", f"({', '.join(who)})", css="muted")) for text, who in texts.items()
    ]
    return element("div", element("h3", "Warnings and notes"), element("ul", items))


def origin_section(model: Model) -> Markup:
    """Tools, data and files."""
    entries = model.entries
    pairs: list[tuple[str, Child]] = [
        ("tools", _shared(entries, lambda e: [f"{name} {v}" for name, v in sorted(e.artifact.toolchain.items())])),
        ("calibration", _shared(entries, _calibration)),
        ("evaluation", _shared(entries, _evaluation)),
        (
            "minimum runtime",
            _shared(entries, lambda e: [e.artifact.minimum_runtime] if e.artifact.minimum_runtime else []),
        ),
    ]
    files = [
        (f"{entry.folder}/{file.path}", [format_bytes(file.bytes), " ", element("code", f"sha256 {file.sha256}")])
        for entry in entries
        for file in entry.artifact.files
    ]
    return element(
        "div",
        element("h3", "How it was made"),
        facts([(name, value) for name, value in pairs if value]),
        element("details", element("summary", "Files and checksums"), facts(files)),
    )


def _shared(entries: Iterable[Entry], read: Callable[[Entry], list[str]]) -> Child:
    """Each text once, with the artifacts it holds for where it does not hold for all."""
    texts: dict[str, list[str]] = {}
    entries = tuple(entries)
    for entry in entries:
        for text in read(entry):
            texts.setdefault(text, []).append(entry.label)
    parts: list[Child] = []
    for text, labels in texts.items():
        if parts:
            parts.append(", ")
        parts.append(text)
        if len(labels) < len(entries):
            parts.append(element("span", f" ({', '.join(labels)})", css="muted"))
    return parts


def _calibration(entry: Entry) -> list[str]:
    artifact = entry.artifact
    if not artifact.calibration_digest:
        return []
    return [f"{artifact.calibration_samples} samples, sha256 {artifact.calibration_digest}"]


def _evaluation(entry: Entry) -> list[str]:
    digest = entry.artifact.verification.evaluation_digest
    return [f"sha256 {digest}"] if digest else []


def _tensor(info: TensorInfo) -> str:
    shape = " × ".join("?" if size < 0 else str(size) for size in info.shape)
    layout = f", {info.layout}" if info.layout else ""
    return f"{info.name}: {info.dtype} {shape}{layout}"
