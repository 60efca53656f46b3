"""Look at a calibration set before it is used: what is wrong with it, and how many samples are missing."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.calibration.diagnose import diagnose, observe
from converters.calibration.finding import Finding
from converters.calibration.statistics import ModelStatistics
from converters.capture import capture
from converters.contracts import Captured, CaptureRequest
from converters.samples import spool
from edge_deploy.core.child import Child
from edge_deploy.core.dataset import check_samples
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.zoo.datasets import open_dataset

__all__ = ["CalibrationReport", "check_calibration", "serious_findings"]

GLANCE = 64  # samples that a conversion looks at; the command looks at all


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """What the doctor found, the most serious first.

    Attributes:
        layers: How many layers were watched; 0 for a recommender, of whose samples only the values are looked at.
        norms: How many batch norms the scale of the samples was compared with.
    """

    model: str
    data: str
    samples: int
    layers: int
    norms: int
    findings: tuple[Finding, ...]


def check_calibration(request: CaptureRequest, data: Path, *, limit: int | None = None) -> CalibrationReport:
    """Run calibration samples through the float model and say what is wrong with them.

    Args:
        data: Anything that `open_dataset` opens.
        limit: Look at that many samples at most.

    Raises:
        BadInput: The model cannot be read, or the samples do not fit it.
    """
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        work = Path(scratch)
        captured = capture(request, work / "captured")
        dataset = open_dataset(data, inputs=captured.inputs, limit=limit)
        check_samples(dataset, captured.inputs)
        feeds = work / "calibration.npz"
        spool(dataset, len(dataset), captured.inputs, feeds)
        statistics, findings = _look(captured, feeds, None)
    return CalibrationReport(
        model=captured.name,
        data=dataset.name,
        samples=len(dataset),
        layers=len(statistics.layers),
        norms=len(statistics.norms),
        findings=findings,
    )


def serious_findings(captured: Captured, feeds: Path, *, child: Child | None = None) -> tuple[str, ...]:
    """What a conversion must say of its calibration samples: serious findings on the first 64, and suspected scales.

    A model that cannot be watched is no reason not to convert it: then the sentence says so.

    Args:
        feeds: npz with one array for each source input.
        child: A process of `converters.capture.source_child`, to use instead of a fresh one.
    """
    try:
        _, findings = _look(captured, feeds, GLANCE, child)
    except EdgeDeployError as error:
        return (f"calibration: the samples could not be checked ({error}).",)
    return tuple(str(finding) for finding in findings if finding.severity == "serious" or finding.kind == "scale")


def _look(
    captured: Captured, feeds: Path, limit: int | None, child: Child | None = None
) -> tuple[ModelStatistics, tuple[Finding, ...]]:
    with np.load(feeds, allow_pickle=False) as archive:
        samples = {info.name: archive[info.name][:limit] for info in captured.inputs}
    count = len(next(iter(samples.values())))
    watched = captured.recommender is None
    statistics = observe(captured, feeds, limit=limit, child=child) if watched else ModelStatistics(samples=count)
    return statistics, diagnose(samples, captured.inputs, statistics)
