"""Names of the passes that make a quantized model lose less, and what each was measured to do: part of the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_deploy.core.errors import BadInput

__all__ = ["BIASES", "DEFAULT", "EQUALISE", "FIRST_LAST", "FOLD", "PASSES", "ROUNDING", "PassRecord", "chosen_passes"]

FOLD = "fold-batch-norms"
EQUALISE = "equalise-ranges"
FIRST_LAST = "first-last-int8"
ROUNDING = "compensated-rounding"
BIASES = "correct-biases"

PASSES = {
    FOLD: "scales and shifts by channel, such as batch norms, disappear in the layer before them",
    EQUALISE: "channels of a ReLU's output are scaled to fill the range, the layers around take it back",
    FIRST_LAST: "the first and the last layer with weights keep 8 bits under a 4-bit recipe",
    ROUNDING: "weights are rounded for the least error behind their layer, instead of each to the nearest",
    BIASES: "biases take back the mean error of rounded weights",
}
"""Every pass, in the order in which they act, with what it does."""

DEFAULT = (FOLD, EQUALISE, ROUNDING, BIASES)
"""Those that are tried unless the user says otherwise; FIRST_LAST costs bytes, so it is taken on request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """What became of one pass, with the error on a held part of the calibration samples without and with it.

    Both figures are those of the whole quantized model with the other passes that were kept. None: not measured.

    Attributes:
        applied: Whether the artifact was made with it.
        detail: What it did, or why it was not applied.
        samples: Held samples that it was measured on; 0 where it was not measured.
        before_snr_db: 10 log10(sum float^2 / sum error^2) of the outputs without the pass, `after_snr_db` with it; of
            the logits where the outputs are a softmax's.
        before_agreement: Share of samples with the float model's argmax.
        before_accuracy: Share of labelled samples that are right; None without labels.
    """

    name: str
    applied: bool
    detail: str = ""
    samples: int = 0
    before_snr_db: float | None = None
    after_snr_db: float | None = None
    before_agreement: float | None = None
    after_agreement: float | None = None
    before_accuracy: float | None = None
    after_accuracy: float | None = None


def chosen_passes(*, with_passes: Sequence[str] = (), without_passes: Sequence[str] = ()) -> tuple[str, ...]:
    """The default passes with some added and some left out, in the order in which they act.

    Args:
        without_passes: "all" leaves out every one that `with_passes` does not name.

    Raises:
        BadInput: No such pass, or one that is both wanted and not.
    """
    problems = [
        f"{option} {name}: must be one of {', '.join(known)}."
        for option, names, known in (
            ("--with-pass", with_passes, tuple(PASSES)),
            ("--without-pass", without_passes, (*PASSES, "all")),
        )
        for name in names
        if name not in known
    ]
    problems += [f"pass {name}: is asked for and left out." for name in with_passes if name in without_passes]
    if problems:
        raise BadInput(*problems)
    start = () if "all" in without_passes else DEFAULT
    return tuple(name for name in PASSES if name in with_passes or (name in start and name not in without_passes))
