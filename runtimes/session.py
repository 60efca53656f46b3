"""Open an artifact folder or a bare model file as a session: checked, tried in another process, then loaded here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.registry import load
from runtimes.contracts import Kernels, Session
from runtimes.first_load import trial
from runtimes.folder import artifact_file, check_files, read_artifact, weights_beside
from runtimes.minimum import check_minimum_runtime

__all__ = ["BACKENDS", "open_bare_file", "open_session"]

BACKENDS = {".tflite": "litert", ".pte": "executorch", ".onnx": "onnxruntime", ".pt2": "torch-eager", ".c": "c-host"}


def open_session(
    source: Path | str,
    *,
    backend: str | None = None,
    signature: str | None = None,
    threads: int = 1,
    kernels: Kernels = "default",
    trusted: bool = False,
    public_key: Path | str | None = None,
) -> Session:
    """Load a model to run it in this process.

    An artifact's files are compared with the digests in its manifest. A bare file is looked through and then loaded
    in a child process first, because a damaged one can end the process that loads it.

    Args:
        source: An artifact folder, or a `.tflite`, `.pte`, `.onnx` or `.pt2` file, or the `model.c` of a C project,
            which is compiled and run: open only C that you trust.
        backend: Module name in `runtimes/backends`; None for the one of the file's type.
        signature: Name of the signature to call; None for the first.
        kernels: The runtime's own choice, its builtin kernels, or its reference kernels.
        trusted: A bare file of your own: skip the child process, but not the look through.
        public_key: PEM file of the Ed25519 key that must have signed the artifact's manifest; bare files are refused.

    Raises:
        BadInput: The file is damaged, of an unknown type, not the one that its manifest describes, or not signed with
            `public_key`.
        Unsupported: The runtime is too old for the artifact, or has no such kernels.
        MissingExtra: The runtime is not installed.
        ToolchainError: The runtime died of the file, in the child process.
    """
    if threads < 1:
        raise BadInput(f"threads = {threads}: must be at least 1.")
    if kernels not in ("default", "builtin", "reference"):
        raise BadInput(f"kernels = {kernels!r}: must be default, builtin or reference.")
    source = Path(source)
    if not source.is_dir():
        if public_key is not None and source.exists():
            raise BadInput(f"{source}: a bare file has no signed manifest; give the artifact's folder.")
        return open_bare_file(
            source, backend=backend, signature=signature, threads=threads, kernels=kernels, trusted=trusted
        )
    artifact = read_artifact(source, public_key=public_key)
    check_files(source, artifact)
    path = artifact_file(source, artifact.model_file.path)
    data_files = tuple(artifact_file(source, entry.path) for entry in artifact.files if entry.role == "data")
    name = backend or _backend_of(path)
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
    backend: str | None,
    signature: str | None,
    threads: int,
    kernels: Kernels,
    trusted: bool,
) -> Session:
    """Load a model file that has no manifest; see `open_session`."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder.")
    name = backend or _backend_of(path)
    data_files = weights_beside(path)
    is_tried = not trusted and name != "null"
    tried = trial(path, backend=name, data_files=data_files, kernels=kernels) if is_tried else nullcontext(_no_trial)
    with tried as wait_for_trial:
        signatures = _look_through(path)
        wait_for_trial()
        module = load("runtimes.backends", name)
        opened: Session = module.open_model(
            path,
            data_files=data_files,
            known=signatures() if name == "litert" else (),
            signature=signature,
            threads=threads,
            kernels=kernels,
        )
    return opened


def _no_trial() -> None:
    """A file of one's own is taken for sound."""


def _backend_of(path: Path) -> str:
    if path.suffix not in BACKENDS:
        raise BadInput(f"{path}: unknown type of file; must end in {', '.join(BACKENDS)}, or be an artifact folder.")
    return BACKENDS[path.suffix]


def _look_through(path: Path) -> Callable[[], tuple[Signature, ...]]:
    """Refuse a file whose structure is wrong; what is returned says how the file wants to be called.

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
    return partial(file_signatures, model)


def _schema_is_installed() -> bool:
    import importlib.util

    # A device with tflite-runtime only has no schema; the interpreter's own verifier remains.
    try:
        return importlib.util.find_spec("ai_edge_litert.schema_py_generated") is not None
    except ModuleNotFoundError:
        return False
