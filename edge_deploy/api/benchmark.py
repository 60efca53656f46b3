"""Measure artifacts and keep the raw values beside them, where the report finds them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from device_tests.benchmark import benchmark
from device_tests.counting import count_instructions
from device_tests.device_list import counts_instructions
from device_tests.protocol_gates import Gate
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.benchmark import BENCHMARK, BenchmarkReport
from edge_deploy.core.errors import BadInput, Unsupported, VerificationFailed
from edge_deploy.core.quant_spec import RECIPES
from edge_deploy.core.serde import read_json, write_json
from runtimes.folder import check_files, read_artifact

__all__ = ["artifact_folders", "benchmark_and_keep", "read_report"]


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
    cpus: str = "auto",
    gate: Gate | None = None,
    out: Path | str | None = None,
    public_key: Path | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[BenchmarkReport, ...]:
    """Measure in one interleaved run and write `benchmark.json` into every artifact folder that was measured.

    See `device_tests.benchmark.benchmark` for the other arguments and errors.

    Args:
        out: Folder to write every report to as well, one file each; `compare` reads them. For bare files there is no
            other place.
        public_key: PEM file of the Ed25519 key that must have signed the manifest of each of `artifacts`.

    Raises:
        BadInput: One of them is not signed with it, or is a bare file.
        VerificationFailed: Generated C on an emulated board gave other bits than the reference kernels.
    """
    subjects, others = artifact_folders(artifacts), artifact_folders(against)
    if public_key is not None:
        for path in subjects:
            check_files(path, read_artifact(path, public_key=public_key))
    if counts_instructions(device):
        _refuse_wishes(device, threads=threads, backend=backend, signature=signature, kernels=kernels)
        reports = count_instructions(
            (*subjects, *others),
            device=device,
            inputs=Path(inputs) if inputs is not None else None,
            seed=seed,
            progress=progress,
        )
        return _kept((*subjects, *others), reports, out)
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
        cpus=cpus,
        gate=gate,
        progress=progress,
    )
    return _kept((*subjects, *others), reports, out)


def _kept(
    paths: Sequence[Path], reports: tuple[BenchmarkReport, ...], out: Path | str | None
) -> tuple[BenchmarkReport, ...]:
    for path, report in zip(paths, reports, strict=True):
        if path.is_dir():
            write_json(report, path / BENCHMARK)
    if out is not None:
        _keep(reports, Path(out))
    wrong = [
        f"{report.artifact} on {report.device.name}: {found.differing_bits} of {found.compared_bits} output bits "
        f"differ from {found.reference}: must be none."
        for report in reports
        if (found := report.counted) is not None and found.differing_bits
    ]
    if wrong:
        raise VerificationFailed(*wrong)
    return reports


def read_report(path: Path | str) -> BenchmarkReport:
    """The report in a file, in the artifact folder that was measured, or in a folder that holds the report of one.

    Raises:
        BadInput: There is none, or more than one.
    """
    path = Path(path)
    if path.is_dir():
        path = path / BENCHMARK if (path / BENCHMARK).is_file() else _only_report(path)
    return read_json(BenchmarkReport, path)


def _only_report(folder: Path) -> Path:
    """Of a folder that `benchmark --out` wrote."""
    found = () if (folder / MANIFEST).is_file() else tuple(sorted(folder.glob("*.json")))
    if not found:
        raise BadInput(
            f"{folder}: holds no {BENCHMARK}; run edge-deploy benchmark {folder} first, or name a report file."
        )
    if len(found) > 1:
        raise BadInput(f"{folder}: holds {len(found)} reports; name one: {', '.join(each.name for each in found)}.")
    return found[0]


def _keep(reports: Sequence[BenchmarkReport], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, report in enumerate(reports):
        words = (str(number), report.artifact, report.format, report.recipe)
        name = re.sub(r"[^\w.-]+", "_", "-".join(word for word in words if word))
        write_json(report, folder / f"{name}.json")


def _refuse_wishes(device: str, **wishes: object) -> None:
    """Options that a device without a choice of runtimes cannot follow."""
    fine = {"threads": 1, "backend": None, "signature": None, "kernels": "default"}
    problems = [
        f"--{name} {given}: {device} runs generated C on one core; leave it out."
        for name, given in wishes.items()
        if given != fine[name]
    ]
    if problems:
        raise Unsupported(*problems)
