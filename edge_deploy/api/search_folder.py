"""The folder of a search: one that the same search began is gone on with, any other is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from edge_deploy.api.search_data import Part
from edge_deploy.api.search_request import SearchRequest
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import to_json

__all__ = ["open_folder"]

KEY = "key.json"


def open_folder(request: SearchRequest, part: Part, unseen: Part) -> None:
    """Make the folder, or go on in one that the same search began.

    Raises:
        BadInput: It belongs to another search or to something else.
    """
    key = _key(request, part, unseen)
    path = request.out / KEY
    if request.out.exists() and any(request.out.iterdir()):
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("digest") == key:
            return
        if not path.is_file():
            raise BadInput(f"{request.out}: holds other things than a search; choose another --out.")
        if not request.force:
            raise BadInput(
                f"{request.out}: holds a search for another model, data or limits; choose another --out, or --force to "
                "begin anew."
            )
        shutil.rmtree(request.out)
    request.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"digest": key}), encoding="utf-8")


def _key(request: SearchRequest, part: Part, unseen: Part) -> str:
    """Digest of all that decides what a point is; the limit, the aim and the budget do not."""
    files = [Path(request.capture.source), request.capture.weights, request.calibrate]
    told = {
        "capture": to_json(request.capture),
        "files": [None if path is None else _content(path) for path in files],
        "target": request.target,
        "spec": to_json(request.spec),
        "calibrate_limit": request.calibrate_limit,
        "samples": [part.digest, unseen.digest],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _content(path: Path) -> list[str]:
    """What stands in a file, or in the files of a folder (a SavedModel, images); a factory's name tells only itself."""
    inside = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return [f"{each.name} {file_sha256(each)}" if each.is_file() else str(each) for each in inside]
