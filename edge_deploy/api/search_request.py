"""What a search for mixed precision is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converters.contracts import CaptureRequest
from edge_deploy.core.errors import BadInput
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["WIDTHS", "SearchRequest"]

WIDTHS = (4, 8, 16, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """One search, in one format.

    Attributes:
        spec: The INT8 spec that rules are added to: its io, ranges and device count for every point.
        evaluate: Labelled samples; without `confirm`, half of them are kept for the confirmation.
        confirm: Other labelled samples for the confirmation.
        max_drop: Largest loss of accuracy or AUC that is accepted.
        aim: The smallest files, or the fastest by a profile of the host.
        widths: Bits that layers may have; 16 and 32 compute in float.
        points: How many assignments between both ends are converted before the search closes in.
        budget_s: No further conversion is begun after so long; None for no limit.
        sensitivity_samples: Samples that sensitivities are measured on.
    """

    capture: CaptureRequest
    target: Literal["tflite", "executorch"]
    spec: QuantSpec
    evaluate: Path
    out: Path
    max_drop: float
    calibrate: Path | None = None
    confirm: Path | None = None
    calibrate_limit: int | None = None
    evaluate_limit: int | None = None
    aim: Literal["size", "speed"] = "size"
    widths: tuple[int, ...] = WIDTHS
    points: int = 4
    budget_s: float | None = None
    sensitivity_samples: int = 48
    force: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"{option} {path}: no such file."
            for option, path in (
                ("--calibrate", self.calibrate),
                ("--eval", self.evaluate),
                ("--confirm", self.confirm),
            )
            if path is not None and not path.exists()
        ]
        if not 0 <= self.max_drop < 1:
            problems.append(f"--max-drop {self.max_drop}: must lie in [0, 1).")
        if self.points < 1:
            problems.append(f"--points {self.points}: must be at least 1.")
        wrong = [bits for bits in self.widths if bits not in WIDTHS]
        if wrong or not {4, 8} & set(self.widths):
            problems.append(
                f"--widths {', '.join(map(str, self.widths))}: must be some of 4, 8, 16, 32, 4 or 8 among them."
            )
        if problems:
            raise BadInput(*problems)
