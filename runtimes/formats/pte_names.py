"""Layer names inside a `.pte`: a constant method whose bytes map operators to names.

The key of an operator inside a delegate is its debug handle; that of a portable kernel call is "aten::embedding#0", the
operator and how many calls of it come before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["NAMES_METHOD", "decode_names", "encode_names"]

NAMES_METHOD = "edge_deploy_layers"
"""Name of the method; it takes nothing and returns a uint8 tensor of JSON text, so that any runtime can run it."""


def encode_names(names: Mapping[str, str]) -> bytes:
    """JSON of layer names by operator key."""
    return json.dumps(dict(names), separators=(",", ":")).encode()


def decode_names(data: bytes) -> dict[str, str]:
    """The names that `encode_names` wrote; empty when the bytes are anything else."""
    try:
        found = json.loads(data.decode("utf-8"))
        return {str(key): str(name) for key, name in found.items()}
    except (ValueError, AttributeError, TypeError):
        return {}
