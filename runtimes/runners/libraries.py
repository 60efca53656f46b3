"""Where a runtime's native libraries come from: its installed wheel, or the same version's for another processor."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.errors import MissingExtra, ToolchainError, Unsupported
from runtimes.probes.machine import read_machine

__all__ = ["RUNTIMES", "TESTED_VERSIONS", "RuntimeLibraries", "cache_folder", "runtime_libraries"]

FETCH_S = 300.0
TESTED_VERSIONS = {"ai-edge-litert": ("2.3.0",), "executorch": ("1.5.1",)}
"""LiteRT's wheel has no headers: what the runner declares holds for these versions only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wheel:
    """Where things lie in a wheel.

    Attributes:
        folder: Of the libraries, in the wheel.
        link: What the runner is linked with.
        include: Folders of headers, in the wheel.
    """

    distribution: str
    package: str
    extra: str
    folder: str
    link: tuple[str, ...]
    include: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()


RUNTIMES = {
    "litert": _Wheel(
        distribution="ai-edge-litert",
        package="ai_edge_litert",
        extra="run-tflite",
        folder="ai_edge_litert",
        link=("LiteRt",),
    ),
    "executorch": _Wheel(
        distribution="executorch",
        package="executorch",
        extra="run-executorch",
        folder="executorch/lib",
        link=(
            "executorch",
            "executorch_kernels_optimized",
            "executorch_kernels_quantized",
            "executorch_backend_xnnpack",
            "executorch_threadpool",
        ),
        include=("executorch/include", "executorch/include/executorch/runtime/core/portable_type/c10"),
        defines=("C10_USING_CUSTOM_GENERATED_MACROS",),
    ),
}
# Tags that pip must be told when it fetches for another processor than its own.
PLATFORMS = {
    isa: (*(f"manylinux_2_{minor}_{isa}" for minor in (17, 27, 28)), f"manylinux2014_{isa}")
    for isa in ("aarch64", "x86_64")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeLibraries:
    """A runtime for one processor.

    Attributes:
        folder: Holds the shared libraries.
        link: Their names for the linker.
        include: Folders with headers; they are the same for all processors.
    """

    name: str
    version: str
    folder: Path
    link: tuple[str, ...]
    include: tuple[Path, ...]
    defines: tuple[str, ...]


def cache_folder() -> Path:
    """Where what was built or fetched is kept: EDGE_DEPLOY_CACHE, or the user's cache folder."""
    given = os.environ.get("EDGE_DEPLOY_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-deploy"


def runtime_libraries(runtime: str, isa: str) -> RuntimeLibraries:
    """The libraries of the installed version of "litert" or "executorch", for this or another processor.

    For another processor the wheel of the same version is fetched once by pip and kept in the cache.

    Raises:
        MissingExtra: The runtime is not installed here.
        Unsupported: There is no such runtime or processor, or no runner for the installed version.
        ToolchainError: The wheel for the other processor could not be fetched.
    """
    if runtime not in RUNTIMES or isa not in PLATFORMS:
        raise Unsupported(
            f"native runner of {runtime} for {isa}: must be {' or '.join(RUNTIMES)} for {' or '.join(PLATFORMS)}."
        )
    wheel = RUNTIMES[runtime]
    spec = importlib.util.find_spec(wheel.package)
    try:
        version = importlib.metadata.version(wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(
            f"native runner of {runtime}: needs {wheel.distribution}; pip install 'edge-deploy[{wheel.extra}]'"
        )
    if version not in TESTED_VERSIONS[wheel.distribution]:
        tested = ", ".join(TESTED_VERSIONS[wheel.distribution])
        raise Unsupported(f"native runner: {wheel.distribution} {version}: is made for {tested}; install that version.")
    home = Path(next(iter(spec.submodule_search_locations))).parent
    place = home if isa == read_machine().isa else _fetched(wheel, version, isa)
    return RuntimeLibraries(
        name=wheel.distribution,
        version=version,
        folder=place / wheel.folder,
        link=wheel.link,
        include=tuple(home / folder for folder in wheel.include),
        defines=wheel.defines,
    )


def _fetched(wheel: _Wheel, version: str, isa: str) -> Path:
    """A folder with the libraries of the wheel for another processor."""
    place = cache_folder() / "wheels" / f"{wheel.distribution}-{version}-{isa}"
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=place.parent) as folder:
        scratch = Path(folder)
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *("--python-version", f"{sys.version_info.major}.{sys.version_info.minor}", "--implementation", "cp"),
            *(word for tag in PLATFORMS[isa] for word in ("--platform", tag)),
            *("--dest", str(scratch), f"{wheel.distribution}=={version}"),
        ]
        what = f"{wheel.distribution} {version} for {isa}"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ToolchainError(f"{what}: pip gave no answer within {FETCH_S:.0f} s.") from error
        found = sorted(scratch.glob("*.whl"))
        if done.returncode or not found:
            raise ToolchainError(f"{what}: pip could not fetch its wheel: {done.stderr.strip()[-500:]}")
        unpacked = scratch / "unpacked"
        with zipfile.ZipFile(found[0]) as archive:
            for name in archive.namelist():
                if name.startswith(f"{wheel.folder}/") and name.endswith(".so") and _is_used(wheel, name):
                    archive.extract(name, unpacked)
        try:
            unpacked.rename(place)
        except OSError:  # another process was faster
            if not place.is_dir():
                raise
    return place


def _is_used(wheel: _Wheel, name: str) -> bool:
    return Path(name).name in {f"lib{library}.so" for library in wheel.link}
