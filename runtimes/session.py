"""Open an artifact folder or a bare model file as a session: checked, tried in another process, then loaded here.

This is the door: what it opens lies in `runtimes.opening`. Nothing heavy is imported above, so that the other process
can start first and import beside this one, see `runtimes.first_load`.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from edge_deploy.core.errors import BadInput
from runtimes.first_load import trial
from runtimes.model_file import BACKENDS, backend_of, weights_beside

if TYPE_CHECKING:
    from runtimes.contracts import Kernels, Session

__all__ = ["BACKENDS", "open_session"]


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
    if source.is_dir():
        from runtimes.opening import open_folder

        return open_folder(
            source,
            backend=backend,
            signature=signature,
            threads=threads,
            kernels=kernels,
            public_key=public_key,
        )
    if not source.is_file():
        raise BadInput(f"{source}: no such file or folder.")
    if public_key is not None:
        raise BadInput(f"{source}: a bare file has no signed manifest; give the artifact's folder.")
    name = backend or backend_of(source)
    data_files = weights_beside(source)
    is_tried = not trusted and name != "null"
    tried = trial(source, backend=name, data_files=data_files, kernels=kernels) if is_tried else nullcontext(_no_trial)
    with tried as wait_for_trial:
        from runtimes.opening import open_bare_file

        return open_bare_file(
            source,
            backend=name,
            data_files=data_files,
            wait_for_trial=wait_for_trial,
            signature=signature,
            threads=threads,
            kernels=kernels,
        )


def _no_trial() -> None:
    """A file of one's own is taken for sound."""
