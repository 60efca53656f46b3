"""What `monitor` is asked for, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converters.contracts import CaptureRequest
from edge_deploy.core.artifact import PairedDifference
from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.click_schema import ClickSchema

__all__ = ["Check", "Limits", "MonitorReport", "MonitorRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From where on it is time to recalibrate.

    Attributes:
        drop: Of accuracy or AUC against the float model; only a difference that is resolved at 95 % counts.
        shift: Of the mean score against the float model's, in standard deviations of its scores.
        drift: Population stability index of the scores against the reference's.
        overflow: Share of a layer's values that leave its stored range, beyond the reference's share.
        unseen: Share of a feature's values that the vocabulary does not know, beyond the reference's share.
    """

    drop: float = 0.005
    shift: float = 0.1
    drift: float = 0.25
    overflow: float = 0.01
    unseen: float = 0.05

    def __post_init__(self) -> None:
        wrong = [
            f"--max-{name} {value}: must be above 0."
            for name in ("drop", "shift", "drift", "overflow", "unseen")
            if not (value := getattr(self, name)) > 0
        ]
        if wrong:
            raise BadInput(*wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorRequest:
    """One artifact, its float model, and fresh samples.

    Attributes:
        data: Samples as `open_dataset` reads them, or a click log, which the artifact's features.json encodes.
        reference: Samples like those it was converted for, e.g. its evaluation set; None leaves out what needs them.
        schema: Of click logs; None where `data` is no log.
        limit: Rows or samples that are looked at.
        layer_samples: Of those, how many go through the models layer by layer.
    """

    folder: Path
    source: CaptureRequest
    data: Path
    reference: Path | None = None
    schema: ClickSchema | None = None
    limit: int = 100_000
    layer_samples: int = 256
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One number held against its limit.

    Attributes:
        what: The metric, the layer or the feature.
        value: As measured on the fresh samples; `reference` on the reference, where there is one.
    """

    kind: Literal["quality", "shift", "drift", "overflow", "unseen"]
    what: str
    value: float
    limit: float
    is_over: bool
    text: str
    reference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorReport:
    """What became of an artifact on fresh samples.

    Attributes:
        checks: Those over their limits first.
        notes: What could not be checked, and why.
    """

    artifact: str
    data: str
    samples: int
    checks: tuple[Check, ...]
    differences: tuple[PairedDifference, ...]
    notes: tuple[str, ...]

    @property
    def is_time_to_recalibrate(self) -> bool:
        """At least one check is over its limit."""
        return any(check.is_over for check in self.checks)
