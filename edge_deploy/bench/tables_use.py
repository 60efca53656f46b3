"""What an artifact with large tables costs the process that uses it: time to load, resident memory, time a sample."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
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
        process, the most that was seen after any sample), anonymous_mb (of that), runtime_mb (resident before it
        loaded anything), and us a sample on power-law and on uniform ids.
    """
    signature = read_artifact(folder).signatures[0]
    (ids,) = [info for info in signature.inputs if info.id_bounds]
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as drawn:
        # Drawn here, so that the measured process holds nothing but what it runs with.
        for name, make in IDS.items():
            for number in range(ROUNDS):
                rows = make(random, np.array(ids.id_bounds), SAMPLES).astype(ids.dtype)
                np.save(Path(drawn, f"{name}-{number}.npy"), rows.reshape(-1, *ids.shape))
        command = [sys.executable, "-m", "edge_deploy.bench.tables_use", str(folder), drawn, backend or ""]
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


IDS = {"power_law": power_law_ids, "uniform": uniform_ids}


def _measure_here(folder: Path, drawn: Path, backend: str | None) -> dict[str, float]:
    artifact = read_artifact(folder)
    path = folder / artifact.model_file.path
    data = tuple(folder / entry.path for entry in artifact.files if entry.role == "data")
    module: Any = load("runtimes.backends", backend or BACKENDS[path.suffix])
    _import_runtime(path.suffix, native=backend is not None)
    options: dict[str, Any] = {"data_files": data, "known": artifact.signatures, "signature": None, "threads": 1}
    runtime_mb = _resident_mb(0)[0]
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        session = module.open_model(path, kernels="default", **options)
        times.append(time.perf_counter() - begin)
        session.close()
    session = module.open_model(path, kernels="default", **options)
    found = {"load_ms": 1e3 * float(np.median(times)), "runtime_mb": runtime_mb}
    for name in IDS:
        files = [drawn / f"{name}-{number}.npy" for number in range(ROUNDS)]
        found[f"{name}_us"] = float(np.median([_microseconds(session, np.load(file)) for file in files]))
        if name == "power_law":
            found["resident_mb"], found["anonymous_mb"] = _most_resident(session, np.load(files[0]))
    session.close()
    return found


def _import_runtime(suffix: str, *, native: bool) -> None:
    if suffix == ".tflite":
        import ai_edge_litert.interpreter  # noqa: F401  # loading is timed after imports
    elif not native:
        import executorch.extension.pybindings.portable_lib
        import executorch.kernels.quantized  # noqa: F401


def _microseconds(session: Any, rows: np.ndarray) -> float:
    given, name = _feed(session)
    begin = time.perf_counter()
    for each in rows:
        given[name] = each
        session.run(given)
    return 1e6 * (time.perf_counter() - begin) / len(rows)


def _most_resident(session: Any, rows: np.ndarray) -> tuple[float, float]:
    given, name = _feed(session)
    process = getattr(session, "process_id", 0)
    seen = []
    for each in rows:
        given[name] = each
        session.run(given)
        seen.append(_resident_mb(process))
    return max(seen)


def _feed(session: Any) -> tuple[dict[str, np.ndarray], str]:
    dense, ids = sorted(session.signature.inputs, key=lambda info: not info.dtype.startswith("float"))
    return {dense.name: np.full(dense.shape, 0.5, np.float32)}, ids.name


def _resident_mb(process: int) -> tuple[float, float]:
    """Anonymous and file pages together, and anonymous pages alone."""
    status = Path("/proc", str(process or "self"), "status").read_text(encoding="utf-8")
    kinds = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    anonymous, files = (int(kinds[kind].split()[0]) * 1024 / 1e6 for kind in ("RssAnon", "RssFile"))
    return anonymous + files, anonymous


if __name__ == "__main__":
    print(json.dumps(_measure_here(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] or None)))
