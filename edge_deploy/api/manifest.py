"""The manifest of what a target has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.contracts import Captured, Lowered
from edge_deploy.core.artifact import Artifact
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.toolchain import versions

__all__ = ["manifest_of"]


def manifest_of(
    captured: Captured,
    lowered: Lowered,
    *,
    source: str,
    target: str,
    spec: QuantSpec,
    notes: tuple[str, ...] = (),
    **known: Any,
) -> Artifact:
    """An artifact from what was captured and lowered.

    Args:
        source: As the user named it; of a file the name alone is kept.
        target: Targets are named after their formats.
        notes: Warnings that belong between those of capturing and of lowering.
        known: Further fields of the artifact, e.g. of its calibration.
    """
    fields: dict[str, Any] = {"signatures": lowered.signatures, **known}
    return Artifact(
        name=captured.name,
        format=target,  # type: ignore[arg-type]  # targets are named after their formats
        spec=spec,
        source=source if ":" in source else Path(source).name,
        kind=captured.kind,
        files=lowered.files,
        source_inputs=captured.inputs,
        source_outputs=captured.outputs,
        graph=lowered.graph,
        outcomes=lowered.outcomes,
        toolchain={**versions("edge-deploy", "numpy"), **lowered.toolchain},
        minimum_runtime=lowered.minimum_runtime,
        warnings=(*captured.notes, *notes, *lowered.warnings),
        passes=lowered.passes,
        **fields,
    )
