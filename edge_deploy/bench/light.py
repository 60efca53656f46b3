"""`make bench-light`: what importing and opening a session takes where only a device's packages are installed.

Two environments are made in build/bench-light: one with today's runtime, one with tflite-runtime 2.14 and NumPy 1. In
each a fresh interpreter imports `edge_deploy` and opens the yardstick CNN, many times; wanted are under 0.3 s and under
60 MB in the median. It opens the bare file, which every process tries in another one first, and an artifact's folder,
whose digests it checks. What counts is the first row of each: warm, on all cores, with the threads that NumPy starts by
itself. The other conditions are one core; and cold, for which all files of the environment are dropped from the
system's cache before each run. Needs EDGE_DEPLOY_DATA and a package index.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_deploy.bench.models import development_data
from edge_deploy.bench.rows import markdown

__all__ = ["main"]

HOME = Path("build/bench-light")
EXTRAS = ("run-tflite", "run-tflite-runtime")
RUNS = 15
MOST_S, MOST_BYTES = 0.3, 60_000_000
WARM, ONE_CORE, COLD = CONDITIONS = ("warm", "warm, one core", "cold")
COLUMNS = ("extra", "source", "condition", "median, s", "lowest to highest", "peak memory, MB", "heavy modules")
CONVERT = (
    "convert",
    "edge_deploy.zoo.small_cnn:small_cnn",
    "--input",
    "image:1,1,8,8",
    "--to",
    "tflite",
    "--precision",
    "float32",
)
SCRIPT = """
import json, sys, time
start = time.perf_counter()
from edge_deploy import open_session
session = open_session(sys.argv[1])
seconds = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
heavy = [name for name in ("torch", "tensorflow") if name in sys.modules]
print(json.dumps([seconds, int(peak.split()[1]) * 1024, session.kernels, heavy]))
"""


def environment(extra: str) -> Path:
    """The Python of an environment with this extra alone; made where it is not there yet."""
    folder = HOME / extra
    if not (folder / "made").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "-e", f".[{extra}]"]
        subprocess.run(install, check=True)
        (folder / "made").touch()
    return folder / "bin" / "python"


def drop_from_cache(folder: Path) -> None:
    """Let the system forget the files' contents, as far as no process has mapped them."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def opened(python: Path, source: Path, condition: str) -> tuple[float, int, str, list[str]]:
    """Seconds, peak bytes, kernels and heavy modules of one fresh interpreter."""
    if condition == COLD:
        drop_from_cache(python.parents[1])
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [str(python), "-c", SCRIPT, str(source)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, [core])) if condition == ONE_CORE else None,
    )
    seconds, peak, kernels, heavy = json.loads(done.stdout)
    return seconds, peak, kernels, heavy


def rows(extra: str, sources: Mapping[str, Path]) -> Iterator[tuple[tuple[object, ...], bool]]:
    """Lines of the table, and whether their figures are met; all of an environment's runs are interleaved."""
    python = environment(extra)
    cells = [(name, condition) for name in sources for condition in CONDITIONS]
    found: dict[tuple[str, str], list[tuple[float, int, str, list[str]]]] = {cell: [] for cell in cells}
    for run in range(RUNS + 1):
        for name, condition in cells:
            said = opened(python, sources[name], condition)
            if run:  # the first ones compile Python files
                found[name, condition].append(said)
    for name, condition in cells:
        runs = found[name, condition]
        seconds = [each[0] for each in runs]
        median, peak = statistics.median(seconds), statistics.median(each[1] for each in runs)
        heavy = ", ".join(runs[0][3]) or "none"
        line = (
            extra,
            name,
            condition,
            f"{median:.3f}",
            f"{min(seconds):.3f} to {max(seconds):.3f}",
            f"{peak / 1e6:.1f}",
            heavy,
        )
        is_met = median < MOST_S and peak < MOST_BYTES and heavy == "none"
        yield line, is_met or condition != WARM


def main() -> None:
    """Print the table; ends with 1 where a figure is missed."""
    folder = HOME / "artifact"
    if not folder.exists():
        convert = [sys.executable, "-m", "edge_deploy.cli.main", *CONVERT, "--out", str(folder)]
        subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
    sources = {
        "bare file": next((development_data() / "models" / "yardstick_cnn_int8").glob("*.tflite")),
        "artifact": next(each.parent for each in folder.glob("*/manifest.json")),
    }
    lines = [line for extra in EXTRAS for line in rows(extra, sources)]
    print(markdown(COLUMNS, [cells for cells, _ in lines]))
    is_met = all(is_met for _, is_met in lines)
    wanted = f"under {MOST_S} s and {MOST_BYTES / 1e6:.0f} MB, warm"
    print(f"\nOf {RUNS} fresh interpreters each; {wanted}: {'met' if is_met else 'missed'}.")
    sys.exit(not is_met)


if __name__ == "__main__":
    main()
