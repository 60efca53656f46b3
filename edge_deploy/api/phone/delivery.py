"""What must be known before a package goes to people: how large, by which way, on which runtime, what was built."""

from __future__ import annotations

from collections.abc import Sequence

from edge_deploy.api.phone.compile_check import Built
from edge_deploy.core.artifact import Artifact, LayerOutcome
from edge_deploy.core.units import format_bytes

__all__ = ["LARGE_BYTES", "delivery_note"]

LARGE_BYTES = 150_000_000
"""From here on a model should not be part of the first download: both stores ask or refuse at 200 MB in all."""
STORES = {
    "android": (
        "Google Play takes at most 200 MB (compressed) for what is downloaded with the app. Put the model into an "
        "asset pack instead (Play Asset Delivery: install-time for a model that is needed at once, fast-follow or "
        "on-demand for others): move the file from `model/src/main/assets` to the pack's `src/main/assets`. An "
        "install-time pack is read through the same AssetManager, so that the code stays as it is; of the others the "
        "path comes from AssetPackManager.",
        "The model is stored uncompressed (`noCompress`), so that it can be mapped; the download is compressed anyway.",
    ),
    "ios": (
        "Over a mobile network iOS asks before it downloads an app of more than 200 MB. Load the model after the "
        "installation instead (Background Assets, or On-Demand Resources), keep its sha256 from manifest.json, and "
        "give its path to the initializer.",
        "Files of a bundle lie on the device as they are, so that the model can be mapped.",
    ),
}


def delivery_note(artifact: Artifact, platform: str, *, dependency: str, built: Sequence[Built]) -> str:
    """The text of DELIVERY.md."""
    size = artifact.device_bytes
    tables = sorted(
        (each for each in artifact.outcomes if "EMBEDDING" in each.op.upper() or "GATHER" in each.op.upper()),
        key=lambda each: -_bytes(each),
    )
    large, stored = STORES[platform]
    lines = [
        f"# {artifact.name} for {platform}",
        "",
        *(
            f"- {entry.role}: {entry.path}, {format_bytes(entry.bytes)}, sha256 {entry.sha256}"
            for entry in artifact.files
            if entry.role in ("model", "data")
        ),
        f"- precision: {artifact.spec.recipe}",
        f"- runtime: {dependency}",
    ]
    if artifact.minimum_runtime:
        lines.append(f"- computes rightly from {artifact.minimum_runtime} on: check the runtime above against it")
    if platform == "ios" and artifact.format == "tflite":
        lines.append(
            "- the official pod is older than the runtime that this artifact was verified with; where it refuses or "
            "differs, convert for ExecuTorch"
        )
    lines += ["", "## Delivery", "", stored, ""]
    if tables:
        held = sum(map(_bytes, tables))
        lines += [f"{len(tables)} embedding tables take {format_bytes(held)} of it; the largest:", ""]
        lines += [f"- {each.layer}: {format_bytes(_bytes(each))}, {each.got}" for each in tables[:5]]
        lines.append("")
    if size >= LARGE_BYTES:
        lines += [f"{format_bytes(size)} are too much for the first download. {large}", ""]
    else:
        lines += ["The model is small enough to be part of the app.", ""]
    lines += ["## Built here", "", "| part | outcome |", "|---|---|"]
    lines += [f"| {each.part} | {each.outcome} |" for each in built]
    return "\n".join([*lines, ""])


def _bytes(table: LayerOutcome) -> int:
    return table.weight_bytes + table.beside_bytes
