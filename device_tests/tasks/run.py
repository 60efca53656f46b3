"""A suite on a device: each task x model x runtime gives a row of quality, latency (or instructions), memory, flash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from device_tests.benchmark import LOAD_TIMEOUT_S, measure_in_turns
from device_tests.benchmark_subject import check_fit, read_subject
from device_tests.benchmark_turn import Turn, ask
from device_tests.device_list import connect, find_device
from device_tests.protocol_gates import Gate
from device_tests.tasks.data import Part, TaskSamples, find_task_folder, open_task_data
from device_tests.tasks.evaluate import Evaluation, evaluate
from device_tests.tasks.models import TaskModelFile, models_for
from device_tests.tasks.quality import Quality
from device_tests.tasks.task import Task
from edge_deploy.core.benchmark import BenchmarkReport, Provenance, percentiles
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput, EdgeDeployError
from edge_deploy.core.serde import to_json

__all__ = ["SuiteOptions", "SuiteResult", "SuiteRow", "run_suite", "with_floor_of_float"]

EMULATED_ITEMS = 50
NO_FLOAT = "no floor: it is a share of the float model's quality, and no float32 model was given"
BOARD = "qemu-board"  # the transport that counts instructions and has no time


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOptions:
    """How a suite is run.

    Attributes:
        backends: Runtimes to try each model with; None stands for the one of the file's type.
        limit: Items of each task; None takes all, on emulated devices 50.
        part: "evaluate" leaves out what calibration may have seen.
        min_seconds: Of latency measurement for each row.
    """

    backends: tuple[str | None, ...] = (None,)
    kernels: str = "default"
    threads: int = 1
    limit: int | None = None
    part: Part = "all"
    min_seconds: float = 1.0
    runs: int = 60
    rounds: int = 6
    cpus: str = "auto"
    gate: Gate = field(default_factory=Gate)
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRow:
    """One model in one runtime on one task.

    Attributes:
        runtime: Kernels as the device names them.
        offered: Items that the task has; `quality.items` were taken.
        p90_s: Of single inferences; None where the device has no time of its own, which counts instructions instead.
        memory_bytes: What running the model took: peak anonymous memory above that of an empty process; the arena,
            where a runtime has one; on a board all RAM.
        mapped_bytes: Mapped files (the model's, libraries), which the system may drop; None where nothing is mapped.
        flash_bytes: Of the model's files; on a board of the whole firmware. None for C that was not linked for a board:
            its text is no flash.
        problem: Why there is no result; empty for a row that has one. `problem_kind` is the class of the error.
    """

    task: str
    model: str
    path: str
    precision: str
    format: str
    runtime: str
    device: str
    provenance: Provenance
    offered: int
    flash_bytes: int | None = None
    quality: Quality | None = None
    p90_s: float | None = None
    p50_s: float | None = None
    instructions: float | None = None
    memory_bytes: int | None = None
    mapped_bytes: int | None = None
    inferences: int = 0
    notes: tuple[str, ...] = ()
    problem: str = ""
    problem_kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """All rows, and the tasks of which there is none, with the reason."""

    rows: tuple[SuiteRow, ...]
    skipped: tuple[str, ...]

    @property
    def missed(self) -> tuple[SuiteRow, ...]:
        """Rows below their task's floor."""
        return tuple(row for row in self.rows if row.quality is not None and row.quality.verdict == "missed")

    @property
    def failed(self) -> tuple[SuiteRow, ...]:
        """Rows without a result."""
        return tuple(row for row in self.rows if row.problem)


def run_suite(
    tasks: Sequence[Task],
    data: Path,
    models: Sequence[TaskModelFile],
    *,
    device: str = "host",
    options: SuiteOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> SuiteResult:
    """Run all models on the tasks that they fit, one after the other.

    A model that fails is a row that says why, and the suite goes on.

    Raises:
        BadInput: No such device or folder, no data for any task, or no model for any.
    """
    options = options or SuiteOptions()
    where = find_device(device)
    limit = options.limit or (EMULATED_ITEMS if where.kind == "emulated" else None)
    rows: list[SuiteRow] = []
    skipped: list[str] = []
    for task in tasks:
        folder = find_task_folder(task, data)
        if folder is None:
            named = " or ".join(task.data.folders)
            skipped.append(f"{task.title}: no folder {named} with {task.data.arrays or task.data.labels} in {data}")
            continue
        samples = open_task_data(task, folder, limit=limit, part=options.part)
        fitting = models_for(task, models, arrays=_array_names(task, samples))
        if not fitting:
            skipped.append(f"{task.title}: {len(models)} models, none takes and gives what the task has")
            continue
        made = [
            _row(task, samples, model, where, backend, options, progress)
            for model in fitting
            for backend in options.backends
        ]
        rows += with_floor_of_float(task, made)
    if not rows:
        raise BadInput(*(f"{line}." for line in skipped))
    return SuiteResult(rows=tuple(rows), skipped=tuple(skipped))


def _array_names(task: Task, samples: TaskSamples) -> tuple[str, ...]:
    return tuple(samples.rows(0)) if task.data.arrays else ()


def _row(
    task: Task,
    samples: TaskSamples,
    model: TaskModelFile,
    device: Device,
    backend: str | None,
    options: SuiteOptions,
    progress: Callable[[str], None] | None,
) -> SuiteRow:
    base = SuiteRow(
        task=task.name,
        model=model.name,
        path=str(model.path),
        precision=model.precision,
        format=model.format,
        runtime=backend or "",
        device=device.name,
        provenance="emulated" if device.kind == "emulated" else "measured",
        offered=samples.offered,
    )
    try:
        return _measured(base, task, samples, model, device, backend, options, progress)
    except EdgeDeployError as error:
        kind = type(error).__name__
        return replace(base, problem=error.problems[0] if error.problems else kind, problem_kind=kind)


def _measured(
    base: SuiteRow,
    task: Task,
    samples: TaskSamples,
    model: TaskModelFile,
    device: Device,
    backend: str | None,
    options: SuiteOptions,
    progress: Callable[[str], None] | None,
) -> SuiteRow:
    subject = read_subject(model.path)
    check_fit([subject], device)
    with ExitStack() as stack:
        transport = connect(device)
        stack.callback(transport.close)
        pushed = [transport.push(file, f"0/{name}", sha256=digest) for file, name, digest in subject.files]
        environment = {"OMP_NUM_THREADS": str(options.threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        channel = stack.enter_context(closing(transport.run("device_tests.worker", environment=environment)))
        path = str(Path(pushed[0]).parent) if subject.is_folder else pushed[0]
        turn = Turn(subject=subject, channel=channel, path=path)
        report: BenchmarkReport | None = None
        runtime = ""
        if device.transport == BOARD:
            runtime = ask(turn, _load(turn, model, backend, options), timeout_s=LOAD_TIMEOUT_S)["kernels"]
        else:
            (report,) = measure_in_turns(
                [turn],
                device=device,
                threads=options.threads,
                backend=backend,
                signature=model.signature.name,
                kernels=options.kernels,
                inputs=None,
                min_seconds=options.min_seconds,
                runs=options.runs,
                rounds=options.rounds,
                seed=options.seed,
                cpus=options.cpus,
                gate=options.gate,
                progress=progress,
            )
            runtime = report.conditions.kernels
        found = evaluate(task, samples, model, turn, transport, folder="task", progress=progress)
    flash_bytes = None if model.format == "c" else subject.model_bytes
    return replace(base, runtime=runtime, **_figures(flash_bytes, report, found))


def _load(turn: Turn, model: TaskModelFile, backend: str | None, options: SuiteOptions) -> dict[str, Any]:
    return {
        "do": "load",
        "path": turn.path,
        "backend": backend,
        "signature": model.signature.name,
        "threads": options.threads,
        "kernels": options.kernels,
        "seed": options.seed,
        "inputs": None,
        "source": to_json(turn.subject.source),
    }


def _figures(model_bytes: int | None, report: BenchmarkReport | None, found: Evaluation) -> dict[str, Any]:
    figures: dict[str, Any] = {"quality": found.quality, "inferences": found.inferences, "flash_bytes": model_bytes}
    notes: tuple[str, ...] = (found.note,) if found.note else ()
    if report is None:
        told = found.told
        figures |= {
            "instructions": told.get("instructions"),
            "memory_bytes": told.get("ram_bytes"),
            "flash_bytes": told.get("flash_bytes", model_bytes),
        }
    else:
        stats = percentiles(report)
        figures |= {"p90_s": stats.p90_s, "p50_s": stats.p50_s}
        if report.arena_bytes is not None:
            figures["memory_bytes"] = report.arena_bytes
            notes += (f"memory is the arena of {report.conditions.kernels}",)
        elif report.memory_peak is not None and report.memory_base is not None:
            figures["memory_bytes"] = report.memory_peak.anonymous_bytes - report.memory_base.anonymous_bytes
            figures["mapped_bytes"] = report.memory_peak.mapped_bytes - report.memory_base.mapped_bytes
        else:
            figures["memory_bytes"] = report.peak_rss_bytes - report.base_rss_bytes
        notes += report.notes
    return figures | {"notes": notes}


def with_floor_of_float(task: Task, rows: Sequence[SuiteRow]) -> list[SuiteRow]:
    """The floor of a task that is a share of the float model's quality, where a float model is among the rows."""
    if task.floor_of_float is None:
        return list(rows)
    base = next((row.quality for row in rows if row.precision == "float32" and row.quality is not None), None)
    if base is None:
        return [replace(row, notes=(*row.notes, NO_FLOAT)) for row in rows]
    floor = base.value * task.floor_of_float
    rows = [replace(row, notes=tuple(note for note in row.notes if note != NO_FLOAT)) for row in rows]
    return [row if row.quality is None else replace(row, quality=replace(row.quality, floor=floor)) for row in rows]
