"""What a search for mixed precision found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_deploy.core.artifact import PairedDifference

__all__ = ["UNIFORM", "SearchPoint", "SearchReport"]

UNIFORM = "uniform-"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPoint:
    """One assignment that was converted and evaluated.

    Attributes:
        name: Of its folder in `points`.
        bits: By layer; as asked.
        expected_noise: Sum of the layers' sensitivities.
        cost: What mixes are ordered by, as expected: bytes of weights, or seconds.
        seconds: Of a call, measured in turns with the other points; only where the fastest is searched.
        snr_db: Of its answers, measured.
        difference: Of the metric from the float model, on the samples of the search.
        failure: Why there is no artifact; then the measured fields are empty.
    """

    name: str
    bits: dict[str, int]
    expected_noise: float | None
    cost: float
    device_bytes: int = 0
    seconds: float | None = None
    snr_db: float = 0.0
    difference: PairedDifference | None = None
    failure: str = ""

    @property
    def is_uniform(self) -> bool:
        """One width for all layers, as far as they can have it."""
        return self.name.startswith(UNIFORM)

    @property
    def drop(self) -> float:
        """Loss of the metric; infinite where there is no artifact."""
        return float("inf") if self.difference is None else -self.difference.difference


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport:
    """What was found.

    Attributes:
        points: All that were converted, the cheapest first; `front`: names of those that no other beats.
        chosen: Name of the smallest or fastest point within `max_drop`; empty where none is.
        confirmation: Of the chosen point, on samples that the search did not use.
        verdict: Of the confirmation.
        noise_rank: Rank correlation of expected noise with the measured squared error of the answers over all
            converted points, `ranked` of them; `drop_rank`: with the measured drop. None where it cannot be told.
        cost_unit: Of `cost`, e.g. "bytes of weights".
        recipe: Path of the chosen point's recipe in the folder, for convert --recipe; `command` uses it.
    """

    model: str
    target: str
    max_drop: float
    aim: str
    metric: str
    search_samples: int
    confirm_samples: int
    points: tuple[SearchPoint, ...]
    front: tuple[str, ...]
    chosen: str
    verdict: Literal["confirmed", "not resolved", "not confirmed", "nothing found"]
    cost_unit: str
    confirmation: PairedDifference | None = None
    noise_rank: float | None = None
    drop_rank: float | None = None
    ranked: int = 0
    recipe: str = ""
    command: str = ""
    notes: tuple[str, ...] = ()
