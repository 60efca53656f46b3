"""Sign artifacts, and check that they are what somebody signed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_deploy.api.benchmark import artifact_folders
from edge_deploy.core.signing import ManifestSignature, check_signature, create_key, sign_manifest
from runtimes.folder import check_files, read_artifact

__all__ = ["new_key", "sign", "verify_signatures"]


def new_key(path: Path | str) -> Path:
    """Make an Ed25519 key pair: the private key at `path`, the public one at PATH.pub, which is returned.

    Raises:
        BadInput: One of the files exists already.
        MissingExtra: cryptography is not installed.
    """
    return create_key(Path(path))


def sign(paths: Sequence[Path | str], *, key: Path | str) -> tuple[tuple[Path, ManifestSignature], ...]:
    """Sign every artifact in `paths`, folders of artifacts included, once its files were seen to be whole.

    Raises:
        BadInput: A file differs from its manifest, or the key is no Ed25519 private key.
        MissingExtra: cryptography is not installed.
    """
    folders = artifact_folders(paths)
    for folder in folders:
        check_files(folder, read_artifact(folder))
    return tuple((folder, sign_manifest(folder, Path(key))) for folder in folders)


def verify_signatures(
    paths: Sequence[Path | str], *, public_key: Path | str
) -> tuple[tuple[Path, ManifestSignature], ...]:
    """Check signature and files of every artifact in `paths`.

    Raises:
        BadInput: A manifest is not signed with the key, or was changed afterwards, or a file was.
        MissingExtra: cryptography is not installed.
    """
    checked = []
    for folder in artifact_folders(paths):
        check_files(folder, read_artifact(folder, public_key=public_key))
        checked.append((folder, check_signature(folder, Path(public_key))))
    return tuple(checked)
