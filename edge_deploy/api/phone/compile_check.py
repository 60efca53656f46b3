"""Compile what can be compiled here: the C part, with its self-test, which is run. The rest is labelled."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.errors import ToolchainError

__all__ = ["Built", "check_c"]

COMPILE_S = 300.0
FLAGS = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror")
SOURCES = ("model_io.c", "model_spec.c", "selftest.c")
CROSS = "aarch64-linux-gnu-gcc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What became of a part of a project: "compiled and its self-test passed", or why it was not built."""

    part: str
    outcome: str


def check_c(folders: Sequence[Path]) -> tuple[Built, ...]:
    """Compile and run the self-test of the C files in `folders`, which together hold the code, headers and test.

    Raises:
        ToolchainError: The compiler refuses them, or the self-test finds a difference: nothing may be delivered then.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        return (Built(part="C: model_io", outcome="not built: no C compiler here (apt-get install gcc)"),)
    found = []
    include = [f"-I{folder}" for folder in folders]
    sources = [str(next(folder / name for folder in folders if (folder / name).is_file())) for name in SOURCES]
    with tempfile.TemporaryDirectory(prefix="edge-deploy-phone-") as scratch:
        program = Path(scratch, "selftest")
        _run([compiler, *FLAGS, *include, *sources, "-lm", "-o", str(program)], "the C part")
        said = _run([str(program)], "the self-test of the C part")
        found.append(Built(part=f"C: model_io, by {Path(compiler).name}", outcome=f"compiled; {said.strip()}"))
        cross = shutil.which(CROSS)
        if cross is not None:
            arm = ["-shared", "-fPIC", *sources[:2], "-lm", "-o", f"{scratch}/arm.so"]
            _run([cross, *FLAGS, *include, *arm], "the C part for arm64")
            found.append(Built(part=f"C: model_io for arm64, by {CROSS}", outcome="compiled, not run"))
    return tuple(found)


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"phone package: {what}: {error}") from error
    if done.returncode:
        raise ToolchainError(f"phone package: {what} failed: {(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout
