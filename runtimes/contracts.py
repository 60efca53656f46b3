"""What every engine offers: a session that takes arrays by input name and returns arrays by output name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

import numpy as np

from edge_deploy.core.artifact import Signature

__all__ = ["Kernels", "Session"]

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
