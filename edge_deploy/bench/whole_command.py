"""Seconds of whole `edge-deploy convert` commands: what a user waits for, evaluation and report included."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edge_deploy.bench.models import DESCRIPTIONS, Net
from edge_deploy.core.errors import ToolchainError

__all__ = ["COLUMNS", "command_lines", "command_row"]

SAMPLES = (500, 4000)  # for calibration; the first one is what the limit is for
TURNS = 3
LIMIT_S = 30
COLUMNS = ("whole command", "median s", "each s", "CPU s", f"wanted < {LIMIT_S} s")


def command_row(net: Net) -> dict[str, Any]:
    """Wall and CPU seconds of the INT8 conversion of one CNN, interleaved, by format and number of samples.

    Raises:
        ToolchainError: The command failed.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(TURNS):
            for samples in SAMPLES:
                for target in ("tflite", "executorch"):
                    out = Path(scratch) / f"{target}-{samples}-{turn}"
                    wall_s, cpu_s = _run(net, target, samples, out)
                    took = found.setdefault(f"{target}, {samples} samples", {"wall_s": [], "cpu_s": []})
                    took["wall_s"].append(wall_s)
                    took["cpu_s"].append(cpu_s)
    return found


def command_lines(name: str, row: dict[str, Any]) -> list[list[object]]:
    """Lines of a table with `COLUMNS`."""
    lines: list[list[object]] = []
    for case, took in row.items():
        median_s = statistics.median(took["wall_s"])
        is_judged = case.endswith(f", {SAMPLES[0]} samples")
        verdict = ("met" if median_s < LIMIT_S else f"NOT met ({LIMIT_S})") if is_judged else ""
        each = ", ".join(f"{value:.1f}" for value in took["wall_s"])
        cpu_s = statistics.median(took["cpu_s"])
        lines.append([f"{name} -> {case}", f"{median_s:.1f}", each, f"{cpu_s:.0f}", verdict])
    return lines


def _run(net: Net, target: str, samples: int, out: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", "from edge_deploy.cli.main import main; main()", "convert", net.source]
    command += ["--to", target, "--precision", "int8", "--calibrate", str(DESCRIPTIONS / net.calibrate)]
    command += ["--calibrate-limit", str(samples), "--eval", str(DESCRIPTIONS / net.evaluate), "--out", str(out)]
    before, start = _children_cpu_s(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - start
    if done.returncode:
        raise ToolchainError(f"edge-deploy {' '.join(command[3:])}: failed: {done.stderr[-1000:]}")
    return wall_s, _children_cpu_s() - before


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
