"""How an artifact looks wherever it appears on the page: its marker, its colour, its name."""

from __future__ import annotations

from edge_deploy.report.collect import Entry
from edge_deploy.report.markup import Markup, element
from edge_deploy.report.scatter import marker

__all__ = ["badge", "colour", "named", "shape"]

SHAPES = {"tflite": "circle", "executorch": "square"}


def shape(entry: Entry) -> str:
    """Marker by format."""
    return SHAPES.get(entry.artifact.format, "diamond")


def colour(entry: Entry) -> str:
    """Colour class by precision."""
    return f"p-{entry.artifact.spec.recipe}"


def named(entry: Entry) -> Markup:
    """The artifact's marker and label."""
    icon = element(
        "svg",
        marker(shape(entry), f"marker {colour(entry)}", 7.0, 7.0, size=5.0),
        attributes={"width": 14, "height": 14, "aria-hidden": "true"},
        css="icon",
    )
    return element("span", icon, " ", entry.label, css="named")


def badge(text: str, kind: str) -> Markup:
    """A short word in a box; `kind` is good, fair, bad or plain."""
    return element("span", text, css=f"badge {kind}")
