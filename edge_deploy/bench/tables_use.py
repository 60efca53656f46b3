"""What an artifact with large tables costs the process that uses it: time to load, resident memory, time a sample."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.registry import load
from runtimes.folder import read_artifact
from runtimes.session import BACKENDS

__all__ = ["measure_use", "power_law_ids", "uniform_ids"]

SAMPLES = 2000
ROUNDS = 9


def measure_use(folder: Path, backend: str | None = None) -> dict[str, float]:
    """Load and run an artifact in a fresh process.

    Returns:
        load_ms (of the runtime's own loading, files in cache, after imports), resident_mb (RssAnon + RssFile of the
        process at the end of the power-law rounds), runtime_mb (the same before it loaded anything), and us a sample
        on power-law and on uniform ids.
    """
    command = [sys.executable, "-m", "edge_deploy.bench.tables_use", str(folder), backend or ""]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def power_law_ids(random: np.random.Generator, rows: np.ndarray, samples: int, exponent: float = 1.05) -> np.ndarray:
    """Ids [samples, tables] whose frequencies fall as rank^-exponent."""
    wide = 1 - exponent
    ranks = ((rows.astype(np.float64) ** wide - 1) * random.random((samples, len(rows))) + 1) ** (1 / wide)
    found: np.ndarray = np.minimum(ranks.astype(np.int64) - 1, rows - 1).clip(min=0)
    return found


def uniform_ids(random: np.random.Generator, rows: np.ndarray, samples: int) -> np.ndarray:
    """Ids [samples, tables], each row as likely as any other."""
    found: np.ndarray = (random.random((samples, len(rows))) * rows).astype(np.int64)
    return found


def _measure_here(folder: Path, backend: str | None) -> dict[str, float]:
    artifact = read_artifact(folder)
    path = folder / artifact.model_file.path
    data = tuple(folder / entry.path for entry in artifact.files if entry.role == "data")
    module: Any = load("runtimes.backends", backend or BACKENDS[path.suffix])
    _import_runtime(path.suffix, native=backend is not None)
    options: dict[str, Any] = {"data_files": data, "known": artifact.signatures, "signature": None, "threads": 1}
    runtime_mb = _resident_mb(0)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        session = module.open_model(path, kernels="default", **options)
        times.append(time.perf_counter() - begin)
        session.close()
    session = module.open_model(path, kernels="default", **options)
    process = getattr(session, "process_id", 0)
    random = np.random.default_rng(0)
    found = {"load_ms": 1e3 * float(np.median(times)), "runtime_mb": runtime_mb}
    for name, make in (("power_law", power_law_ids), ("uniform", uniform_ids)):
        found[f"{name}_us"] = float(np.median([_microseconds(session, random, make) for _ in range(ROUNDS)]))
        if name == "power_law":
            found["resident_mb"] = _resident_mb(process)
    session.close()
    return found


def _import_runtime(suffix: str, *, native: bool) -> None:
    if suffix == ".tflite":
        import ai_edge_litert.interpreter  # noqa: F401  # loading is timed after imports
    elif not native:
        import executorch.extension.pybindings.portable_lib
        import executorch.kernels.quantized  # noqa: F401


def _microseconds(session: Any, random: np.random.Generator, make: Any) -> float:
    dense, ids = sorted(session.signature.inputs, key=lambda info: not info.dtype.startswith("float"))
    drawn = make(random, np.array(ids.id_bounds), SAMPLES).astype(ids.dtype).reshape(SAMPLES, *ids.shape)
    value = random.standard_normal(dense.shape).astype(np.float32)
    begin = time.perf_counter()
    for each in drawn:
        session.run({dense.name: value, ids.name: each})
    return 1e6 * (time.perf_counter() - begin) / SAMPLES


def _resident_mb(process: int) -> float:
    status = Path("/proc", str(process or "self"), "status").read_text(encoding="utf-8")
    kinds = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return sum(int(kinds[kind].split()[0]) for kind in ("RssAnon", "RssFile")) / 1000


if __name__ == "__main__":
    print(json.dumps(_measure_here(Path(sys.argv[1]), sys.argv[2] or None)))
