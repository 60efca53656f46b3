"""`edge-deploy sign` and `edge-deploy verify-signature`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["sign", "verify_signature"]

Artifacts = Annotated[
    list[Path], typer.Argument(metavar="ARTIFACT", help="Artifact folders, or folders of them (what convert wrote).")
]


def sign(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(metavar="ARTIFACT", help="Artifact folders, or folders of them (what convert wrote)."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ed25519 private key (PEM) without a password.")
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a new private key to FILE and its public key to FILE.pub, first."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign the manifests of artifacts with an Ed25519 key.

    The manifest holds the digest of every file. Loaders check it: open_session(..., public_key=...), and verify and
    benchmark with --public-key.

    \b
    Example:
      edge-deploy sign --new-key release.pem build/resnet8
      edge-deploy verify-signature build/resnet8 --public-key release.pem.pub
    """
    from edge_deploy.api.sign import new_key as make_key
    from edge_deploy.api.sign import sign as sign_all
    from edge_deploy.core.errors import BadInput

    if (key is None) == (new_key is None):
        raise BadInput("give --key FILE, or --new-key FILE to make one.")
    if not artifacts and new_key is None:
        raise BadInput("no artifact: name what to sign.")
    public = make_key(new_key) if new_key is not None else None
    chosen = new_key or key
    assert chosen is not None
    signed = sign_all(artifacts or [], key=chosen)
    if as_json:
        print_json({"public_key": public, "signed": [{"folder": folder, **_told(found)} for folder, found in signed]})
        return
    if public is not None:
        print(f"private key: {new_key} (keep it secret); public key: {public}")
    for folder, found in signed:
        print(f"{folder}: signed with key {found.key_id}")


def verify_signature(
    artifacts: Artifacts,
    public_key: Annotated[Path, typer.Option(metavar="FILE", help="Ed25519 public key (PEM) that you trust.")],
    as_json: AsJson = False,
) -> None:
    """Check who signed artifacts, and every file.

    Manifests must be signed with the key, and every file must be the one that its manifest names.
    """
    from edge_deploy.api.sign import verify_signatures

    checked = verify_signatures(artifacts, public_key=public_key)
    if as_json:
        print_json({"checked": [{"folder": folder, **_told(found)} for folder, found in checked]})
        return
    for folder, found in checked:
        print(f"{folder}: signed with key {found.key_id}; all files as signed")


def _told(found: object) -> dict[str, object]:
    from edge_deploy.core.serde import to_json

    told: dict[str, object] = to_json(found)
    return told
