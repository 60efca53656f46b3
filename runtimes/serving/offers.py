"""What a server offers, read from manifests before anything is loaded: names, versions, tensors, batch sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_deploy.core.artifact import MANIFEST, Artifact, Signature
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.folder import read_artifact
from runtimes.serving.contracts import SegmentInfo, wire_name

__all__ = ["Offer", "batch_of", "find_offers", "read_offer"]

ANY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One model on the wire and the artifact behind it.

    Attributes:
        info: As clients see it; -1 in the batch where several sizes are taken.
        signatures: Of one family: the same tensors at different batch sizes, the smallest first.
        batches: Batch sizes of `signatures`; -1 for any; empty where the first dimension is no batch.
        file_bytes: Of the model and its data files.
    """

    info: SegmentInfo
    folder: Path
    platform: str
    signatures: tuple[Signature, ...]
    batches: tuple[int, ...]
    file_bytes: int


def find_offers(paths: Iterable[Path], *, public_key: Path | None = None) -> tuple[Offer, ...]:
    """Everything that the folders hold: artifacts, tails, and folders that `edge-deploy split` wrote.

    Args:
        public_key: That all manifests must be signed with.

    Raises:
        BadInput: A path is neither, or two folders are the same model and version.
    """
    offers: list[Offer] = []
    problems = []
    for path in paths:
        folders = _artifact_folders(path)
        if not folders:
            problems.append(f"{path}: no artifact and no folder of halves; give what convert or split wrote.")
        offers += [read_offer(folder, public_key=public_key) for folder in folders]
    seen: dict[tuple[str, str], Offer] = {}
    for offer in offers:
        key = (offer.info.name, offer.info.version)
        if key in seen and seen[key].folder.resolve() != offer.folder.resolve():
            problems.append(f"{offer.folder}: is {offer.info.name} once more, as {seen[key].folder}; give one of them.")
        seen[key] = offer
    if problems:
        raise BadInput(*problems)
    return tuple(seen.values())


def _artifact_folders(path: Path) -> list[Path]:
    if (path / MANIFEST).is_file():
        return [path]
    # Heads and all-edge are the edge's.
    tails = [found.parent for found in sorted(path.glob(f"*/tail/{MANIFEST}"))]
    return tails or [found.parent for found in sorted(path.glob(f"tail/{MANIFEST}"))]


def read_offer(folder: Path, *, public_key: Path | None = None) -> Offer:
    """The offer of one artifact folder: a whole model, or a tail.

    Raises:
        BadInput: No manifest, a wrong signature, or a head, which a server has no use for.
    """
    artifact = read_artifact(folder, public_key=public_key)
    origin = artifact.split
    if origin is not None and origin.half == "head":
        raise BadInput(f"{folder}: is the head of cut {origin.cut}, which runs on the edge; serve the tail beside it.")
    if origin is None or origin.cut in (ALL_CLOUD, ALL_EDGE):
        name = origin.parent if origin is not None else artifact.name
        version, cut = artifact.model_file.sha256, ALL_CLOUD
    else:
        name, version, cut = origin.parent, origin.parent_digest, origin.cut
    signatures, batches = _family(artifact)
    inputs = _as_seen([signature.inputs for signature in signatures])
    outputs = _as_seen([signature.outputs for signature in signatures])
    return Offer(
        info=SegmentInfo(name=wire_name(name, cut), version=version, inputs=inputs, outputs=outputs),
        folder=folder,
        platform=f"edge-deploy_{artifact.format}",
        signatures=signatures,
        batches=batches,
        file_bytes=artifact.device_bytes,
    )


def batch_of(signature: Signature) -> int | None:
    """The size of the first dimension, where all inputs and outputs have it in common; None where they do not."""
    tensors = (*signature.inputs, *signature.outputs)
    sizes = {info.shape[0] if info.shape else None for info in tensors}
    return sizes.pop() if len(sizes) == 1 else None


def _family(artifact: Artifact) -> tuple[tuple[Signature, ...], tuple[int, ...]]:
    """The first signature and those that differ from it in the batch alone."""
    first = artifact.signatures[0]
    if batch_of(first) is None:
        return (first,), ()
    family = {
        batch_of(each) or 0: each for each in artifact.signatures if _without_batch(each) == _without_batch(first)
    }
    sizes = tuple(sorted(family))  # ANY, where there is one, comes first
    return tuple(family[size] for size in sizes), sizes


def _without_batch(signature: Signature) -> object:
    if batch_of(signature) is None:
        return None
    return tuple(
        tuple((info.name, info.dtype, info.shape[1:], info.scale, info.zero_point) for info in some)
        for some in (signature.inputs, signature.outputs)
    )


def _as_seen(variants: Sequence[tuple[TensorInfo, ...]]) -> tuple[TensorInfo, ...]:
    first = variants[0]
    if len(variants) == 1:
        return first
    return tuple(replace(info, shape=(ANY, *info.shape[1:])) for info in first)
