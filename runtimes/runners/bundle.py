"""Compile a runner and put beside it all that it needs: loader, C library, runtime. It asks nothing of the device.

Started through its own loader, a bundle runs on any Linux kernel of its processor, whatever C library the device has:
Android's is another one, and that of an older board is too old for the runtimes' wheels.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.errors import MissingExtra, ToolchainError, Unsupported
from runtimes.probes.machine import read_machine
from runtimes.runners.libraries import RuntimeLibraries, cache_folder, runtime_libraries

__all__ = ["RUNNER", "Bundle", "runner_bundle"]

HERE = Path(__file__).parent
RUNNER = "edge-deploy-runner"
COMPILE_S = 300.0
SOURCES = ("main.cpp", "json.cpp", "machine.cpp")
FLAGS = ("-std=c++17", "-O2", "-Wall", "-Wno-deprecated-declarations")
LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
PACKAGES = {"x86_64": "g++", "aarch64": "g++-aarch64-linux-gnu"}
NEEDED = re.compile(r"\(NEEDED\).*\[([^\]/]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A runner with everything it needs, to be laid into one folder of a device.

    Attributes:
        files: The loader, the runner, and all libraries.
        runtime: Name and version of what runs the model, e.g. "ai-edge-litert 2.3.0".
    """

    isa: str
    runtime: str
    loader: str
    files: tuple[Path, ...]

    def command(self, folder: str) -> tuple[str, ...]:
        """How it is started where its files lie in `folder`."""
        return f"{folder}/{self.loader}", "--library-path", folder, f"{folder}/{RUNNER}"


def runner_bundle(runtime: str, isa: str) -> Bundle:
    """The runner of "litert" or "executorch" for "x86_64" or "aarch64", compiled once and kept in the cache.

    Raises:
        MissingExtra: The compiler or the runtime is not installed.
        ToolchainError: The compiler refused it, or a library cannot be found.
        Unsupported: No such runtime or processor.
    """
    if isa not in LOADERS:
        raise Unsupported(f"native runner for {isa}: must be one of {', '.join(LOADERS)}.")
    libraries = runtime_libraries(runtime, isa)
    compiler = _compiler(isa)
    place = cache_folder() / "runners" / f"{runtime}-{isa}-{_digest(libraries, compiler)}"
    if not place.is_dir():
        _build(place, runtime, libraries, compiler, isa)
    files = tuple(sorted(place.iterdir()))
    return Bundle(isa=isa, runtime=f"{libraries.name} {libraries.version}", loader=LOADERS[isa], files=files)


def _compiler(isa: str) -> str:
    cross = shutil.which(f"{isa}-linux-gnu-g++")
    own = shutil.which("g++") if isa == read_machine().isa else None
    if not (own or cross):
        raise MissingExtra(
            f"native runner for {isa}: needs a C++ compiler for it; apt-get install {PACKAGES[isa]} (or run the models "
            "by Python on the device itself)."
        )
    return own or cross or ""


def _digest(libraries: RuntimeLibraries, compiler: str) -> str:
    said = _run([compiler, "--version"], timeout_s=60).stdout
    found = hashlib.sha256(f"{said}{FLAGS}{libraries.version}{libraries.folder}".encode())
    for file in sorted(HERE.glob("*.cpp")) + sorted(HERE.glob("*.h")):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _build(place: Path, runtime: str, libraries: RuntimeLibraries, compiler: str, isa: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=place.parent) as folder:
        made = Path(folder) / "bundle"
        made.mkdir()
        sources = [HERE / name for name in (*SOURCES, f"{runtime}_engine.cpp")]
        done = _run(
            [
                *(compiler, *FLAGS, f"-I{HERE}", *(f"-isystem{path}" for path in libraries.include)),
                *(f"-D{name}" for name in libraries.defines),
                *(*map(str, sources), f"-L{libraries.folder}", "-Wl,--no-as-needed"),
                *(*(f"-l{name}" for name in libraries.link), "-Wl,--as-needed", "-pthread"),
                *("-Wl,--allow-shlib-undefined", "-s", "-o", str(made / RUNNER)),
            ]
        )
        if done.returncode:
            raise ToolchainError(
                f"{Path(compiler).name}: refused the runner of {runtime}: {done.stderr.strip()[-1500:]}"
            )
        _add_libraries(made, libraries, compiler, isa)
        try:
            made.rename(place)
        except OSError:  # another process was faster
            if not place.is_dir():
                raise


def _add_libraries(made: Path, libraries: RuntimeLibraries, compiler: str, isa: str) -> None:
    """Copy what the runner and its libraries ask for, and what those ask for, until nothing is missing."""
    waiting = [RUNNER, LOADERS[isa]]
    while waiting:
        name = waiting.pop()
        target = made / name
        if not target.exists():
            source = libraries.folder / name
            if not source.is_file():
                source = Path(_run([compiler, f"-print-file-name={name}"]).stdout.strip())
            if not source.is_file():
                raise ToolchainError(f"native runner for {isa}: library {name} is nowhere beside {compiler}.")
            shutil.copyfile(source, target)
        target.chmod(0o755)
        asked = NEEDED.findall(_run(["readelf", "-d", str(target)]).stdout)
        waiting += [each for each in asked if not (made / each).exists()]


def _run(command: Sequence[str], *, timeout_s: float = COMPILE_S) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, "LC_ALL": "C"},  # what tools say is read here
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{command[0]}: gave no answer within {timeout_s:.0f} s.") from error
    except OSError as error:
        raise MissingExtra(f"{command[0]}: cannot be started ({error.strerror}); install g++ with binutils.") from error
