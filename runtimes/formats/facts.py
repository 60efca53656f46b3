"""Which reader knows a model file: facts of its layers by its suffix."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core import registry
from edge_deploy.core.artifact import LayerFacts, Signature
from edge_deploy.core.errors import BadInput

__all__ = ["read_facts", "read_signatures"]

READERS = {".tflite": "tflite", ".pte": "pte", ".c": "c-source"}


def read_facts(path: Path) -> tuple[LayerFacts, ...]:
    """What the file says of each layer.

    Raises:
        BadInput: Neither a .tflite or .pte file nor a C project's model.c, or damaged.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        raise BadInput(f"{path}: must be one of {', '.join(READERS)}.")
    found: tuple[LayerFacts, ...] = registry.load("runtimes.formats", reader).read_facts(path)
    return found


def read_signatures(path: Path) -> tuple[Signature, ...]:
    """The ways to call the file.

    Raises:
        BadInput: Neither a .tflite or .pte file nor a C project's model.c, or damaged.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        raise BadInput(f"{path}: must be one of {', '.join(READERS)}.")
    module = "pte-signatures" if reader == "pte" else reader
    found: tuple[Signature, ...] = registry.load("runtimes.formats", module).read_signatures(path)
    return found
