"""Make the profile of an artifact: seconds per layer on a device, idle or under load, or estimated for another one."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from device_tests.benchmark import read_subject
from device_tests.contention import usable_cores
from device_tests.profile import LayerTimes, measure_layers, measure_prefixes
from device_tests.profile_under_load import CPU_LEVELS, MEMORY_LEVELS, measure_under_load
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import BadInput, ToolchainError, Unsupported
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.profile import PROFILE, ModelProfile
from edge_deploy.core.serde import read_json, write_json
from partitioner.candidates import prefixes
from partitioner.predictor.coefficients import Coefficients, estimate_profile, fit_profiles
from partitioner.profiles.events import Subject, profile_from_events, tells_layers_apart
from partitioner.profiles.layer_names import under_layer_names
from partitioner.profiles.prefixes import TimedPrefix, choose_prefixes, profile_from_prefixes
from partitioner.profiles.slowdown import with_slowdowns

__all__ = ["How", "estimate", "fit", "graph_of", "place", "profile", "under_load"]

How = Literal["auto", "profiler", "prefixes"]
MOST_PREFIXES = 16
# An estimate never takes the place of a measurement.
ESTIMATED = "profile.estimated.json"
# So many cuts are timed on both sides, to see what a call costs beside its layers.
TIMED_ON_BOTH_SIDES = 3


def profile(
    artifact: Path | str,
    *,
    device: str = "host",
    threads: int = 1,
    signature: str | None = None,
    rounds: int = 6,
    runs: int = 60,
    min_seconds: float = 0.5,
    how: How = "auto",
    most_prefixes: int = MOST_PREFIXES,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> ModelProfile:
    """Seconds per layer, measured on an idle device.

    Args:
        artifact: A folder that convert wrote, or a `.tflite` file.
        how: "profiler": the runtime's own; "prefixes": the model is cut after chosen layers and its heads are timed;
            "auto": the profiler, and prefixes where it does not tell layers apart.
        most_prefixes: Heads to time at most.

    Raises:
        BadInput: Not an artifact, or an option out of range.
        Unsupported: Neither way can be had.
        DeviceError: A process that ran the model died.
    """
    if how not in ("auto", "profiler", "prefixes"):
        raise BadInput(f"how = {how!r}: must be auto, profiler or prefixes.")
    path = Path(artifact)
    graph = graph_of(path, signature)
    say = progress or (lambda line: None)
    options = {"device": device, "threads": threads, "signature": signature, "rounds": rounds, "runs": runs}
    times: LayerTimes | None = None
    if how != "prefixes":
        times = measure_layers(path, min_seconds=min_seconds, seed=seed, progress=say, **options)  # type: ignore[arg-type]  # one of each
        named = under_layer_names(graph, times.typical_layer_s)
        if tells_layers_apart(graph, named):
            notes = (*_notes(times), *_spread(times))
            found = _with_codecs(profile_from_events(graph, named, times.whole_s, _subject(times), notes=notes), times)
            if found.adds_up or how == "profiler" or _busy(times):
                return found
            try:
                timed = _by_prefixes(path, graph, most_prefixes, min_seconds, seed, say, options)
            except (Unsupported, ToolchainError) as error:
                return dataclasses.replace(found, notes=(*found.notes, f"prefixes cannot be timed: {error}"))
            why = "the runtime's profiler does not add up to the whole"
            return dataclasses.replace(timed, notes=(*timed.notes, why)) if timed.adds_up else found
        if how == "profiler":
            raise Unsupported(f"{path}: the profiler of {times.kernels} does not tell its layers apart; time prefixes.")
    return _by_prefixes(path, graph, most_prefixes, min_seconds, seed, say, options)


def graph_of(path: Path, signature: str | None = None) -> LayerGraph:
    """The layers of an artifact folder or of a bare `.tflite` file.

    Raises:
        BadInput: Neither.
    """
    if path.is_dir():
        from runtimes.folder import read_artifact

        return read_artifact(path).graph
    if path.suffix != ".tflite":
        raise BadInput(f"{path}: must be an artifact folder or a .tflite file; others do not tell their layers.")
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder.")
    from runtimes.formats.tflite import read_graph

    return read_graph(path, signature=signature)


def _by_prefixes(
    path: Path,
    graph: LayerGraph,
    most: int,
    min_seconds: float,
    seed: int,
    say: Callable[[str], None],
    options: dict[str, object],
) -> ModelProfile:
    from converters.split import open_parent, split

    candidates = prefixes(graph)
    cuts = [candidate.cut for candidate in candidates]
    legal = [count for count, candidate in enumerate(candidates[:-1]) if count and not candidate.refused]
    chosen = choose_prefixes(graph, legal, most)
    if not chosen:
        raise Unsupported(f"{path}: no prefix of its {len(graph.layers)} layers can be cut off, so none can be timed.")
    with tempfile.TemporaryDirectory(prefix="edge-deploy-prefixes-") as folder:
        say(f"cut {len(chosen)} prefixes")
        written = split(open_parent(path), [cuts[count] for count in chosen], Path(folder, "cuts"), check=False)
        heads = {count: each.head for count, each in zip(chosen, written.cuts, strict=True) if each.head is not None}
        tails = {count: each.tail for count, each in zip(chosen, written.cuts, strict=True) if each.tail is not None}
        step = max(1, math.ceil(len(chosen) / TIMED_ON_BOTH_SIDES))
        both = [count for count in chosen[step // 2 :: step] if count in heads and count in tails]
        parts = [*heads.values(), *(tails[count] for count in both)]
        times = measure_prefixes(path, parts, min_seconds=min_seconds, seed=seed, progress=say, **options)  # type: ignore[arg-type]  # one of each
    whole, rest = times[0], dict(zip(both, times[1 + len(heads) :], strict=True))
    timed_heads = [
        TimedPrefix(layers=count, seconds=timed.whole_s, rest_s=rest[count].whole_s if count in rest else ())
        for count, timed in zip(heads, times[1 : 1 + len(heads)], strict=True)
    ]
    found = profile_from_prefixes(graph, timed_heads, whole.whole_s, _subject(whole), notes=_notes(whole))
    return _with_codecs(found, whole)


def _with_codecs(found: ModelProfile, times: LayerTimes) -> ModelProfile:
    """A plan with a codec counts its times as measured where they come from the device itself."""
    return dataclasses.replace(found, codec_s_per_byte=times.codec_s_per_byte)


def _subject(times: LayerTimes) -> Subject:
    return Subject(
        artifact=times.name,
        sha256=times.sha256,
        device=times.device,
        kernels=times.kernels,
        provenance=times.provenance,
        threads=times.threads,
        batch=times.batch,
    )


def _notes(times: LayerTimes) -> tuple[str, ...]:
    low, high = min(times.whole_s), max(times.whole_s)
    spread = f"whole: median of {len(times.whole_s)} rounds, from {low * 1e3:.4g} to {high * 1e3:.4g} ms"
    loads = ", ".join(f"{value:g}" for value in times.load_average)
    doubt = "; others were at work: measure again on an idle machine" if _busy(times) else ""
    return (*times.notes, spread, *((f"load average before and after: {loads}{doubt}",) if loads else ()))


def _busy(times: LayerTimes) -> bool:
    """Others had the machine: then calls are interrupted, and what does not add up does not with prefixes either."""
    return max(times.load_average, default=0.0) > len(usable_cores())


def _spread(times: LayerTimes) -> tuple[str, ...]:
    """How far the rounds of the slowest layer are apart, the one that decides most."""
    typical = times.typical_layer_s
    if not typical:
        return ()
    slowest = max(typical, key=lambda name: typical[name])
    low, high = times.interval_s(slowest)
    return (
        f"slowest layer {slowest}: {typical[slowest] * 1e3:.4g} ms, rounds from {low * 1e3:.4g} to {high * 1e3:.4g}",
    )


def under_load(
    artifact: Path | str,
    idle: ModelProfile,
    *,
    signature: str | None = None,
    device: str = "host",
    cpu_levels: Sequence[float] = CPU_LEVELS,
    memory_levels: Sequence[float] = MEMORY_LEVELS,
    rounds: int = 6,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> ModelProfile:
    """The profile with slowdown curves, measured by a sweep of CPU load and memory pressure.

    See `device_tests.profile_under_load.measure_under_load` for the arguments and errors.
    """
    found = measure_under_load(
        Path(artifact),
        device=device,
        threads=idle.threads,
        signature=signature,
        cpu_levels=cpu_levels,
        memory_levels=memory_levels,
        rounds=rounds,
        seed=seed,
        progress=progress,
    )
    return with_slowdowns(idle, found.points, notes=found.notes)


def place(artifact: Path, out: Path | None = None, *, estimated: bool = False) -> Path:
    """Where a profile will stand: `out`, or a file in the artifact's folder. Ask before measuring.

    Raises:
        BadInput: A bare file is profiled and no place is given, or the place's folder is missing.
    """
    if out is None and not artifact.is_dir():
        if not artifact.is_file():
            raise BadInput(f"{artifact}: no such file or folder.")
        raise BadInput(f"{artifact}: a bare file has no folder for its profile; give --out FILE.")
    where = artifact / (ESTIMATED if estimated else PROFILE) if out is None else out
    if not where.parent.is_dir():
        raise BadInput(f"--out {where}: {where.parent} is no folder; make it first.")
    return where


def fit(profiles: Sequence[Path], out: Path) -> Coefficients:
    """Fit a static predictor to measured profiles that stand in their artifacts' folders, and write it.

    Args:
        profiles: `profile.json` files, or the folders they stand in.

    Raises:
        BadInput: A profile is missing or does not fit its artifact, or they are of different devices.
    """
    measured = []
    for path in profiles:
        file = path / PROFILE if path.is_dir() else path
        found = read_json(ModelProfile, file)
        if not (file.parent / MANIFEST).is_file():
            raise BadInput(f"{file}: must stand beside the {MANIFEST} of its artifact, which tells what its layers do.")
        measured.append((graph_of(file.parent), found))
    coefficients = fit_profiles(measured)
    write_json(coefficients, out)
    return coefficients


def estimate(artifact: Path | str, coefficients: Path, *, signature: str | None = None) -> ModelProfile:
    """A profile for a device that is not at hand, from coefficients that were fitted there; it says it is estimated.

    Raises:
        BadInput: Not an artifact, or not coefficients.
    """
    path = Path(artifact)
    graph = graph_of(path, signature)
    subject = read_subject(path)
    return estimate_profile(read_json(Coefficients, coefficients), graph, artifact=subject.name, sha256=subject.sha256)
