"""Put one page together: no network, no scripts, readable on light and dark screens and on paper."""

from __future__ import annotations

from edge_deploy.core.toolchain import versions
from edge_deploy.report.artifacts import artifact_table
from edge_deploy.report.collect import Model
from edge_deploy.report.counts import counts_section
from edge_deploy.report.latency import latency_section
from edge_deploy.report.layers import layer_table, weight_histograms
from edge_deploy.report.markup import Markup, element, join
from edge_deploy.report.origin import model_facts, origin_section, warnings_section
from edge_deploy.report.passes import passes_section
from edge_deploy.report.plots import plots
from edge_deploy.report.style import STYLE

__all__ = ["page"]

# The page loads nothing and runs nothing, and says so to the browser.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(models: tuple[Model, ...]) -> str:
    """The whole HTML text."""
    title = ", ".join(model.name for model in models)
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("title", f"{title} - edge-deploy report"),
        element("style", Markup(STYLE)),
    )
    count = sum(len(model.entries) for model in models)
    version = versions("edge-deploy").get("edge-deploy", "from a checkout")
    lead = f"{_count(len(models), 'model')}, {_count(count, 'artifact')}. Written by edge-deploy {version}."
    links = [
        element("a", model.name, attributes={"href": f"#model-{number}"})
        for number, model in enumerate(models, start=1)
    ]
    body = element(
        "body",
        element("h1", "Conversion report"),
        element("p", lead, css="lead"),
        element("nav", links) if len(models) > 1 else "",
        (_model(model, number) for number, model in enumerate(models, start=1)),
    )
    return "<!DOCTYPE html>\n" + element("html", head, body, attributes={"lang": "en"}) + "\n"


def _model(model: Model, number: int) -> Markup:
    histograms = [drawn for entry in model.entries if (drawn := weight_histograms(entry)) is not None]
    return element(
        "section",
        element("h2", model.name),
        model_facts(model),
        element("h3", "Artifacts"),
        artifact_table(model),
        element("p", _reading_help(model), css="muted"),
        plots(model) or "",
        warnings_section(model) or "",
        passes_section(model) or "",
        element("h3", "What the layers became"),
        (layer_table(entry) for entry in model.entries),
        _weights(histograms),
        latency_section(model) or "",
        counts_section(model) or "",
        origin_section(model),
        attributes={"id": f"model-{number}"},
    )


def _weights(histograms: list[Markup]) -> Markup:
    if not histograms:
        return join([])
    key = element(
        "p",
        element(
            "span", "Grey area: float weights. Coloured sticks: the same weights after quantization, in the same bins."
        ),
        " Each is scaled to its own highest bin.",
        css="muted",
    )
    return join([element("h3", "Weights before and after"), key, histograms])


def _reading_help(model: Model) -> str:
    parts = ["Likeness is that of the worst run over thread counts, on the same inputs."]
    if any(entry.artifact.verification.differences for entry in model.entries):
        parts.append("Below a metric: its paired difference from the float model with the 95 % interval.")
    if any(entry.benchmark for entry in model.entries):
        parts.append("Below a latency: p10 to p90; below its ratio: the 95 % interval of the paired median ratio.")
    return " ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
