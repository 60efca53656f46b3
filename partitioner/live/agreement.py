"""Do edge and cloud compute the same? One request through every cut, against the whole model here.

Where both sides run the same kernels INT8 answers are the same bits; where they do not (another processor, another
version of a runtime) the difference is told, so that nobody has to guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.tensor import dequantize_output
from partitioner.live.remote import Remote
from partitioner.live.stage import Loaded, Stage
from runtimes.serving.errors import CloudError

__all__ = ["Agreement", "agreements"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One cut.

    Attributes:
        identical: The same bits.
        largest: Largest difference of an output, in real values.
        failed: Why the cloud gave no answer; empty where it did.
    """

    cut: str
    identical: bool
    largest: float
    failed: str = ""


def agreements(
    stage: Stage, whole: Loaded, remote: Remote, inputs: Mapping[str, np.ndarray], *, wait_s: float
) -> tuple[Agreement, ...]:
    """Every loaded cut that crosses, on one request."""
    with stage.edge:
        wanted = whole.run(inputs)
    found = []
    for index in stage.loaded_indices():
        loaded = stage.loaded(index)
        if loaded is None or not loaded.crosses:
            continue
        half = loaded.half
        with stage.edge:
            made = loaded.run(inputs)
        arrays = {info.name: made[info.name] if info.name in made else inputs[info.name] for info in half.up}
        try:
            reply = remote.call(half, arrays, wait_s=wait_s).reply
        except CloudError as error:
            found.append(Agreement(cut=half.cut, identical=False, largest=float("inf"), failed=str(error)))
            continue
        identical, largest = True, 0.0
        for info in half.down:
            ours, theirs = wanted[info.name], reply[info.name]
            if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
                identical, largest = False, float("inf")
                continue
            identical &= ours.tobytes() == theirs.tobytes()
            difference = np.abs(dequantize_output(ours, info) - dequantize_output(theirs, info))
            largest = max(largest, float(difference.max(initial=0.0)))
        found.append(Agreement(cut=half.cut, identical=identical, largest=largest))
    return tuple(found)
