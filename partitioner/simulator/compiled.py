"""The kernel compiled by numba where that is installed, else as Python runs it; both give the same bits."""

from __future__ import annotations

import importlib.util
import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from partitioner.simulator import kernel

__all__ = ["can_compile", "kernel_function"]

# In the order in which they call each other.
_FUNCTIONS = ("_back", "_run_batches", "serve")


def can_compile() -> bool:
    """Whether numba is installed (extra `simulate`)."""
    return importlib.util.find_spec("numba") is not None


@lru_cache(maxsize=2)
def kernel_function(compile_it: bool) -> Callable[..., None]:
    """`kernel.serve`, compiled on its first call when asked; the machine code is kept on disk for the next process."""
    if not compile_it:
        return kernel.serve
    import numba

    # numba calls compiled functions only, so the names in the kernel must mean those: it gets its own globals.
    space: dict[str, Any] = dict(vars(kernel))
    for name in _FUNCTIONS:
        code = getattr(kernel, name).__code__
        space[name] = numba.njit(cache=True)(types.FunctionType(code, space, name))
    compiled: Callable[..., None] = space["serve"]
    return compiled
