"""Say all that can be said of a model file that may come from anywhere, without being ended by it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from edge_deploy.core.artifact import Format, LayerFacts, Signature
from edge_deploy.core.errors import BadInput, EdgeDeployError, MissingExtra
from edge_deploy.core.registry import load
from runtimes.first_load import first_load, forked_load
from runtimes.folder import weights_beside
from runtimes.gpu_compatibility import GpuCompatibility, gpu_compatibility
from runtimes.placement import BY_RULE, IN_FILE, OBSERVED, observed_placement

__all__ = ["FileReport", "Trial", "inspect"]

Trial: TypeAlias = Literal["child", "fork", "none"]
# Suffix → format, reader of facts, reader of signatures, backend.
FORMATS: dict[str, tuple[Format, str, str, str]] = {
    ".tflite": ("tflite", "tflite", "tflite", "litert"),
    ".pte": ("executorch", "pte", "pte-signatures", "executorch"),
    ".c": ("c", "c-source", "c-source", "c-host"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What a model file is.

    Attributes:
        signatures: Empty where they cannot be told; `problems` then says why.
        operators: How many of each there are.
        weight_bytes: Bytes of weights by storage type.
        problems: What is wrong with its structure.
        warnings: What is sound but will surprise somebody.
        loads: "yes", "no: <reason>", "died of SIGSEGV", "ran too long", or "not tried".
        placement: How it is known where layers run (`LayerFacts.runs_on`).
        gpu: What TensorFlow Lite's GPU compatibility analysis says; None where it was not asked for.
        runtime: The one that tried, with its version; empty when none did.
    """

    path: str
    format: Format
    bytes: int
    signatures: tuple[Signature, ...]
    layers: tuple[LayerFacts, ...]
    operators: dict[str, int]
    weight_bytes: dict[str, int]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    loads: str
    runtime: str
    placement: str = ""
    gpu: GpuCompatibility | None = None


def inspect(path: Path | str, *, trial: Trial = "child", timeout_s: float = 120.0, gpu: bool = False) -> FileReport:
    """Read a `.tflite` or `.pte` file and let its runtime load it and run it once in another process.

    Args:
        trial: A fresh child process; a fork of this one (quick, for many files); or none.
        gpu: Ask TensorFlow Lite too whether its GPU delegate takes the file; .tflite only.

    Raises:
        BadInput: Not a file of these types, or so damaged that nothing can be read from it.
        MissingExtra: What reads the format is not installed.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise BadInput(f"{path}: unknown type of file; must end in {' or '.join(FORMATS)}.")
    if not path.is_file():
        raise BadInput(f"{path}: no such file.")
    name, reader, signature_reader, backend = FORMATS[path.suffix]
    module = load("runtimes.formats", reader)
    layers: tuple[LayerFacts, ...] = module.read_facts(path)
    problems: tuple[str, ...] = module.lint(path) if hasattr(module, "lint") else ()
    warnings: tuple[str, ...] = module.warnings(path) if hasattr(module, "warnings") else ()
    signatures: tuple[Signature, ...] = ()
    try:
        signatures = load("runtimes.formats", signature_reader).read_signatures(path)
    except EdgeDeployError as error:
        problems += tuple(problem for problem in error.problems if problem not in problems)
    weight_bytes: Counter[str] = Counter()
    for layer in layers:
        if layer.weight_dtype is not None:
            weight_bytes[layer.weight_dtype] += layer.weight_bytes
    loads, runtime = _try(path, backend, trial, timeout_s)
    layers, placement = _placed(path, name, layers, is_tried=loads == "yes" and trial == "child")
    return FileReport(
        path=str(path),
        format=name,
        bytes=path.stat().st_size,
        signatures=signatures,
        layers=layers,
        operators=dict(Counter(layer.op for layer in layers)),
        weight_bytes=dict(weight_bytes),
        problems=problems,
        warnings=warnings,
        loads=loads,
        runtime=runtime,
        placement=placement,
        gpu=_gpu(path, name) if gpu else None,
    )


def _placed(
    path: Path, format_: Format, layers: tuple[LayerFacts, ...], *, is_tried: bool
) -> tuple[tuple[LayerFacts, ...], str]:
    """The layers with where they run, and how that is known."""
    if format_ != "tflite":
        return layers, IN_FILE if format_ == "executorch" else ""
    seen = observed_placement(path) if is_tried else None
    if seen is None:
        return layers, BY_RULE
    return tuple(replace(layer, runs_on=seen.get(layer.layer, layer.runs_on)) for layer in layers), OBSERVED


def _gpu(path: Path, format_: Format) -> GpuCompatibility:
    if format_ != "tflite":
        raise BadInput(f"{path}: --gpu is for .tflite files: the analysis is TensorFlow Lite's.")
    return gpu_compatibility(path)


def _try(path: Path, backend: str, trial: Trial, timeout_s: float) -> tuple[str, str]:
    if trial == "none":
        return "not tried", ""
    attempt = first_load if trial == "child" else forked_load
    data_files = weights_beside(path)
    try:
        module = load("runtimes.backends", backend)
        runtime = " ".join(module.runtime_version()) if hasattr(module, "runtime_version") else backend
    except MissingExtra as error:
        return f"not tried: {error}", ""
    try:
        attempt(path, backend=backend, data_files=data_files, timeout_s=timeout_s)
    except EdgeDeployError as error:
        text = str(error)
        died = re.search(r"died of (SIG[A-Z0-9]+)", text)
        if died:
            return f"died of {died.group(1)}", runtime
        return "ran too long" if "gave no answer within" in text else f"no: {text}", runtime
    return "yes", runtime
