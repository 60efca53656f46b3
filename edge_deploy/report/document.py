"""The frame of a page: no network, no scripts, one style sheet."""

from __future__ import annotations

from edge_deploy.core.toolchain import versions
from edge_deploy.report.markup import Child, Markup, element
from edge_deploy.report.style import STYLE

__all__ = ["POLICY", "document"]

# The page loads nothing and runs nothing, and says so to the browser.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, lead: str, *body: Child, style: str = "") -> str:
    """The whole HTML text.

    Args:
        lead: A sentence under the title.
        style: Further rules, ours alone: they are not escaped.
    """
    version = versions("edge-deploy").get("edge-deploy", "from a checkout")
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("title", f"{title} - edge-deploy"),
        element("style", Markup(STYLE + style)),
    )
    written = element("p", f"{lead} Written by edge-deploy {version}.", css="lead")
    content = element("body", element("h1", title), written, body)
    return "<!DOCTYPE html>\n" + element("html", head, content, attributes={"lang": "en"}) + "\n"
