"""How tensors travel across a cut: one codec a file; the folder is the registry. NumPy only.

Codecs are put together with a plus: the first makes bytes of tensors, those behind it compress bytes, e.g.
"requantize:int8+zstd". A compressor that comes first works on the tensors as they are.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

from edge_deploy.core.errors import BadInput
from edge_deploy.core.registry import load, names
from runtimes.contracts import Codec

__all__ = ["codec_names", "load_codec"]

# More of them help nobody, and the text comes from outside on a server.
MOST_STAGES = 3
# What is worth trying besides every codec alone.
_COMBINATIONS = (
    "shuffle+zstd",
    "shuffle+lz4",
    "requantize:int8+zstd",
    "requantize:int8+lz4",
    "requantize:int4+zstd",
    "topk:10%-int8+zstd",
    "threshold:10%-int8+zstd",
)


def load_codec(text: str) -> Codec:
    """The codec of this name, with its option after a colon: "raw", "requantize:int4", "requantize:int8+zstd".

    Every call makes a new one: a sender keeps its own.

    Raises:
        BadInput: Unknown; close names are suggested. Or codecs that cannot be put together.
        MissingExtra: A compressor that is not installed.
    """
    stages = text.split("+")
    if len(stages) > MOST_STAGES:
        raise BadInput(f"codec {text[:80]}: has {len(stages)} stages, must be at most {MOST_STAGES}.")
    name, _, option = stages[0].partition(":")
    made: Codec = _module(name).codec(option)
    for stage in stages[1:]:
        name, _, option = stage.partition(":")
        over = getattr(_module(name), "over", None)
        if over is None:
            raise BadInput(f"codec {text}: {name} takes tensors, not bytes; it can only come first.")
        made = over(made, option)
    return made


def codec_names() -> tuple[str, ...]:
    """Every codec with every option that it names, and combinations worth trying, as `load_codec` takes them."""
    found = []
    for name in names("runtimes.codecs"):
        options = _module(name).OPTIONS
        found += [f"{name}:{option}" if option else name for option in options]
    return (*found, *_COMBINATIONS)


@lru_cache(maxsize=64)
def _module(name: str) -> ModuleType:
    """Looking into the folder takes longer than coding a small boundary does."""
    return load("runtimes.codecs", name)
