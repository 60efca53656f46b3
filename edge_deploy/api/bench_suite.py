"""Run a suite of tasks: find its data and its models, measure, keep the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from device_tests.tasks.models import TaskModelFile, describe_model, find_models
from device_tests.tasks.run import SuiteOptions, SuiteResult, run_suite
from device_tests.tasks.task import find_tasks
from edge_deploy.api.benchmark import artifact_folders
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import BadInput, EdgeDeployError
from edge_deploy.core.serde import write_json

__all__ = ["bench_suite", "suite_models"]


def bench_suite(
    suite: str,
    data: Path | str,
    *,
    artifacts: Sequence[str | Path] = (),
    device: str = "host",
    options: SuiteOptions | None = None,
    out: Path | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> SuiteResult:
    """Quality, latency, memory and flash of models on the tasks of a suite.

    Args:
        suite: A suite or task that comes along, or a task's .toml file.
        data: Folder that holds the tasks' data, at any depth up to five.
        artifacts: Artifact folders, folders of them, or model files, each perhaps as "TASK=PATH"; without any, all
            models below `data` that fit a task.
        device: As `--device` says it.
        out: JSON file to write the result to.

    Raises:
        BadInput: Unknown suite, device or task; no data or no model; a damaged file that was named.
    """
    folder = Path(data)
    tasks = find_tasks(suite)
    if not folder.is_dir():
        raise BadInput(f"--data {folder}: no such folder.")
    models = suite_models(artifacts, folder, known=tuple(task.name for task in tasks), progress=progress)
    result = run_suite(tasks, folder, models, device=device, options=options, progress=progress)
    if out is not None:
        write_json(result, Path(out))
    return result


def suite_models(
    artifacts: Sequence[str | Path],
    data: Path,
    *,
    known: Sequence[str],
    progress: Callable[[str], None] | None = None,
) -> tuple[TaskModelFile, ...]:
    """The models that were named, or those that lie below `data`; of the latter, what cannot be read is left out.

    Raises:
        BadInput: A named one is damaged or missing, is for an unknown task, or there is none at all.
    """
    if artifacts:
        named = [_named(str(each), known) for each in artifacts]
        return tuple(describe_model(path, wanted=task) for task, given in named for path in _models_in(given))
    found = []
    for path in find_models(data):
        try:
            found.append(describe_model(path))
        except EdgeDeployError as error:
            if progress is not None:
                progress(f"left out: {error.problems[0] if error.problems else path}")
    if not found:
        raise BadInput(f"{data}: holds no artifact and no model file; say which models with --artifact.")
    return tuple(found)


def _models_in(given: Path) -> tuple[Path, ...]:
    """An artifact, or all that lie below a folder, as deep as several conversions side by side lie."""
    is_folder_of_them = given.is_dir() and not (given / MANIFEST).is_file()
    return (find_models(given) if is_folder_of_them else ()) or tuple(artifact_folders([given]))


def _named(text: str, known: Sequence[str]) -> tuple[str, Path]:
    task, equals, path = text.partition("=")
    name = task.replace("-", "_")
    if not equals or Path(text).exists():
        return "", Path(text)
    if name not in known:
        raise BadInput(f"--artifact {text}: {task}: no task of this suite; must be one of {', '.join(known)}.")
    return name, Path(path)
