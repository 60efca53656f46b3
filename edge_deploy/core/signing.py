"""Sign an artifact's manifest with Ed25519, and check the signature before anything in the folder is believed.

The manifest holds the sha256 of every file, so that one signature covers them all. The signature lies beside it, in
`manifest.signature.json`, and is made over the manifest's bytes behind a text of our own, so that it is good for
nothing else. Keys are PEM files, as `openssl genpkey -algorithm ed25519` writes them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from edge_deploy.core.serde import read_json, write_json

__all__ = ["SIGNATURE", "ManifestSignature", "check_signature", "create_key", "sign_manifest"]

SIGNATURE = "manifest.signature.json"
EXTRA = "sign"
PURPOSE = b"edge-deploy manifest, Ed25519\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSignature:
    """The content of `manifest.signature.json`.

    Attributes:
        key_id: First 16 hexadecimal digits of the sha256 of the public key's 32 bytes.
        manifest_sha256: Of the manifest that was signed; tells a changed manifest from a damaged signature.
        signature: 64 bytes in base64.
    """

    algorithm: Literal["ed25519"]
    key_id: str
    manifest_sha256: str
    signature: str


def create_key(path: Path) -> Path:
    """Write a new private key to `path`, for its owner only, and the public key to PATH.pub; returns the latter path.

    Raises:
        BadInput: One of the files exists already.
        MissingExtra: cryptography is not installed.
    """
    keys, encoding = _keys(), _serialization()
    public_path = path.with_name(f"{path.name}.pub")
    for existing in (path, public_path):
        if existing.exists():
            raise BadInput(f"{existing}: exists already; a key is never replaced, choose another name.")
    key = keys.Ed25519PrivateKey.generate()
    private = key.private_bytes(encoding.Encoding.PEM, encoding.PrivateFormat.PKCS8, encoding.NoEncryption())
    public = key.public_key().public_bytes(encoding.Encoding.PEM, encoding.PublicFormat.SubjectPublicKeyInfo)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    public_path.write_bytes(public)
    return public_path


def sign_manifest(folder: Path, private_key: Path) -> ManifestSignature:
    """Sign the folder's manifest as it is; a signature that is there already is replaced.

    Raises:
        BadInput: There is no manifest, or the key is no Ed25519 private key.
        MissingExtra: cryptography is not installed.
    """
    keys, encoding = _keys(), _serialization()
    manifest = _manifest(folder)
    pem = _read(private_key)
    try:
        key = encoding.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise BadInput(f"{private_key}: is protected by a password; give a copy without (openssl pkey).") from error
    except ValueError as error:
        raise BadInput(f"{private_key}: is no private key in PEM ({error}).") from error
    if not isinstance(key, keys.Ed25519PrivateKey):
        raise BadInput(
            f"{private_key}: is a key of another kind; make an Ed25519 key: edge-deploy sign --new-key FILE."
        )
    found = ManifestSignature(
        algorithm="ed25519",
        key_id=_key_id(key.public_key()),
        manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        signature=base64.b64encode(key.sign(PURPOSE + manifest)).decode("ascii"),
    )
    write_json(found, folder / SIGNATURE)
    return found


def check_signature(folder: Path, public_key: Path, *, manifest: bytes | None = None) -> ManifestSignature:
    """The signature of the folder's manifest, proven by the public key.

    It says nothing of the other files: compare them with the manifest afterwards (`runtimes.folder.check_files`).

    Args:
        manifest: The manifest's bytes where they were read already, so that what is checked is what is used.

    Raises:
        BadInput: There is no signature, it is by another key, or the manifest or the signature was changed.
        MissingExtra: cryptography is not installed.
    """
    invalid: Any = require("cryptography.exceptions", extra=EXTRA).InvalidSignature
    key = _public_key(public_key)
    manifest = _manifest(folder) if manifest is None else manifest
    path = folder / SIGNATURE
    if not path.is_file():
        raise BadInput(
            f"{folder}: is not signed (no {SIGNATURE}), and a signature by {public_key} is asked for; have it signed "
            "(edge-deploy sign) by whoever converted it."
        )
    found = read_json(ManifestSignature, path)
    if found.key_id != _key_id(key):
        raise BadInput(f"{path}: was made with key {found.key_id}, not with {public_key} ({_key_id(key)}).")
    digest = hashlib.sha256(manifest).hexdigest()
    if found.manifest_sha256 != digest:
        raise BadInput(
            f"{folder / MANIFEST}: was changed after it was signed (its sha256 is {digest[:16]}..., signed was "
            f"{found.manifest_sha256[:16]}...); take the artifact from its source again."
        )
    try:
        key.verify(base64.b64decode(found.signature, validate=True), PURPOSE + manifest)
    except (invalid, binascii.Error, ValueError) as error:
        raise BadInput(
            f"{path}: is no signature of this manifest by {public_key}: it was forged or damaged; take the artifact "
            "from its source again."
        ) from error
    return found


def _keys() -> Any:
    return require("cryptography.hazmat.primitives.asymmetric.ed25519", extra=EXTRA)


def _serialization() -> Any:
    return require("cryptography.hazmat.primitives.serialization", extra=EXTRA)


def _public_key(path: Path) -> Any:
    keys, encoding = _keys(), _serialization()
    pem = _read(path)
    try:
        key = encoding.load_pem_public_key(pem)
    except ValueError as error:
        raise BadInput(f"{path}: is no public key in PEM ({error}).") from error
    if not isinstance(key, keys.Ed25519PublicKey):
        raise BadInput(f"{path}: is a key of another kind; artifacts are signed with Ed25519 keys.")
    return key


def _key_id(key: Any) -> str:
    encoding = _serialization()
    raw: bytes = key.public_bytes(encoding.Encoding.Raw, encoding.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInput(f"{folder}: has no {MANIFEST}; give the folder of an artifact.")
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
