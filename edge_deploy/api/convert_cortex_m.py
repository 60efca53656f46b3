"""A model as an ExecuTorch file for a Cortex-M core: written, described, and labelled as not run here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from converters.capture import capture
from converters.cortex_m import NOT_RUN, lower_cortex_m
from converters.samples import spool
from edge_deploy.api.manifest import manifest_of
from edge_deploy.api.request import ConvertRequest, folder_name
from edge_deploy.core.artifact import MANIFEST, Artifact, Verification
from edge_deploy.core.dataset import check_samples, dataset_digest
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.serde import write_json

__all__ = ["convert_cortex_m"]


def convert_cortex_m(
    request: ConvertRequest, partial: Path, *, progress: Callable[[str], None]
) -> tuple[Artifact, ...]:
    """Write one artifact into a folder of its own in `partial`.

    Raises:
        BadInput: Options that need the file to be run, or no calibration data.
        Unsupported: Operators or precisions that the core's kernels do not have.
        ToolchainError: A third-party converter failed.
    """
    from edge_deploy.zoo.datasets import open_dataset

    core = request.delegate
    if request.max_drop is not None:
        raise BadInput(f"--max-drop: the file for {core} is {NOT_RUN}; leave it out, and judge on a board.")
    if request.calibrate is None:
        raise BadInput(f"--delegate {core}: INT8 needs ranges seen on real inputs; pass --calibrate.")
    (spec,) = request.specs
    if spec.rules or spec.fallback_bits:
        raise Unsupported(f"--delegate {core}: its quantizer takes no rules for single layers and no --fallback.")
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        progress(f"capture {request.capture.source}")
        folder = Path(scratch, "captured")
        folder.mkdir()
        captured = capture(request.capture, folder)
        samples = open_dataset(request.calibrate, inputs=captured.inputs, limit=request.calibrate_limit)
        check_samples(samples, captured.inputs)
        calibration = Path(scratch, "calibration.npz")
        spool(samples, len(samples), captured.inputs, calibration)
        home = partial / f"{folder_name('executorch', spec)}-{core}"
        home.mkdir()
        progress(f"executorch: lower to {spec.name} for {core}")
        lowered = lower_cortex_m(captured, core, calibration, home)
        artifact = manifest_of(
            captured,
            lowered,
            source=request.capture.source,
            target="executorch",
            spec=spec,
            calibration_digest=dataset_digest(samples),
            calibration_samples=len(samples),
            verification=Verification(notes=(f"{NOT_RUN}; nothing was compared with the float model",)),
        )
        write_json(artifact, home / MANIFEST)
    return (artifact,)
