"""Rows of a bench kept one file each, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["kept", "markdown", "revision"]


def revision() -> str:
    """The commit the checkout stands at, with "+" when files differ from it; "unknown" outside a checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def kept(folder: Path, name: str, make: Callable[[], Any], *, fresh: bool) -> Any:
    """The row that a former run of the same revision left in `folder`, or the one that `make` makes now."""
    file = folder / f"{name}.json"
    now = revision()
    if file.exists() and not fresh:
        row = json.loads(file.read_text(encoding="utf-8"))
        if row["revision"] == now and not now.endswith("+"):
            return row["value"]
    value = make()
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"revision": now, "value": value}, indent=1), encoding="utf-8")
    partial.replace(file)
    return value


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
