"""sha256 of files and of samples: what says that a file is whole and that two data sets do not overlap."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

__all__ = ["file_sha256", "sample_sha256"]


def file_sha256(path: Path) -> str:
    """Hex sha256 of the file's bytes, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample_sha256(inputs: Mapping[str, np.ndarray]) -> str:
    """Hex sha256 of one sample: names, types, shapes and bytes of its inputs."""
    digest = hashlib.sha256()
    for name in sorted(inputs):
        array = np.ascontiguousarray(inputs[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
