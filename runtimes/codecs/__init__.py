"""How tensors travel across a cut: one codec a file; the folder is the registry. NumPy only."""

from __future__ import annotations

from edge_deploy.core.registry import load, names
from runtimes.contracts import Codec

__all__ = ["codec_names", "load_codec"]


def load_codec(text: str) -> Codec:
    """The codec of this name, with its option after a colon: "raw", "requantize:int4".

    Raises:
        BadInput: Unknown; close names are suggested.
    """
    name, _, option = text.partition(":")
    made: Codec = load("runtimes.codecs", name).codec(option)
    return made


def codec_names() -> tuple[str, ...]:
    """Every codec with every option, as `load_codec` takes them."""
    found = []
    for name in names("runtimes.codecs"):
        options = load("runtimes.codecs", name).OPTIONS
        found += [f"{name}:{option}" if option else name for option in options]
    return tuple(found)
