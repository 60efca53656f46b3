"""A runtime that computes nothing: zeros of the right shape and type, for tests and for measuring our own overhead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from runtimes.calling import check_inputs, pick_signature
from runtimes.contracts import Kernels

__all__ = ["NullSession", "open_model"]


class NullSession:
    """Checks its inputs as every session does, and returns zeros; see `runtimes.contracts.Session`."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.kernels = "null"

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Zeros; a dynamic batch is the first input's."""
        check_inputs(self.signature, inputs)
        batch = next((array.shape[0] for array in inputs.values() if array.ndim), 1)
        return {
            info.name: np.zeros([_size(size, batch, axis) for axis, size in enumerate(info.shape)], info.dtype)
            for info in self.signature.outputs
        }

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """None: there are no layers."""
        check_inputs(self.signature, inputs)
        return None

    def close(self) -> None:
        """Nothing is held."""


def open_model(
    path: Path,
    *,
    data_files: tuple[Path, ...],
    known: tuple[Signature, ...],
    signature: str | None,
    threads: int,
    kernels: Kernels,
) -> NullSession:
    """A session for the signatures of a manifest; the model file is not opened.

    Raises:
        BadInput: Nothing is known of the signatures, or there is no such one.
    """
    if not known:
        raise BadInput(f"{path}: the null runtime cannot read files; give it an artifact folder.")
    return NullSession(pick_signature(path, known, signature))


def _size(size: int, batch: int, axis: int) -> int:
    if size != -1:
        return size
    return batch if axis == 0 else 1
