"""What a native runner must know of a model that was pushed: its file, its runtime, and how it wants to be called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.artifact import MANIFEST, Signature
from edge_deploy.core.errors import BadInput, Unsupported
from runtimes.calling import pick_signature
from runtimes.folder import read_artifact

__all__ = ["NativeModel", "find_model"]

RUNTIMES = {".tflite": "litert", ".pte": "executorch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeModel:
    """A model on a device, and the same file here.

    Attributes:
        runtime: "litert" or "executorch".
        path: On the device; `file` is the one it was pushed from. The same holds for `data`, a `.ptd` or nothing.
    """

    runtime: str
    path: str
    file: Path
    signature: Signature
    data_path: str = ""
    data_file: Path | None = None


def find_model(path: str, pushed: Mapping[str, Path], *, backend: str | None, signature: str | None) -> NativeModel:
    """The model that lies at `path` on the device: an artifact's folder, or a bare file.

    Args:
        pushed: What came from where, by path on the device.
        backend: What the user asked for; None takes the one of the file's type.

    Raises:
        BadInput: Nothing of the kind was pushed, or it has no such signature.
        Unsupported: No native runner runs it, or not by this backend.
    """
    manifest = pushed.get(f"{path}/{MANIFEST}")
    known: tuple[Signature, ...] = ()
    data: tuple[str, ...] = ()
    model = path
    if manifest is not None:
        artifact = read_artifact(manifest.parent)
        known = artifact.signatures
        model = f"{path}/{artifact.model_file.path}"
        data = tuple(f"{path}/{entry.path}" for entry in artifact.files if entry.role == "data")
    elif path.endswith(".pte"):
        folder, _, name = path.rpartition("/")
        beside = f"{folder}/{name.removesuffix('.pte')}.ptd"
        data = (beside,) if beside in pushed else ()
    missing = [each for each in (model, *data) if each not in pushed]
    if missing:
        raise BadInput(f"{missing[0]}: was not pushed to the device.")
    file = pushed[model]
    runtime = RUNTIMES.get(file.suffix)
    if runtime is None:
        raise Unsupported(f"{file}: native runners run {' and '.join(RUNTIMES)} files; this device has nothing else.")
    if backend not in (None, runtime):
        raise Unsupported(f"{file}: --backend {backend}: the native runner of this device is {runtime}; leave it out.")
    if len(data) > 1:
        raise BadInput(f"{file}: the runner takes one data file, {len(data)} were given.")
    return NativeModel(
        runtime=runtime,
        path=model,
        file=file,
        signature=pick_signature(file, known or _own_signatures(file), signature),
        data_path=data[0] if data else "",
        data_file=pushed[data[0]] if data else None,
    )


def _own_signatures(file: Path) -> tuple[Signature, ...]:
    if file.suffix == ".tflite":
        from runtimes.formats.tflite import read_signatures

        return read_signatures(file)
    from runtimes.backends.executorch import own_signatures
    from runtimes.formats.pte import read_pte

    return own_signatures(read_pte(file))
