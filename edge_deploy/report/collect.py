"""Find what a folder holds: artifacts with their benchmarks and layer errors, grouped by model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.artifact import MANIFEST, Artifact
from edge_deploy.core.benchmark import BENCHMARK, BenchmarkReport
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_errors import LAYERS, LayerErrors
from edge_deploy.core.quant_spec import RECIPES
from edge_deploy.core.serde import read_json

__all__ = ["Entry", "Model", "collect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One artifact folder: its name, manifest, and what else was measured of it.

    Attributes:
        benchmark: With times.
        counts: In their place, of a device that counts instructions.
    """

    folder: str
    artifact: Artifact
    benchmark: BenchmarkReport | None = None
    counts: BenchmarkReport | None = None
    layers: LayerErrors | None = None

    @property
    def label(self) -> str:
        """Short and unique within its model, e.g. "tflite int8 mcu"."""
        spec = self.artifact.spec
        extras: list[str] = [spec.for_device] if spec.for_device == "mcu" else []
        extras += ["io int8"] if spec.io == "int8" else []
        return " ".join((self.artifact.format, spec.name, *extras))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """All artifacts of one source model."""

    name: str
    source: str
    entries: tuple[Entry, ...]

    def float_of(self, entry: Entry) -> Entry | None:
        """The float32 artifact of the same format; None when there is none, or `entry` is it."""
        for other in self.entries:
            if other.artifact.format == entry.artifact.format and other.artifact.spec.is_float and other is not entry:
                return None if entry.artifact.spec.is_float else other
        return None


def collect(folder: Path) -> tuple[Model, ...]:
    """The models whose artifacts lie in `folder`, in its folders, or one level deeper.

    Raises:
        BadInput: There is no artifact, or a file is not what its name says.
    """
    manifests = sorted(path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}{MANIFEST}"))
    # Folders that are still being written start with a dot.
    manifests = [path for path in manifests if not any(p.startswith(".") for p in path.relative_to(folder).parts)]
    if not manifests:
        raise BadInput(f"{folder}: holds no artifact (no */{MANIFEST}); give the folder that convert wrote.")
    groups: dict[tuple[str, str], list[Entry]] = {}
    problems: list[str] = []
    for manifest in manifests:
        try:
            entry = _read(manifest, folder)
        except BadInput as error:
            problems += error.problems
            continue
        groups.setdefault((entry.artifact.name, entry.artifact.source), []).append(entry)
    if problems:
        raise BadInput(*problems)
    return tuple(
        Model(name=name, source=source, entries=tuple(sorted(entries, key=_order)))
        for (name, source), entries in groups.items()
    )


def _read(manifest: Path, folder: Path) -> Entry:
    home = manifest.parent
    benchmark, layers = home / BENCHMARK, home / LAYERS
    measured = read_json(BenchmarkReport, benchmark) if benchmark.is_file() else None
    is_counted = measured is not None and measured.counted is not None
    return Entry(
        folder=str(home.relative_to(folder)) if home != folder else home.name,
        artifact=read_json(Artifact, manifest),
        benchmark=None if is_counted else measured,
        counts=measured if is_counted else None,
        layers=read_json(LayerErrors, layers) if layers.is_file() else None,
    )


def _order(entry: Entry) -> tuple[str, int, str]:
    """By format, and within it from the widest to the narrowest; TFLite first."""
    spec = entry.artifact.spec
    return ("" if entry.artifact.format == "tflite" else entry.artifact.format, RECIPES.index(spec.recipe), entry.label)
