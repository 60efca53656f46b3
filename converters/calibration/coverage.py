"""Which channels of rectified layers the samples ever reached, and how likely the next sample reaches another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.calibration.finding import Finding
from converters.calibration.statistics import LayerStatistics

__all__ = ["unreached_channels"]

MANY_DEAD = 0.25
LIKELY_NEW = 0.05  # chance that one more sample reaches a channel for the first time
MOST_NAMED = 8


def unreached_channels(layers: tuple[LayerStatistics, ...], samples: int) -> Iterator[Finding]:
    """Channels that are zero for every sample: their ranges are guesses.

    Whether more samples would help is estimated after Good and Turing: the share of channels reached so far by exactly
    one sample, per sample, is how often the next one reaches a new channel (Good, Biometrika 40, 1953).
    """
    for layer in layers:
        if not layer.active:
            continue
        hits = np.asarray(layer.active)
        dead = np.flatnonzero(hits == 0)
        once = int((hits == 1).sum())
        chance = min(once / samples, 1.0)
        if dead.size == 0 and once == 0:
            continue
        if dead.size == hits.size:
            yield Finding(
                severity="serious",
                kind="dead-layer",
                where=layer.layer,
                text=f"all {hits.size} channels are zero for all {samples} samples.",
                remedy="Check the preprocessing; with real inputs no whole layer stays silent.",
            )
        elif dead.size and (dead.size >= MANY_DEAD * hits.size or chance > LIKELY_NEW):
            shown = ", ".join(map(str, dead[:MOST_NAMED])) + (", ..." if dead.size > MOST_NAMED else "")
            helps = (
                f"{once} channels were reached by one sample only: about one in {max(1, round(1 / chance))} further "
                "samples reaches a new one, so add samples of other kinds."
                if once
                else "No channel was reached by one sample only: these are probably dead in the model, not in the data."
            )
            yield Finding(
                severity="warning" if once else "note",
                kind="dead-channels",
                where=layer.layer,
                text=f"{dead.size} of {hits.size} channels are zero for all samples: {shown}.",
                remedy=helps,
            )
