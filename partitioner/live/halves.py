"""What the edge device has on disk: the whole model, and for every cut the head and the tensors that cross."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.artifact import Artifact, Signature
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.early_exit import EarlyExit
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.calling import pick_signature
from runtimes.folder import read_artifact

__all__ = ["EdgeHalf", "Whole", "read_halves", "read_whole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The model that was cut.

    Attributes:
        path: The artifact's folder, or a bare model file.
        sha256: Of the model file: what edge and cloud must agree on.
        signature: The one that is called.
        bytes: Of its files.
        exits: Outputs that may answer on the edge, see `edge_deploy.core.early_exit`.
    """

    path: Path
    name: str
    sha256: str
    signature: Signature
    bytes: int
    exits: tuple[EarlyExit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeHalf:
    """What the edge does at one cut.

    Attributes:
        cut: Its id.
        head: What the edge runs; None where it computes nothing.
        signature: Of the head; None as above.
        up: What travels to the cloud, in the order in which the tail takes it; empty where nothing crosses.
        down: Outputs of the model that the cloud makes.
        bytes: Of the head's files.
    """

    cut: str
    head: Path | None
    signature: Signature | None
    up: tuple[TensorInfo, ...]
    down: tuple[TensorInfo, ...]
    bytes: int

    @property
    def crosses(self) -> bool:
        """Whether the cloud computes anything."""
        return bool(self.down)


def read_whole(path: Path | str, *, signature: str | None = None) -> Whole:
    """The model to run: an artifact's folder, or a bare `.tflite` file.

    Args:
        signature: Name of the one to call; None for the first.

    Raises:
        BadInput: Neither, or it has no such signature.
    """
    path = Path(path)
    if path.is_dir():
        artifact = read_artifact(path)
        return Whole(
            path=path,
            name=artifact.name,
            sha256=artifact.model_file.sha256,
            signature=pick_signature(path, artifact.signatures, signature),
            bytes=artifact.device_bytes,
            exits=artifact.exits,
        )
    if not path.is_file() or path.suffix != ".tflite":
        raise BadInput(f"{path}: must be the folder that convert wrote, or a .tflite file.")
    from runtimes.formats.tflite import read_signatures

    return Whole(
        path=path,
        name=path.stem,
        sha256=file_sha256(path),
        signature=pick_signature(path, read_signatures(path), signature),
        bytes=path.stat().st_size,
    )


def read_halves(whole: Whole, folder: Path | None = None) -> tuple[EdgeHalf, ...]:
    """All cuts that the edge can run: those in the folder, then all-cloud and all-edge, which need no cutting.

    Args:
        folder: As `edge-deploy split` wrote it; tails may be left out. None: all-cloud and all-edge only.

    Raises:
        BadInput: There is nothing in the folder, or a half belongs to another model.
    """
    found: list[EdgeHalf] = []
    problems: list[str] = []
    for each in sorted(path for path in folder.iterdir() if path.is_dir()) if folder is not None else ():
        if each.name in (ALL_EDGE, ALL_CLOUD) or not (each / "head").is_dir():
            continue
        artifact = read_artifact(each / "head")
        origin = artifact.split
        if origin is None or origin.half != "head":
            problems.append(f"{each / 'head'}: its manifest says nothing of a cut; give the folder that split wrote.")
        elif origin.parent_digest != whole.sha256:
            problems.append(
                f"{each / 'head'}: was cut from a model file with sha256 {origin.parent_digest[:12]}, {whole.name} has "
                f"{whole.sha256[:12]}; split this one (`edge-deploy split`)."
            )
        else:
            found.append(_half(whole, artifact, each / "head"))
    if problems:
        raise BadInput(*problems)
    return (_all_cloud(whole), *found, _all_edge(whole))


def _half(whole: Whole, artifact: Artifact, folder: Path) -> EdgeHalf:
    assert artifact.split is not None
    signature = pick_signature(folder, artifact.signatures, _own_name(artifact, whole))
    known = _by_name(whole.signature.inputs) | _by_name(signature.outputs)
    missing = [name for name in artifact.split.up if name not in known]
    if missing:
        raise BadInput(f"{folder}: the tail takes {', '.join(missing)}, which neither head nor inputs give.")
    made = {info.name for info in signature.outputs}
    return EdgeHalf(
        cut=artifact.split.cut,
        head=folder,
        signature=signature,
        up=tuple(known[name] for name in artifact.split.up),
        down=tuple(info for info in whole.signature.outputs if info.name not in made),
        bytes=artifact.device_bytes,
    )


def _own_name(artifact: Artifact, whole: Whole) -> str | None:
    """Halves have the signatures of the whole; where there is only one, its name does not matter."""
    return None if len(artifact.signatures) == 1 else whole.signature.name


def _all_cloud(whole: Whole) -> EdgeHalf:
    signature = whole.signature
    return EdgeHalf(cut=ALL_CLOUD, head=None, signature=None, up=signature.inputs, down=signature.outputs, bytes=0)


def _all_edge(whole: Whole) -> EdgeHalf:
    return EdgeHalf(cut=ALL_EDGE, head=whole.path, signature=whole.signature, up=(), down=(), bytes=whole.bytes)


def _by_name(infos: tuple[TensorInfo, ...]) -> dict[str, TensorInfo]:
    return {info.name: info for info in infos}
