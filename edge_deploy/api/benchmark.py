"""Measure artifacts and keep the raw values beside them, where the report finds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from device_tests.benchmark import benchmark
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.benchmark import BENCHMARK, BenchmarkReport
from edge_deploy.core.quant_spec import RECIPES
from edge_deploy.core.serde import write_json
from runtimes.folder import check_files, read_artifact

__all__ = ["artifact_folders", "benchmark_and_keep"]


def artifact_folders(paths: Sequence[Path | str]) -> tuple[Path, ...]:
    """Each path itself, or, for a folder that holds artifacts, the artifacts in it: TFLite first, widest first."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [manifest.parent for manifest in path.glob(f"*/{MANIFEST}")] if path.is_dir() else []
        inside.sort(key=_order)
        found += inside if inside and not (path / MANIFEST).exists() else [path]
    return tuple(found)


def _order(folder: Path) -> tuple[bool, int, str]:
    artifact = read_artifact(folder)
    return artifact.format != "tflite", RECIPES.index(artifact.spec.recipe), folder.name


def benchmark_and_keep(
    artifacts: Sequence[Path | str],
    *,
    against: Sequence[Path | str] = (),
    device: str = "host",
    threads: int = 1,
    backend: str | None = None,
    signature: str | None = None,
    kernels: str = "default",
    inputs: Path | str | None = None,
    min_seconds: float = 1.0,
    runs: int = 60,
    rounds: int = 12,
    seed: int = 0,
    public_key: Path | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[BenchmarkReport, ...]:
    """Measure in one interleaved run and write `benchmark.json` into every artifact folder that was measured.

    See `device_tests.benchmark.benchmark` for the other arguments and errors.

    Args:
        public_key: PEM file of the Ed25519 key that must have signed the manifest of each of `artifacts`.

    Raises:
        BadInput: One of them is not signed with it, or is a bare file.
    """
    subjects, others = artifact_folders(artifacts), artifact_folders(against)
    if public_key is not None:
        for path in subjects:
            check_files(path, read_artifact(path, public_key=public_key))
    reports = benchmark(
        subjects,
        against=others,
        device=device,
        threads=threads,
        backend=backend,
        signature=signature,
        kernels=kernels,
        inputs=Path(inputs) if inputs is not None else None,
        min_seconds=min_seconds,
        runs=runs,
        rounds=rounds,
        seed=seed,
        progress=progress,
    )
    for path, report in zip((*subjects, *others), reports, strict=True):
        if path.is_dir():
            write_json(report, path / BENCHMARK)
    return reports
