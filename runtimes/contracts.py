"""What every engine offers: a session that takes arrays by input name and returns arrays by output name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.tensor import TensorInfo

__all__ = ["Backend", "Codec", "Kernels", "Session"]

Kernels: TypeAlias = Literal["default", "builtin", "reference"]


class Session(Protocol):
    """A loaded model.

    Attributes:
        signature: The one being called: names, shapes and types of inputs and outputs.
        kernels: Runtime, version and kernel set, e.g. "ai-edge-litert 2.3.0 XNNPACK".
    """

    signature: Signature
    kernels: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference on arrays exactly as the signature describes them, batch dimension included.

        Raises:
            BadInput: An input is missing, unknown, or of another shape or type.
        """

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """Mean seconds per layer over `runs` profiled inferences; None where the runtime has no profiler."""

    def close(self) -> None:
        """Free the model."""


class Backend(Protocol):
    """What a module in `runtimes/backends` offers; `runtimes.session` has checked the file before calling it."""

    def open_model(
        self,
        path: Path,
        *,
        data_files: tuple[Path, ...],
        known: tuple[Signature, ...],
        signature: str | None,
        threads: int,
        kernels: Kernels,
    ) -> Session:
        """Load the model in this process.

        Args:
            data_files: Weights beside the model, e.g. a `.ptd`; empty when there are none.
            known: Signatures from the manifest; empty for a bare file, whose own are then read from it.
            signature: Name of the one to call; None for the first.
            kernels: A backend that has only one kernel set refuses others with `Unsupported`.

        Raises:
            BadInput: The file cannot be loaded, or has no such signature.
        """


class Codec(Protocol):
    """How the tensors that cross a cut become bytes; a module in `runtimes/codecs` offers `codec(option)`.

    An instance belongs to one sender: a codec may remember what it sent before (a threshold). `decode` needs no memory.

    Attributes:
        lossless: Whether `decode` gives back every bit; else accuracy has to be measured with the codec in place.
        fixed_size: Whether every payload has `encoded_bytes(tensors)` bytes; else the values decide, `encoded_bytes` is
            the most, and a plan wants measured sizes.
        encode_s_per_byte: Estimated seconds of encoding for each byte of the uncoded boundary, on an idle desktop core.
        decode_s_per_byte: The same of decoding.
    """

    @property
    def lossless(self) -> bool:
        """See above."""

    @property
    def fixed_size(self) -> bool:
        """See above."""

    @property
    def encode_s_per_byte(self) -> float:
        """See above."""

    @property
    def decode_s_per_byte(self) -> float:
        """See above."""

    def encode(self, arrays: Sequence[np.ndarray], tensors: Sequence[TensorInfo]) -> bytes:
        """What travels; `encoded_bytes(tensors)` bytes, or at most so many where the size is not fixed.

        Raises:
            BadInput: The arrays are not these tensors.
        """

    def decode(self, payload: bytes, tensors: Sequence[TensorInfo]) -> tuple[np.ndarray, ...]:
        """The arrays in their own types.

        Raises:
            BadInput: Bytes that `encode` does not make of these tensors. Never more memory is taken than the tensors
                have, whatever the payload says of its own size.
        """

    def encoded_bytes(self, tensors: Sequence[TensorInfo]) -> int:
        """Bytes on the wire, or the most, known before there are values; a sum over the tensors."""
