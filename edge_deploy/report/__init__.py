"""Pictures and pages of results."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.errors import BadInput
from edge_deploy.report.collect import collect
from edge_deploy.report.page import page

__all__ = ["write_report"]


def write_report(folder: Path, out: Path) -> None:
    """Write one self-contained HTML page about the artifacts in `folder`; it appears in one rename.

    Reads every `*/manifest.json`, and where they exist `benchmark.json` and `layers.json` beside it.

    Raises:
        BadInput: The folder holds no artifact, a file in it is damaged, or `out` cannot be written.
    """
    text = page(collect(folder))
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadInput(f"{out}: the report could not be written ({error.strerror or error}).") from error
