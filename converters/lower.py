"""Lower one captured model with one target in a child process, where a crash of its toolchain stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from converters.contracts import Lowered, LowerRequest
from edge_deploy.core import registry
from edge_deploy.core.artifact import FileEntry
from edge_deploy.core.child import run_in_child
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.layer_errors import LAYERS
from edge_deploy.core.serde import from_json, write_json

__all__ = ["lower"]


def lower(target: str, request: LowerRequest) -> Lowered:
    """Write the files of `request` with the target of this name, e.g. "tflite".

    Raises:
        BadInput: No such target, or the model's weights or calibration data are unusable.
        Unsupported: Layers that cannot become what was asked.
        ToolchainError: A third-party converter failed.
    """
    stage = f"lowering of {request.captured.name} to {target} {request.spec.recipe}"
    answer = run_in_child("converters.lower:lower_here", {"target": target, "request": request}, stage=stage)
    return from_json(Lowered, answer, where=stage)


def lower_here(target: str, request: Any) -> Lowered:
    """The child's part of `lower`; also leaves `layers.json` where the target can tell each layer's error."""
    module = registry.load("converters.targets", target)
    wanted = from_json(LowerRequest, request, where="request")
    lowered: Lowered = module.lower(wanted)
    if not wanted.spec.is_float and hasattr(module, "layer_errors"):
        path = wanted.folder / LAYERS
        write_json(module.layer_errors(wanted), path)
        entry = FileEntry(path=LAYERS, role="other", bytes=path.stat().st_size, sha256=file_sha256(path))
        return replace(lowered, files=(*lowered.files, entry))
    return lowered
