"""Early exits of a live session: whether what the head computed answers a request already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_deploy.core.early_exit import EarlyExit, is_confident
from edge_deploy.core.tensor import TensorInfo, dequantize_output
from partitioner.live.halves import EdgeHalf, Whole

__all__ = ["EXIT", "Ends", "ends_of", "exit_share"]

EXIT = "exit "  # how the reason of a request begins that ended at one


class Ends:
    """The exits of one half, in the order in which the model makes them.

    Args:
        exits: Whose outputs the head gives.
        down: The outputs that the cloud makes.
    """

    def __init__(self, exits: Sequence[EarlyExit], made: Mapping[str, TensorInfo], down: Sequence[TensorInfo]) -> None:
        self._exits = [(found, made[found.output]) for found in exits]
        self._down = {info.name: info for info in down}
        self.share = max((found.share for found in exits), default=0.0)

    def answer(self, values: Mapping[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]] | None:
        """The exit that is confident, and the model's outputs with its values in place of the ones it answers for.

        None where the request has to go on.
        """
        for found, info in self._exits:
            if is_confident(found, values[found.output], info):
                return found.output, {found.answer: _as(values[found.output], info, self._down[found.answer])}
        return None


def ends_of(whole: Whole, half: EdgeHalf) -> Ends | None:
    """The exits that can end a request on the edge at this cut; None where there are none.

    An exit can where its output is the head's, and the one that it answers for is all that the cloud would make,
    except for outputs of later exits.
    """
    if half.signature is None or not half.crosses or not whole.exits:
        return None
    made = {info.name: info for info in half.signature.outputs}
    later = {found.output for found in whole.exits} - set(made)
    missing = {info.name for info in half.down} - later
    exits = [found for found in whole.exits if found.output in made and missing == {found.answer}]
    return Ends(exits, made, half.down) if exits else None


def exit_share(whole: Whole, half: EdgeHalf) -> float:
    """Share of requests that are expected to end on the edge at this cut."""
    ends = ends_of(whole, half)
    return 0.0 if ends is None else ends.share


def _as(values: np.ndarray, have: TensorInfo, want: TensorInfo) -> np.ndarray:
    """The values in the type and scale of another output."""
    if (have.dtype, have.scale, have.zero_point) == (want.dtype, want.scale, want.zero_point):
        return values
    real = dequantize_output(values, have)
    if not want.scale:
        return real.astype(want.dtype)
    steps = np.rint(real / np.float32(want.scale[0])) + want.zero_point[0]
    held = np.iinfo(np.dtype(want.dtype))
    return np.asarray(np.clip(steps, held.min, held.max), dtype=want.dtype)
