"""Let LoadGen measure an artifact, and judge an accuracy run by the task's labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from device_tests.benchmark_subject import Subject
from device_tests.loadgen import LoadGenReport
from device_tests.loadgen import loadgen as run
from device_tests.loadgen_run import ACCURACY
from device_tests.loadgen_settings import LENGTHS, LoadGenMode, LoadGenSettings, Scenario
from device_tests.tasks.data import TaskSamples, find_task_folder, open_task_data
from device_tests.tasks.evaluate import check_classes
from device_tests.tasks.feeds import feed_of, scores_of
from device_tests.tasks.models import TaskModelFile, describe_model
from device_tests.tasks.quality import Quality, measure_quality
from device_tests.tasks.task import Task, find_tasks
from edge_deploy.core.errors import BadInput, ToolchainError

__all__ = ["loadgen"]

# The server scenario's limits of MLPerf Inference belong to other models; a tenth of a second is what people notice.
LATENCY_LIMIT_S = 0.1


def loadgen(
    artifact: Path | str,
    *,
    out: Path | str,
    scenario: Scenario = "single-stream",
    mode: LoadGenMode = "performance",
    length: str = "normal",
    qps: float | None = None,
    latency_limit_s: float = LATENCY_LIMIT_S,
    task: str | None = None,
    data: Path | str | None = None,
    limit: int | None = None,
    inputs: Path | str | None = None,
    device: str = "host",
    threads: int = 1,
    backend: str | None = None,
    signature: str | None = None,
    kernels: str = "default",
    cpus: str = "auto",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> tuple[LoadGenReport, Quality | None]:
    """One run of LoadGen; its logs and our report stand in `out`. A LoadGen result, and no MLPerf result.

    Args:
        mode: "accuracy" asks every sample once; its answers are judged by the task's labels.
        length: normal (at least 60 s), quick (10 s) or rapid (6 s).
        qps: Queries a second of the server scenario; None searches the highest that is valid.
        latency_limit_s: Of the server scenario's 99th percentile.
        task: A task that comes along, or a .toml file; its samples are taken from `data`.
        inputs: An npz file of samples instead, in the source model's terms.

    Raises:
        BadInput: A wrong option, no data, or samples that do not fit.
        MissingExtra: LoadGen is not installed.
    """
    if length not in LENGTHS:
        raise BadInput(f"length = {length!r}: must be one of {', '.join(LENGTHS)}.")
    if (task is None) != (data is None):
        raise BadInput("--task and --data go together: the task says what the samples are, the folder where.")
    if mode == "accuracy" and task is None:
        raise BadInput("accuracy: needs --task and --data, whose labels judge the answers.")
    if task is not None and inputs is not None:
        raise BadInput("--inputs and --task: give one of them.")
    settings = LoadGenSettings(
        scenario=scenario,
        mode=mode,
        length=LENGTHS[length],
        qps=(qps or 1.0) if scenario == "server" else 0.0,
        latency_limit_s=latency_limit_s if scenario == "server" else 0.0,
        seed=seed,
    )
    prepared = _TaskRun(task, Path(data), limit, Path(artifact)) if task is not None and data is not None else None
    report = run(
        Path(artifact),
        settings,
        out=Path(out),
        device=device,
        samples=prepared.arrays if prepared is not None else None,
        samples_name=prepared.name if prepared is not None else "",
        inputs=Path(inputs) if inputs is not None else None,
        search_rate=scenario == "server" and qps is None and mode == "performance",
        threads=threads,
        backend=backend,
        signature=signature or (prepared.model.signature.name if prepared is not None else None),
        kernels=kernels,
        cpus=cpus,
        seed=seed,
        progress=progress,
    )
    if mode != "accuracy" or prepared is None:
        return report, None
    return report, prepared.quality(Path(out) / ACCURACY)


class _TaskRun:
    """A task's samples for LoadGen, and the judgement of what it logged."""

    def __init__(self, name: str, data: Path, limit: int | None, artifact: Path) -> None:
        tasks = find_tasks(name)
        if len(tasks) != 1:
            raise BadInput(f"--task {name}: is a suite of {', '.join(task.name for task in tasks)}; name one of them.")
        self.task: Task = tasks[0]
        folder = find_task_folder(self.task, data)
        if folder is None:
            raise BadInput(f"{data}: holds no folder {' or '.join(self.task.data.folders)} for {self.task.title}.")
        self.samples: TaskSamples = open_task_data(self.task, folder, limit=limit)
        self.model: TaskModelFile = describe_model(artifact)
        check_classes(self.task, self.model, self.samples)
        self.name = f"{self.task.title}: {len(self.samples.names)} of {self.samples.offered} items of {folder.name}"
        self._counts: list[int] = []
        self._reals: list[np.ndarray] = []

    def arrays(self, subject: Subject) -> Mapping[str, np.ndarray]:
        feed = feed_of(self.task, self.model.signature, self.model.source)
        parts = []
        for index in range(len(self.samples.names)):
            encoded, reals = feed.arrays(self.samples.rows(index))
            self._counts.append(len(reals))
            self._reals.append(reals)
            parts.append(encoded)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def quality(self, log: Path) -> Quality:
        """Of the answers in LoadGen's accuracy log: one float32 vector for each sample, in hexadecimal.

        Raises:
            ToolchainError: A sample has no answer.
        """
        try:
            answers = {entry["qsl_idx"]: bytes.fromhex(entry["data"]) for entry in json.loads(log.read_text())}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ToolchainError(f"{log}: is no accuracy log of LoadGen ({error}).") from error
        total = sum(self._counts)
        missing = [index for index in range(total) if not answers.get(index)]
        if missing:
            raise ToolchainError(f"{log}: {len(missing)} of {total} samples have no answer, e.g. number {missing[0]}.")
        values = np.stack([np.frombuffer(answers[index], np.float32) for index in range(total)])
        output = self.model.signature.outputs[0]
        each = scores_of(self.task, values, output, np.concatenate(self._reals))
        scores = np.stack([part.mean(axis=0) for part in np.split(each, np.cumsum(self._counts)[:-1])])
        return measure_quality(self.task, self.samples.names, self.samples.labels, scores)
