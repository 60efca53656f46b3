"""Read an artifact folder and check that every file in it is the one that was written."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.artifact import MANIFEST, Artifact
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import loads, read_json
from edge_deploy.core.signing import check_signature

__all__ = ["artifact_file", "check_files", "read_artifact", "weights_beside"]


def read_artifact(folder: Path | str, *, public_key: Path | str | None = None) -> Artifact:
    """The artifact that the folder's `manifest.json` describes; its files are not looked at.

    Args:
        public_key: PEM file of the Ed25519 key that must have signed the manifest; None to take any.

    Raises:
        BadInput: There is no manifest, it is not one of ours, it names a file outside the folder, or it is not signed
            with the key.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder that convert wrote.")
    if not (folder / MANIFEST).is_file():
        raise BadInput(f"{folder}: has no {MANIFEST}; give the folder that convert wrote, or a model file.")
    if public_key is None:
        artifact = read_json(Artifact, folder / MANIFEST)
    else:
        # Read once: what was proven is what is used, whatever happens to the file meanwhile.
        manifest = (folder / MANIFEST).read_bytes()
        check_signature(folder, Path(public_key), manifest=manifest)
        artifact = loads(Artifact, manifest.decode("utf-8", errors="replace"), where=str(folder / MANIFEST))
    for entry in artifact.files:
        artifact_file(folder, entry.path)
    return artifact


def artifact_file(folder: Path, name: str) -> Path:
    """The path of a file that a manifest names.

    Raises:
        BadInput: The name leads out of the folder, also by a symbolic link.
    """
    path = folder / name
    if not name or "\0" in name or Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{folder / MANIFEST}: file {name!r} lies outside the folder; the manifest cannot be trusted.")
    return path


def check_files(folder: Path, artifact: Artifact) -> None:
    """Compare sizes and sha256 of all files with the manifest; files that it does not name are ignored.

    Raises:
        BadInput: A file is missing or differs; all of them are named.
    """
    problems = []
    for entry in artifact.files:
        path = artifact_file(folder, entry.path)
        if not path.is_file():
            problems.append(f"{path}: missing; convert again or copy the whole folder.")
            continue
        size = path.stat().st_size
        if size != entry.bytes:
            problems.append(f"{path}: {size} bytes, the manifest says {entry.bytes}; the file is damaged or replaced.")
        elif file_sha256(path) != entry.sha256:
            problems.append(f"{path}: its sha256 differs from the manifest's; the file is damaged or replaced.")
    if problems:
        raise BadInput(*problems)


def weights_beside(path: Path) -> tuple[Path, ...]:
    """The `.ptd` of the same name beside a bare `.pte`, which it may need; empty where there is none."""
    data = path.with_suffix(".ptd")
    return (data,) if path.suffix == ".pte" and data.is_file() else ()
