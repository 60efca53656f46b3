"""Pictures and pages of results."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.errors import BadInput
from edge_deploy.report.collect import collect
from edge_deploy.report.model_explorer import write_overlays
from edge_deploy.report.page import page

__all__ = ["write_overlays", "write_report"]


def write_report(folder: Path | str, out: Path | str | None = None) -> Path:
    """Write one self-contained HTML page about the artifacts in `folder`; it appears in one rename.

    Reads every `*/manifest.json`, and where they exist `benchmark.json` and `layers.json` beside it.

    Args:
        out: The page; None for report.html in `folder`.

    Returns:
        The page's path.

    Raises:
        BadInput: The folder holds no artifact, a file in it is damaged, or `out` cannot be written.
    """
    folder = Path(folder)
    out = Path(out) if out is not None else folder / "report.html"
    text = page(collect(folder))
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadInput(f"{out}: the report could not be written ({error.strerror or error}).") from error
    return out
