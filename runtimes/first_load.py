"""Load a file from outside for the first time in a child process, because a damaged one can end its process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]  # asked for before each use

from edge_deploy.core.child import run_in_child
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.registry import load
from runtimes.calling import zeros_for
from runtimes.contracts import Kernels
from runtimes.forked import run_forked

__all__ = ["first_load", "forked_load", "load_and_run_once"]

TIMEOUT_S = 120.0
SPARE_BYTES = 4 << 30


def first_load(
    path: Path,
    *,
    backend: str,
    data_files: tuple[Path, ...] = (),
    kernels: Kernels = "default",
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Load the file and run it once on zeros, in a fresh interpreter; the same bytes are tried once a process.

    Raises:
        ToolchainError: The child died, e.g. of SIGSEGV, ran too long, or the runtime failed.
        BadInput: The runtime refused the file.
    """
    digests = tuple(file_sha256(file) for file in (path, *data_files))
    _tried(digests, path, backend, data_files, kernels, timeout_s)


def forked_load(
    path: Path,
    *,
    backend: str,
    data_files: tuple[Path, ...] = (),
    kernels: Kernels = "default",
    timeout_s: float = TIMEOUT_S,
) -> None:
    """As `first_load`, in a fork of this process and without memory of earlier tries: for many files in a row.

    Raises:
        ToolchainError: The fork died, ran too long, or the runtime refused the file.
    """

    def attempt() -> str:
        load_and_run_once(str(path), backend, [str(file) for file in data_files], kernels)
        return ""

    run_forked(attempt, stage=f"first load of {path.name}", timeout_s=timeout_s)


@lru_cache(maxsize=1024)
def _tried(
    digests: tuple[str, ...],
    path: Path,
    backend: str,
    data_files: tuple[Path, ...],
    kernels: Kernels,
    timeout_s: float,
) -> None:
    run_in_child(
        "runtimes.first_load:load_and_run_once",
        {"path": path, "backend": backend, "data_files": data_files, "kernels": kernels},
        stage=f"first load of {path.name}",
        timeout_s=timeout_s,
    )


def load_and_run_once(path: str, backend: str, data_files: list[str], kernels: Kernels) -> None:
    """What the child does; also for a forked child, see `runtimes.inspect`.

    Raises:
        EdgeDeployError: As the backend raises it; nothing when the process dies.
    """
    module = load("runtimes.backends", backend)
    limit_memory(SPARE_BYTES + 4 * sum(Path(file).stat().st_size for file in (path, *data_files)))
    session = module.open_model(
        Path(path),
        data_files=tuple(Path(file) for file in data_files),
        known=(),
        signature=None,
        threads=1,
        kernels=kernels,
    )
    session.run(zeros_for(session.signature))
    session.close()


def limit_memory(spare_bytes: int) -> None:
    """Let this process grow by no more than `spare_bytes` of address space, where Linux says how large it is now."""
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return
    used = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + spare_bytes
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
