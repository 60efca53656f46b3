"""One thing that the calibration doctor found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Finding", "Severity", "most_serious_first"]

Severity: TypeAlias = Literal["serious", "warning", "note"]
_ORDER: tuple[Severity, ...] = ("serious", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found in a calibration set, and what to do about it.

    Attributes:
        severity: "serious" makes the ranges of activations wrong; a "warning" may cost accuracy.
        kind: Which check found it, e.g. "scale".
        where: Name of the input or layer; empty for the whole set.
        remedy: What to do; empty where nothing needs doing.
    """

    severity: Severity
    kind: str
    where: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"calibration: {place}{self.text}" + (f" {self.remedy}" if self.remedy else "")


def most_serious_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """In the order in which they should be read; within one severity as they came."""
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity)))
