"""One number for each layer of an artifact, in the format that Model Explorer lays over a graph ("custom node data").

A file holds the values of one graph by node, and how they are coloured. A node may be named by any of its output
tensors; our layers are called after those, so that an overlay fits the `.tflite` file as it is.
https://github.com/google-ai-edge/model-explorer/wiki/2.-User-Guide
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_deploy.core.errors import BadInput
from edge_deploy.report.collect import Entry, collect

__all__ = ["overlays", "write_overlays"]

# The ends of a scale; the format takes names and hexadecimal colours.
BAD, GOOD = "#d7301f", "#fff7ec"


def write_overlays(folder: Path | str, out: Path | str) -> tuple[Path, ...]:
    """Write ARTIFACT.WHAT.json into `out` for each artifact in `folder` and each thing known of its layers.

    WHAT is "snr-db" (each layer's output against the float model), "weight-bits" or "seconds" (once it was
    benchmarked). Open them in Model Explorer with the artifact's model file.

    Raises:
        BadInput: The folder holds no artifact of a format that Model Explorer opens, or `out` cannot be written.
    """
    folder, out = Path(folder), Path(out)
    entries = [entry for model in collect(folder) for entry in model.entries if entry.artifact.format == "tflite"]
    if not entries:
        raise BadInput(f"{folder}: holds no TFLite artifact; Model Explorer opens neither .pte files nor C.")
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            for what, overlay in overlays(entry).items():
                path = out / f"{entry.folder.replace('/', '.')}.{what}.json"
                path.write_text(json.dumps(overlay, indent=1) + "\n", encoding="utf-8")
                written.append(path)
    except OSError as error:
        raise BadInput(f"{out}: overlays could not be written ({error.strerror or error}).") from error
    return tuple(written)


def overlays(entry: Entry) -> dict[str, dict[str, Any]]:
    """What is known of the layers of one artifact, each as the content of a file."""
    errors = entry.layers.layers if entry.layers else ()
    known: dict[str, tuple[dict[str, float], bool]] = {
        "snr-db": ({error.layer: error.snr_db for error in errors if error.snr_db is not None}, True),
        "weight-bits": ({each.layer: each.weight_bits for each in entry.artifact.outcomes if each.weight_bits}, True),
        "seconds": (dict(entry.benchmark.layer_s) if entry.benchmark else {}, False),
    }
    return {what: _overlay(values, more_is_better=better) for what, (values, better) in known.items() if values}


def _overlay(values: Mapping[str, float], *, more_is_better: bool) -> dict[str, Any]:
    low, high = (BAD, GOOD) if more_is_better else (GOOD, BAD)
    return {
        "results": {layer: {"value": float(value)} for layer, value in values.items()},
        "gradient": [{"stop": 0, "bgColor": low}, {"stop": 1, "bgColor": high}],
    }
