"""A model as ExecuTorch files for a phone's GPU by Vulkan: written, described, and labelled as not run here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from converters.capture import capture
from converters.vulkan import NOT_RUN, lower_vulkan
from edge_deploy.api.manifest import manifest_of
from edge_deploy.api.request import ConvertRequest, folder_name
from edge_deploy.core.artifact import MANIFEST, Artifact, Verification
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import write_json

__all__ = ["convert_vulkan"]


def convert_vulkan(request: ConvertRequest, partial: Path, *, progress: Callable[[str], None]) -> tuple[Artifact, ...]:
    """Write one artifact for each precision into a folder of its own in `partial`.

    Raises:
        BadInput: Options that need the file to be run.
        Unsupported: Vulkan takes no operator of the model.
        ToolchainError: A third-party converter failed.
    """
    if request.max_drop is not None:
        raise BadInput(f"--max-drop: the file for Vulkan is {NOT_RUN}; leave it out, and judge on a phone.")
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        progress(f"capture {request.capture.source}")
        folder = Path(scratch, "captured")
        folder.mkdir()
        captured = capture(request.capture, folder)
        artifacts = []
        for spec in request.specs:
            home = partial / f"{folder_name('executorch', spec)}-vulkan"
            home.mkdir()
            progress(f"executorch: lower to {spec.name} for Vulkan")
            lowered = lower_vulkan(captured, spec.recipe, home)
            artifact = manifest_of(
                captured,
                lowered,
                source=request.capture.source,
                target="executorch",
                spec=spec,
                verification=Verification(notes=(f"{NOT_RUN}; nothing was compared with the float model",)),
            )
            write_json(artifact, home / MANIFEST)
            artifacts.append(artifact)
    return tuple(artifacts)
