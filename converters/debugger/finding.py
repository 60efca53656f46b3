"""What the debugger says of an artifact: every layer's errors, what would help, and what causes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Cause", "DebugReport", "Diagnosis", "Fix", "LayerDiagnosis", "Likeness", "Proof", "WhatIf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Answers compared with the float model's on the same samples.

    Attributes:
        snr_db: Of the first output; 999 stands for identical.
        top1_agreement: Share of samples with the same argmax; None for a single output.
        score: Accuracy or AUC where samples have labels.
    """

    snr_db: float
    top1_agreement: float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """An estimate: the artifact with one layer at another precision, all others as they are."""

    precision: Literal["float32", "int8"]
    likeness: Likeness


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDiagnosis:
    """One layer, or one input (`kind`).

    Attributes:
        dtype: Type in which its result is stored.
        weight_bits: Of its weights; 0 without.
        got: What it became, as the manifest says.
        own_snr_db: Of its result when its inputs are the float model's, rounded to the type it reads; None where that
            cannot be had.
        own_mse: Mean squared error likewise.
        snr_db: Of its result in the artifact, with the errors of all layers before it.
        mse: Mean squared error likewise.
        low: Smallest value that the float model computes here, and `high` the largest.
        stored_low: Smallest value that the artifact can hold here, `stored_high` the largest; None for floats.
        clipped: Share of the float model's values that lie outside.
        alone_snr_db: Of the answer, if only this layer were as in the artifact and all others float.
        noise_share: Its part of the squared error of all layers alone.
    """

    layer: str
    op: str
    kind: Literal["input", "layer"]
    dtype: str
    weight_bits: float = 0.0
    got: str = ""
    own_snr_db: float | None = None
    own_mse: float | None = None
    snr_db: float | None = None
    mse: float | None = None
    low: float = 0.0
    high: float = 0.0
    stored_low: float | None = None
    stored_high: float | None = None
    clipped: float = 0.0
    alone_snr_db: float | None = None
    noise_share: float = 0.0
    what_if: tuple[WhatIf, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What most of the error comes from.

    Attributes:
        kind: "ranges": values leave what the calibration foresaw; "layer": one layer adds most of the error;
            "spread": no layer stands out.
        layers: Concerned, the most concerned first.
    """

    kind: Literal["ranges", "layer", "spread"]
    text: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """An artifact against its float model.

    Attributes:
        method: How layers were compared.
        measured: The artifact's answers as its runtime gives them.
        estimated: Its answers as the sum of all layers' own errors predicts them: how far estimates can be trusted.
        layers: By share of the error, the largest first.
    """

    artifact: str
    format: str
    recipe: str
    samples: int
    method: str
    metric: str
    float_score: float | None
    measured: Likeness
    estimated: Likeness
    layers: tuple[LayerDiagnosis, ...]
    cause: Cause
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """One remedy.

    Attributes:
        text: What it is, in a sentence.
        recipe: TOML for convert's --recipe; empty where the precision stays as it was.
        command: To paste into a shell.
        layers: Whose precision changes, with the new one.
    """

    text: str
    recipe: str
    command: str
    layers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A remedy that was really carried out.

    Attributes:
        change: What was changed.
        estimated: What was expected; None where no estimate was made.
        before: The artifact as it was, and `after` the new one, on the same samples as their runtimes give them.
        device_bytes: Of the new artifact; `bytes_before` of the old one.
        samples: That both were run on.
        folder: Where the new artifact is kept; empty where no folder was asked for.
    """

    change: str
    estimated: Likeness | None
    before: Likeness
    after: Likeness
    device_bytes: int
    bytes_before: int
    samples: int
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugReport:
    """What was found.

    Attributes:
        fix: The remedy with the most effect; None where nothing is expected to help.
    """

    diagnosis: Diagnosis
    fix: Fix | None
    proofs: tuple[Proof, ...] = ()
