"""Write model folders of other servers of the protocol, so that a cluster hosts what our own server would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import BadInput
from edge_deploy.core.publish import published_folder
from runtimes.folder import artifact_file, check_files, read_artifact
from runtimes.serving.offers import Offer, find_offers
from runtimes.serving.tensors import datatype

__all__ = ["LAYOUTS", "export_repository"]

LAYOUTS = ("mlserver",)
RUNTIME = "runtimes.serving.mlserver_runtime.EdgeDeployModel"
ARTIFACT = "artifact"


def export_repository(artifacts: Sequence[Path], out: Path, *, layout: str, force: bool = False) -> tuple[Offer, ...]:
    """Write `out/NAME/model-settings.json` and `out/NAME/artifact/` for each model; returns what was written.

    `mlserver start OUT` serves them, in an environment that has `edge-deploy` and the artifact's runtime; names and
    versions are those that `edge-deploy serve` gives them.

    Raises:
        BadInput: An unknown layout, artifacts that cannot be served or are damaged, or `out` exists.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"--layout {layout}: must be {' or '.join(LAYOUTS)}.")
    offers = find_offers(artifacts)
    with published_folder(out, force=force) as folder:
        # MLServer asks nobody who they are: the world gets in by whatever stands before it.
        server = {"debug": False, "host": "127.0.0.1"}
        (folder / "settings.json").write_text(json.dumps(server, indent=1) + "\n", encoding="utf-8")
        for offer in offers:
            _write_model(offer, folder / _folder_name(offer, offers))
    return offers


def _folder_name(offer: Offer, offers: Sequence[Offer]) -> str:
    """The model's name, with the beginning of its version where a name has several."""
    name = "".join(letter if letter.isalnum() or letter in "-_.@" else "_" for letter in offer.info.name).lstrip(".")
    several = sum(each.info.name == offer.info.name for each in offers) > 1
    return f"{name}-{offer.info.version[:12]}" if several or not name else name


def _write_model(offer: Offer, folder: Path) -> None:
    artifact = read_artifact(offer.folder)
    check_files(offer.folder, artifact)
    if folder.exists():
        raise BadInput(f"{offer.folder}: {offer.info.name} would be written to the folder of another model.")
    (folder / ARTIFACT).mkdir(parents=True)
    for name in (MANIFEST, *(entry.path for entry in artifact.files)):
        target = artifact_file(folder / ARTIFACT, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(offer.folder / name, target)
    settings = {
        "name": offer.info.name,
        "implementation": RUNTIME,
        "platform": offer.platform,
        "versions": [offer.info.version],
        "inputs": [_metadata(info) for info in offer.info.inputs],
        "outputs": [_metadata(info) for info in offer.info.outputs],
        "parameters": {"uri": f"./{ARTIFACT}", "version": offer.info.version},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _metadata(info: Any) -> dict[str, Any]:
    return {"name": info.name, "datatype": datatype(info.dtype), "shape": list(info.shape)}
