"""What is cut, and what a format hands back: between `converters.split` and `converters.splitting.formats`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edge_deploy.core.artifact import Artifact, FileEntry, LayerFacts, Signature
from edge_deploy.core.cut import Cut
from edge_deploy.core.layer_graph import LayerGraph

__all__ = ["Half", "Parent", "Splitter", "WrittenCut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The model to cut.

    Attributes:
        artifact: Its manifest; for a bare file, what can be said without one.
        folder: Where its files stand.
        digest: sha256 of its model file.
        is_bare: It is a model file without a manifest.
    """

    artifact: Artifact
    folder: Path
    digest: str
    is_bare: bool = False

    @property
    def model(self) -> Path:
        """The `.tflite` or `.pte` file."""
        return self.folder / self.artifact.model_file.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """The files of one half, in its folder, and what they say of themselves.

    Attributes:
        signatures: Tensors of the whole's signatures bear their names there; those that cross the cut, the names of
            its `LayerGraph`.
    """

    side: Literal["head", "tail"]
    files: tuple[FileEntry, ...]
    signatures: tuple[Signature, ...]
    graph: LayerGraph
    facts: tuple[LayerFacts, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCut:
    """Both halves of one cut; None for one that would compute nothing the other needs."""

    cut: Cut
    head: Half | None
    tail: Half | None

    @property
    def halves(self) -> tuple[Half, ...]:
        """Those that exist, the head first."""
        return tuple(half for half in (self.head, self.tail) if half is not None)


class Splitter(Protocol):
    """A module in `converters.splitting.formats`, named after its format."""

    def write_halves(self, parent: Parent, cuts: Sequence[Cut], folders: Sequence[Path]) -> tuple[WrittenCut, ...]:
        """Write the halves of each cut into `head` and `tail` of its folder.

        Raises:
            Unsupported: A half cannot be had, and why.
        """
