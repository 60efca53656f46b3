"""Which models there are for a task: given by the user, or found in a folder by what they take and give."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_tests.tasks.task import Task, fits
from edge_deploy.core.artifact import MANIFEST, LayerFacts, Signature
from edge_deploy.core.errors import BadInput, EdgeDeployError
from edge_deploy.core.tensor import TensorInfo
from runtimes.folder import read_artifact
from runtimes.formats.facts import read_facts
from runtimes.session import open_session

__all__ = ["TaskModelFile", "describe_model", "find_models", "models_for"]

SUFFIXES = (".tflite", ".pte")
MOST_MODELS = 200
DEPTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskModelFile:
    """A model that may answer tasks.

    Attributes:
        path: An artifact folder, or a bare file.
        signature: Of batch 1 where there are several.
        source: The float model's inputs; empty for a bare file.
        precision: The recipe, or what the weights of a bare file are.
        wanted: Name of the task that the user gave it for; empty where its sizes decide.
    """

    path: Path
    name: str
    format: str
    signature: Signature
    source: tuple[TensorInfo, ...]
    precision: str
    wanted: str = ""


def describe_model(path: Path, *, wanted: str = "") -> TaskModelFile:
    """What a model takes and gives; a bare file is loaded once, in a child process first.

    Raises:
        BadInput: Damaged, or no model.
        ToolchainError: The runtime died of it.
    """
    if path.is_dir():
        artifact = read_artifact(path)
        return TaskModelFile(
            path=path,
            name=artifact.name,
            format=artifact.format,
            signature=_of_batch_one(artifact.signatures),
            source=artifact.source_inputs,
            precision=artifact.spec.recipe,
            wanted=wanted,
        )
    session = open_session(path)
    try:
        signature = session.signature
    finally:
        session.close()
    return TaskModelFile(
        path=path,
        name=path.stem,
        format={".tflite": "tflite", ".pte": "executorch", ".c": "c"}.get(path.suffix, path.suffix.lstrip(".")),
        signature=signature,
        source=(),
        precision=_precision(path),
        wanted=wanted,
    )


def find_models(folder: Path) -> tuple[Path, ...]:
    """Artifact folders and model files at most five levels below `folder`, by name.

    Raises:
        BadInput: There are more than two hundred; say which with --artifact.
    """
    found: list[Path] = []
    for place, inside, files in os.walk(folder):
        inside.sort()
        here = Path(place)
        if MANIFEST in files:
            found.append(here)
            inside.clear()
            continue
        found += [here / name for name in sorted(files) if name.endswith(SUFFIXES)]
        if len(here.relative_to(folder).parts) >= DEPTH:
            inside.clear()
        if len(found) > MOST_MODELS:
            raise BadInput(f"{folder}: holds more than {MOST_MODELS} models; say which with --artifact.")
    return tuple(found)


def models_for(task: Task, models: Sequence[TaskModelFile], *, arrays: Iterable[str] = ()) -> tuple[TaskModelFile, ...]:
    """Those that were given for the task, or whose sizes fit it.

    Args:
        arrays: Names in the task's .npz, where its data is one.
    """
    names = tuple(arrays)
    return tuple(
        model
        for model in models
        if model.wanted == task.name or (not model.wanted and fits(task, model.signature, arrays=names))
    )


def _of_batch_one(signatures: tuple[Signature, ...]) -> Signature:
    single = [each for each in signatures if all(not info.shape or abs(info.shape[0]) == 1 for info in each.inputs)]
    return (single or list(signatures))[0]


def _precision(path: Path) -> str:
    """Of the weights that a bare file holds, by bytes; empty where no reader knows the file."""
    try:
        facts: tuple[LayerFacts, ...] = read_facts(path)
    except EdgeDeployError:
        return ""
    stored: dict[str, int] = {}
    for fact in facts:
        if fact.weight_dtype:
            kind = fact.weight_dtype
            # Narrow weights beside float values compute in float, or narrow their inputs as they come.
            is_hybrid = not kind.startswith("float") and fact.activation_dtype == "float32"
            kind = f"{kind} weights" if is_hybrid else kind
            stored[kind] = stored.get(kind, 0) + fact.weight_bytes
    narrow = [name for name in stored if name.startswith(("int2", "int4"))]
    return narrow[0] if narrow else max(stored, key=lambda kind: stored[kind], default="")
