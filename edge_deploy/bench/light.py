"""`make bench-light`: what importing and opening a session takes where only a device's packages are installed.

Two environments are made in build/bench-light: one with today's runtime, one with tflite-runtime 2.14 and NumPy 1. In
each a fresh interpreter imports `edge_deploy` and opens the yardstick CNN, many times; wanted are under 0.3 s and under
60 MB in the median. Needs EDGE_DEPLOY_DATA and a package index.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path

from edge_deploy.bench.models import development_data
from edge_deploy.bench.rows import markdown

__all__ = ["main"]

HOME = Path("build/bench-light")
EXTRAS = ("run-tflite", "run-tflite-runtime")
RUNS = 15
MOST_S, MOST_BYTES = 0.3, 60_000_000
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


def row(extra: str, model: Path) -> tuple[tuple[object, ...], bool]:
    """A line of the table, and whether both figures are met."""
    python = environment(extra)
    found = []
    for _ in range(RUNS):
        command = [str(python), "-c", SCRIPT, str(model)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    seconds = statistics.median(each[0] for each in found)
    peak = statistics.median(each[1] for each in found)
    heavy = ", ".join(found[0][3]) or "none"
    is_met = seconds < MOST_S and peak < MOST_BYTES and heavy == "none"
    cells = (extra, found[0][2], f"{seconds:.3f}", f"{peak / 1e6:.1f}", heavy, "met" if is_met else "missed")
    return cells, is_met


def main() -> None:
    """Print the table; ends with 1 where a figure is missed."""
    model = next((development_data() / "models" / "yardstick_cnn_int8").glob("*.tflite"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = [row(extra, model) for extra in EXTRAS]
    columns = ("extra", "kernels", "import and open, s", "peak memory, MB", "heavy modules", "under 0.3 s and 60 MB")
    print(markdown(columns, [cells for cells, _ in rows]))
    sys.exit(not all(is_met for _, is_met in rows))


if __name__ == "__main__":
    main()
