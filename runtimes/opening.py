"""What `runtimes.session.open_session` opens: an artifact folder by its manifest, or a bare file looked through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.registry import load
from runtimes.contracts import Kernels, Session
from runtimes.folder import artifact_file, check_files, read_artifact
from runtimes.minimum import check_minimum_runtime
from runtimes.model_file import backend_of

__all__ = ["open_bare_file", "open_folder"]


def open_folder(
    folder: Path,
    *,
    backend: str | None,
    signature: str | None,
    threads: int,
    kernels: Kernels,
    public_key: Path | str | None,
) -> Session:
    """Load an artifact whose files are the manifest's; see `runtimes.session.open_session`."""
    artifact = read_artifact(folder, public_key=public_key)
    check_files(folder, artifact)
    path = artifact_file(folder, artifact.model_file.path)
    data_files = tuple(artifact_file(folder, entry.path) for entry in artifact.files if entry.role == "data")
    name = backend or backend_of(path)
    check_minimum_runtime(artifact, backend=name)
    _look_through(path)
    module = load("runtimes.backends", name)
    opened: Session = module.open_model(
        path,
        data_files=data_files,
        known=artifact.signatures,
        signature=signature,
        threads=threads,
        kernels=kernels,
    )
    return opened


def open_bare_file(
    path: Path,
    *,
    backend: str,
    data_files: tuple[Path, ...],
    wait_for_trial: Callable[[], None],
    signature: str | None,
    threads: int,
    kernels: Kernels,
) -> Session:
    """Load a model file that has no manifest; see `runtimes.session.open_session`."""
    signatures = _look_through(path)
    module = load("runtimes.backends", backend)
    if hasattr(module, "runtime_version"):
        module.runtime_version()  # imports the runtime while the trial goes on
    wait_for_trial()
    opened: Session = module.open_model(
        path,
        data_files=data_files,
        known=signatures() if backend == "litert" else (),
        signature=signature,
        threads=threads,
        kernels=kernels,
    )
    return opened


def _look_through(path: Path) -> Callable[[], tuple[Signature, ...]]:
    """Refuse a file whose structure is wrong; what is returned tells how the file wants to be called.

    Raises:
        BadInput: With all that is wrong.
    """
    if path.suffix != ".tflite" or not _schema_is_installed():
        return tuple
    from runtimes.formats.tflite_file import read_tflite
    from runtimes.formats.tflite_lint import lint_problems
    from runtimes.formats.tflite_signatures import file_signatures

    model = read_tflite(path)
    problems = lint_problems(model)
    if problems:
        raise BadInput(*(f"{path}: {problem}" for problem in problems))
    return lambda: file_signatures(model)


def _schema_is_installed() -> bool:
    import importlib.util

    # A device with tflite-runtime only has no schema; the interpreter's own verifier remains.
    try:
        return importlib.util.find_spec("ai_edge_litert.schema_py_generated") is not None
    except ModuleNotFoundError:
        return False
