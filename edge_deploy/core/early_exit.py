"""Early exits: an output that may answer for the model's last one when it is confident enough. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import Meaning, TensorInfo, dequantize_output

__all__ = ["EarlyExit", "confidence", "is_confident", "meaning_of"]

# Sums of probabilities that went through INT8 are that far from 1.
SUM_WITHIN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExit:
    """One exit of a model, with the threshold that was fitted on what this very artifact computes.

    Attributes:
        output: Name of the exit's output in the artifact.
        answer: Name of the output that it answers for.
        threshold: A request ends at the exit when its confidence is at least this; above 1: never.
        meaning: Of both outputs' values.
        layer: The layer that makes the output.
        share: Of the samples that the threshold was fitted on: how many end here or at an exit before. `samples`: their
            number.
        agreement: Share of all of them whose answer is the same as the whole model's.
    """

    output: str
    answer: str
    threshold: float
    meaning: Meaning
    layer: str = ""
    share: float = 0.0
    agreement: float = 1.0
    samples: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold) or self.threshold < 0:
            raise BadInput(f"exit {self.output}: threshold = {self.threshold}: must be finite and not negative.")


def confidence(scores: np.ndarray, meaning: Meaning) -> np.ndarray:
    """Highest probability of each row; of one value a row that of the likelier of its two classes.

    Args:
        scores: Real values, shape (n, classes).
    """
    rows = np.asarray(scores, dtype=np.float64)
    if rows.shape[1] == 1:
        likely = 1.0 / (1.0 + np.exp(-rows)) if meaning == "logit" else rows
        return np.asarray(np.maximum(likely, 1.0 - likely)[:, 0])
    if meaning == "logit":
        above = np.exp(rows - rows.max(axis=1, keepdims=True))
        return np.asarray(1.0 / above.sum(axis=1))
    return np.asarray(rows.max(axis=1))


def is_confident(found: EarlyExit, values: np.ndarray, info: TensorInfo) -> bool:
    """Whether every row of an exit's output, as the artifact gives it, reaches the threshold."""
    if not values.size:
        return False
    rows = dequantize_output(values, info).reshape(len(values), -1)
    return bool((confidence(rows, found.meaning) >= found.threshold).all())


def meaning_of(scores: np.ndarray) -> Meaning:
    """Probabilities, when the rows look like such; else logits."""
    rows = np.asarray(scores, dtype=np.float64)
    within = bool(((rows >= -SUM_WITHIN) & (rows <= 1 + SUM_WITHIN)).all())
    sums = rows.shape[1] == 1 or bool((np.abs(rows.sum(axis=1) - 1.0) <= SUM_WITHIN).all())
    return "probability" if within and sums else "logit"
