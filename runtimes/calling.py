"""What every session checks the same way: which signature is meant, and whether the arrays are what it takes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput

__all__ = ["check_inputs", "pick_signature", "zeros_for"]


def pick_signature(path: Path, signatures: tuple[Signature, ...], wanted: str | None) -> Signature:
    """The signature of this name, or the first.

    Raises:
        BadInput: There is none of this name.
    """
    if wanted is None:
        return signatures[0]
    for signature in signatures:
        if signature.name == wanted:
            return signature
    known = [signature.name for signature in signatures]
    close = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}."
    raise BadInput(f"{path}: signature {wanted!r}: unknown; {hint}")


def check_inputs(signature: Signature, inputs: Mapping[str, np.ndarray]) -> None:
    """Compare arrays with what the signature takes; all that is wrong is said at once.

    Raises:
        BadInput: A name is missing or unknown, or an array has another type or shape.
    """
    expected = {info.name: info for info in signature.inputs}
    problems = []
    for name in inputs:
        if name not in expected:
            close = difflib.get_close_matches(str(name), expected, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the model takes {', '.join(expected)}."
            problems.append(f"input {name}: unknown; {hint}")
    for name, info in expected.items():
        if name not in inputs:
            problems.append(f"input {name}: missing; it takes {info.dtype} {info.shape}.")
            continue
        array = inputs[name]
        if not isinstance(array, np.ndarray):
            problems.append(f"input {name}: a {type(array).__name__}: must be a NumPy array.")
            continue
        if array.dtype != np.dtype(info.dtype):
            problems.append(f"input {name}: type {array.dtype}: must be {info.dtype}.")
        if len(array.shape) != len(info.shape) or any(
            have != want and not (want == -1 and have > 0) for have, want in zip(array.shape, info.shape, strict=True)
        ):
            shown = tuple("any" if size == -1 else size for size in info.shape)
            text = "(" + ", ".join(map(str, shown)) + ("," if len(shown) == 1 else "") + ")"
            problems.append(f"input {name}: shape {array.shape}: must be {text}.")
    if problems:
        raise BadInput(*problems)


def zeros_for(signature: Signature) -> dict[str, np.ndarray]:
    """Zeros for every input, with size 1 in dynamic dimensions: valid ids, and harmless numbers."""
    return {
        info.name: np.zeros([1 if size == -1 else size for size in info.shape], np.dtype(info.dtype))
        for info in signature.inputs
    }
