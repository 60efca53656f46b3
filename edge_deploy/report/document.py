"""The shell of every page: no network, no scripts, one style sheet."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.errors import BadInput
from edge_deploy.report.markup import Child, Markup, element
from edge_deploy.report.style import STYLE

__all__ = ["document", "write_page"]

# The page loads nothing and runs nothing, and says so to the browser.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, *body: Child, style: str = "") -> str:
    """The whole HTML text.

    Args:
        style: Rules for this page, after the common style sheet.
    """
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("title", title),
        element("style", Markup(STYLE + style)),
    )
    return "<!DOCTYPE html>\n" + element("html", head, element("body", *body), attributes={"lang": "en"}) + "\n"


def write_page(text: str, out: Path) -> Path:
    """Write the page; it appears in one rename.

    Raises:
        BadInput: It cannot be written.
    """
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadInput(f"{out}: the page could not be written ({error.strerror or error}).") from error
    return out
