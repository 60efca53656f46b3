"""Build HTML and SVG from elements: every text is escaped, so that no name of a layer can become code."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TypeAlias

__all__ = ["Child", "Markup", "element", "join", "plain"]

VOID = {"br", "hr", "meta", "link", "img"}


class Markup(str):
    """Text that is HTML already; made by `element` and `join` only."""

    __slots__ = ()


Child: TypeAlias = "Markup | str | Iterable[Child]"


def element(tag: str, *children: Child, attributes: Mapping[str, object] | None = None, css: str = "") -> Markup:
    """One element; children that are not Markup are escaped.

    Args:
        css: Its class.
    """
    own = {**({"class": css} if css else {}), **(attributes or {})}
    written = "".join(f' {name}="{plain(_number(value))}"' for name, value in own.items() if value is not None)
    if tag in VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(plain(child))
        else:
            parts.append(str(join(child)))
    return Markup("".join(parts))


def plain(text: str) -> str:
    """Text as HTML shows it; characters that would be invisible or turn the writing direction become �."""
    visible = "".join("�" if unicodedata.category(letter) in ("Cc", "Cf", "Cs") else letter for letter in text)
    return html.escape(visible, quote=True)


def _number(value: object) -> str:
    """Coordinates with two decimals: pages stay small and equal on every machine."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
