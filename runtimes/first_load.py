"""Load a file from outside for the first time in another process, because a damaged one can end its process.

`trial` does so beside what its caller does meanwhile, e.g. look through the file. Where this process has no other
thread that the attempt could miss, a fork of it spares an interpreter's start and imports; else there is a fresh one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]  # asked for before each use

from edge_deploy.core.registry import load
from runtimes.forked import Forked, may_fork, run_forked

if TYPE_CHECKING:
    from runtimes.contracts import Kernels

__all__ = ["first_load", "forked_load", "load_and_run_once", "trial"]

TIMEOUT_S = 120.0
SPARE_BYTES = 4 << 30
MOST_REMEMBERED = 1024

# What has loaded and run: contents of model and data files, backend, kernels. The oldest is forgotten first.
_sound: dict[tuple[str, ...], None] = {}


def first_load(
    path: Path,
    *,
    backend: str,
    data_files: tuple[Path, ...] = (),
    kernels: Kernels = "default",
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Load the file and run it once on zeros, in a fresh process; bytes that did so are not tried again.

    What reads beyond its memory is more likely to die in a fresh process than in a fork, which has more of it.

    Raises:
        ToolchainError: The process died, e.g. of SIGSEGV, ran too long, or the runtime failed.
        BadInput: The runtime refused the file.
    """
    with trial(
        path, backend=backend, data_files=data_files, kernels=kernels, timeout_s=timeout_s, is_fresh=True
    ) as wait:
        wait()


@contextmanager
def trial(
    path: Path,
    *,
    backend: str,
    data_files: tuple[Path, ...] = (),
    kernels: Kernels = "default",
    timeout_s: float = TIMEOUT_S,
    is_fresh: bool = False,
) -> Iterator[Callable[[], None]]:
    """`first_load`, started with the `with` block: its value is to be called before the file is loaded here.

    It waits for the other process, and raises what `first_load` raises. The process ends with the block.

    Args:
        is_fresh: Never a fork.
    """
    files = (path, *data_files)
    # Before the first file of this process there is nothing to remember, and digests can wait until it runs.
    if _sound and _contents(files, backend, kernels) in _sound:
        yield lambda: None
        return
    stage = f"first load of {path.name}"
    if may_fork() and not is_fresh:
        module = load("runtimes.backends", backend)
        if hasattr(module, "runtime_version"):
            module.runtime_version()  # imports the runtime, once for both processes
        attempt = partial(_attempt, path, backend, data_files, kernels)
        with Forked(attempt, stage=stage, timeout_s=timeout_s) as fork:
            if fork.is_complete:
                yield lambda: _wait(fork.answer, files, backend, kernels)
                return
    from edge_deploy.core.child import Child

    with Child() as child:
        answer = child.begin(
            "runtimes.first_load:load_and_run_once",
            {"path": path, "backend": backend, "data_files": data_files, "kernels": kernels},
            stage=stage,
            timeout_s=timeout_s,
        )
        yield lambda: _wait(answer, files, backend, kernels)


def forked_load(
    path: Path,
    *,
    backend: str,
    data_files: tuple[Path, ...] = (),
    kernels: Kernels = "default",
    timeout_s: float = TIMEOUT_S,
) -> None:
    """As `first_load`, always in a fork of this process and without memory of earlier tries: for many files in a row.

    Raises:
        ToolchainError: The fork died, ran too long, or the runtime refused the file.
    """
    attempt = partial(_attempt, path, backend, data_files, kernels)
    run_forked(attempt, stage=f"first load of {path.name}", timeout_s=timeout_s)


def _attempt(path: Path, backend: str, data_files: tuple[Path, ...], kernels: Kernels) -> str:
    load_and_run_once(str(path), backend, [str(file) for file in data_files], kernels)
    return ""


def _wait(answer: Callable[[], object], files: tuple[Path, ...], backend: str, kernels: Kernels) -> None:
    contents = _contents(files, backend, kernels)
    answer()
    while len(_sound) >= MOST_REMEMBERED:
        _sound.pop(next(iter(_sound)), None)
    _sound[contents] = None


def _contents(files: tuple[Path, ...], backend: str, kernels: Kernels) -> tuple[str, ...]:
    from edge_deploy.core.digest import file_sha256

    return (backend, kernels, *(file_sha256(file) for file in files))


def load_and_run_once(path: str, backend: str, data_files: list[str], kernels: Kernels) -> None:
    """What the child does; also for a forked child, see `runtimes.inspect`.

    Raises:
        EdgeDeployError: As the backend raises it; nothing when the process dies.
    """
    from runtimes.calling import zeros_for

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
