"""`make bench-devices`: the suite on host, TFLM, emulated ARM and generated C; bits and instructions on boards.

Needs EDGE_DEPLOY_DATA, and what each part needs (LiteRT, ExecuTorch, tflite-micro, arm-none-eabi-gcc and
qemu-system-arm, an aarch64 compiler and qemu-user): a part that cannot run is a row that says why, and all others are
run. Where emulation is slow, a sample of the items is taken, and the table says how many. Results are kept in
build/bench-devices; BENCH=--fresh makes them again, BENCH="--only host,c" runs some parts: host, tflm, arm, c, boards,
instructions. The first table is all that was found, the second the README's. Ends with 1 where a row failed for another
reason than that its runtime refuses the model.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_tests.tasks.data import Part
from device_tests.tasks.models import describe_model
from device_tests.tasks.run import SuiteOptions, SuiteRow, run_suite, with_floor_of_float
from device_tests.tasks.task import Task, find_tasks
from edge_deploy.api.convert import convert
from edge_deploy.api.request import convert_request
from edge_deploy.bench import microcontrollers
from edge_deploy.bench.device_table import SUMMARY_COLUMNS, is_refused, remarks, summary_rows
from edge_deploy.bench.models import DESCRIPTIONS, development_data
from edge_deploy.bench.rows import kept, markdown
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.serde import from_json, to_json
from edge_deploy.report.suite_table import SUITE_COLUMNS, suite_cells
from edge_deploy.zoo.click_models import train_click_model
from runtimes.folder import read_artifact

__all__ = ["main"]

HOME = Path("build/bench-devices")
STARTED = time.monotonic()
PARTS = ("host", "tflm", "arm", "c", "boards", "instructions")
CALIBRATION_SAMPLES = 500
ARM = "qemu:arm64-cortex-a76"
ARM_ITEMS = 100
BOARDS = ("qemu:cortex-m4", "qemu:cortex-m55")
BOARD_ITEMS = 20
# Three of the cases of `make bench-microcontrollers`, and the yardstick.
BIT_EXACT = (microcontrollers.YARDSTICK, "ResNet-8 INT8", "DS-CNN INT8", "DLRM INT8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A reference model with its task.

    Attributes:
        part: Of the task's items: those that calibration has not seen.
        published: Files of other people, measured beside ours.
        request: Of a target, a precision, "phone" or "mcu", and a folder.
        is_static_apart: Phones get another .tflite file of it than microcontrollers.
    """

    name: str
    task: str
    data: Path
    part: Part
    published: tuple[Path, ...]
    request: Callable[[str, str, str, Path], Any]
    is_static_apart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an artifact is run.

    Attributes:
        part: Of this bench, one of PARTS.
        formats: Artifacts that run there.
    """

    part: str
    device: str
    formats: tuple[str, ...]
    backend: str | None = None
    limit: int | None = None


PLACES = (
    Place(part="host", device="host", formats=("tflite", "executorch")),
    Place(part="tflm", device="host", formats=("tflite",), backend="tflite-micro"),
    Place(part="c", device="host", formats=("c",)),
    Place(part="arm", device=ARM, formats=("tflite", "executorch"), limit=ARM_ITEMS),
    *(Place(part="boards", device=board, formats=("c",), limit=BOARD_ITEMS) for board in BOARDS),
)


def subjects(data: Path) -> tuple[Subject, ...]:
    """The reference models of which there is data, and a recommender that is trained here."""
    models = data / "models"

    def net(source: Path, calibrate: str) -> Callable[[str, str, str, Path], Any]:
        def request(target: str, precision: str, place: str, out: Path) -> Any:
            return convert_request(
                str(source),
                to=[target],
                precision=[precision],
                fallback="int8" if precision == "int4" else None,
                calibrate=None if precision == "float32" else DESCRIPTIONS / calibrate,
                calibrate_limit=None if precision == "float32" else CALIBRATION_SAMPLES,
                out=out,
                force=True,
            )

        return request

    resnet, dscnn = models / "mlperf_tiny_ic_resnet8", models / "mlperf_tiny_kws_dscnn"
    return (
        Subject(
            name="ResNet-8",
            task="image_classification",
            data=data,
            part="all",
            published=tuple(sorted(resnet.glob("*.tflite"))),
            request=net(next(resnet.glob("*.h5")), "cifar10_train4k.toml"),
        ),
        Subject(
            name="DS-CNN",
            task="keyword_spotting",
            data=data,
            part="evaluate",
            published=tuple(sorted(dscnn.glob("*.tflite"))),
            request=net(dscnn / "kws_ref_model", "kws01_calibrate.toml"),
        ),
        _recommender(data),
    )


def _recommender(data: Path) -> Subject:
    """A DLRM trained on bank marketing, whose test rows are the task's data."""
    folder = HOME / "dlrm"
    trained: list[Any] = []

    def request(target: str, precision: str, place: str, out: Path) -> Any:
        if not trained:
            trained.append(train_click_model("bank_marketing", folder, data=data))
        (model,) = trained
        return convert_request(
            model.source,
            to=[target],
            precision=[precision],
            weights=folder / "weights.pt",
            inputs=model.inputs,
            search_path=[str(folder.resolve())],
            for_device=place,
            fallback="int8" if precision == "int4" else None,
            calibrate=None if precision == "float32" else folder / "calibration.npz",
            out=out,
            force=True,
        )

    return Subject(
        name="DLRM", task="dlrm", data=folder, part="all", published=(), request=request, is_static_apart=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An artifact to run, or why there is none.

    Attributes:
        path: None where it could not be converted.
    """

    name: str
    format: str
    precision: str
    path: Path | None
    problem: str = ""
    problem_kind: str = ""


def artifacts(subject: Subject, places: Sequence[Place], *, fresh: bool) -> Iterator[Made]:
    """The published files, then ours that run in one of the places: each format at each precision, converted here."""
    for path in subject.published:
        yield Made(name=path.name, format="tflite", precision="", path=path)
    wanted = [
        (target, recipe, "phone") for target in ("tflite", "executorch") for recipe in ("float32", "int8", "int4")
    ]
    wanted += [("tflite", "int8", "mcu")] if subject.is_static_apart else []
    wanted += [("c", "int8", "mcu"), ("c", "int4", "mcu")]
    for target, recipe, place in wanted:
        if not any(target in each.formats for each in places):
            continue
        name = f"{subject.name}-{target}-{recipe}" + ("-mcu" if place == "mcu" and target != "c" else "")
        out = HOME / "artifacts" / name

        def make(target: str = target, recipe: str = recipe, place: str = place, out: Path = out) -> str:
            out.parent.mkdir(parents=True, exist_ok=True)
            convert(subject.request(target, recipe, place, out))
            return str(out)

        _say(f"{name}: convert")
        made = Made(name=name, format=target, precision=recipe, path=None)
        try:
            folder = Path(kept(HOME / "converted", name, make, fresh=fresh or not out.exists()))
        except Exception as error:  # noqa: BLE001  # whatever a library raises: the other rows are to be had still
            yield dataclasses.replace(made, problem=_reason(error), problem_kind=type(error).__name__)
            continue
        for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
            if recipe == "int4" and not any("int4" in each.got for each in read_artifact(manifest.parent).outcomes):
                _say(f"{name}: nothing of it became INT4; its INT8 rows stand for it")
                continue
            yield dataclasses.replace(made, path=manifest.parent)


def suite_rows(subject: Subject, places: Sequence[Place], *, fresh: bool) -> list[SuiteRow]:
    """Every artifact of a subject in every place that it fits; what failed is a row that says why."""
    (task,) = find_tasks(subject.task)
    rows: list[SuiteRow] = []
    for made in artifacts(subject, places, fresh=fresh):
        published = "published " if made.path in subject.published else ""
        static = " for microcontrollers" if made.format == "tflite" and made.name.endswith("-mcu") else ""
        for place in places:
            if made.format not in place.formats:
                continue
            if place.part == "tflm" and subject.is_static_apart and made.precision == "int8" and not static:
                continue  # the file for microcontrollers stands for it
            _say(f"{subject.name} {made.name}: {place.part}, {place.device}")
            try:
                row = _row(subject, task, made, place, fresh=fresh)
            except Exception as error:  # noqa: BLE001  # as above
                row = _failed(task, made, place, problem=_reason(error), kind=type(error).__name__)
            rows.append(dataclasses.replace(row, model=f"{published}{subject.name}{static}"))
            if row.problem:
                _say(f"  {row.problem_kind}: {row.problem}")
    return with_floor_of_float(task, rows)  # each was measured by itself, without the float model beside it


def _row(subject: Subject, task: Task, made: Made, place: Place, *, fresh: bool) -> SuiteRow:
    """One artifact in one place."""
    if made.path is None:
        return _failed(task, made, place, problem=f"not converted: {made.problem}", kind=made.problem_kind)
    model = describe_model(made.path, wanted=task.name)
    options = SuiteOptions(backends=(place.backend,), limit=place.limit, part=subject.part)
    if place.device.startswith("qemu:"):
        # An emulator's times mean nothing: none is spent on measuring them.
        options = dataclasses.replace(options, min_seconds=0.0, runs=6, rounds=1)

    def make() -> Any:
        found = run_suite([task], subject.data, [model], device=place.device, options=options)
        return to_json(found.rows[0])

    # Two places may have the same device and other runtimes, and artifacts of two names the same folder's name.
    name = "-".join((subject.name, made.name, made.path.name, place.part, place.device)).replace(":", "-")
    row = from_json(SuiteRow, kept(HOME / "rows", name, make, fresh=fresh), where=name)
    if row.problem and not is_refused(row):
        (HOME / "rows" / f"{name}.json").unlink(missing_ok=True)  # the next run tries again
    return dataclasses.replace(
        row, problem=row.problem.removeprefix(row.path).lstrip("/: ").removeprefix("model.tflite: ")
    )


def _failed(task: Task, made: Made, place: Place, *, problem: str, kind: str) -> SuiteRow:
    return SuiteRow(
        task=task.name,
        model=made.name,
        path=str(made.path or ""),
        precision=made.precision,
        format=made.format,
        runtime=place.backend or "",
        device=place.device,
        provenance="measured",
        offered=0,
        problem=problem,
        problem_kind=kind,
    )


def instruction_rows(data: Path, *, fresh: bool) -> list[tuple[object, ...]]:
    """Generated C against the reference kernels bit by bit, with instructions beside those of TFLM and CMSIS-NN."""
    rows: list[tuple[object, ...]] = []
    work = HOME / "boards"
    work.mkdir(parents=True, exist_ok=True)
    boards = tuple(board.removeprefix("qemu:") for board in BOARDS)
    for case in microcontrollers.cases(data, work):
        if case.name not in BIT_EXACT:
            continue

        def make(case: microcontrollers.Case = case) -> Any:
            forced = dataclasses.replace(case, request=dataclasses.replace(case.request, force=True))
            return to_json(microcontrollers.rows_of(forced, boards, optimisation="-O2"))

        _say(f"{case.name}: instructions")
        try:
            found = kept(HOME / "instructions", case.name.replace(" ", "-"), make, fresh=fresh)
        except Exception as error:  # noqa: BLE001  # as above
            found = [(case.name, *[""] * (len(microcontrollers.COLUMNS) - 2), f"failed: {_reason(error)}")]
        rows += [tuple(row) for row in found]
    return rows


def main(arguments: list[str]) -> None:
    """Print the tables."""
    fresh = "--fresh" in arguments
    parts = arguments[arguments.index("--only") + 1].split(",") if "--only" in arguments else list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        sys.exit(f"--only {','.join(unknown)}: must be among {', '.join(PARTS)}")
    data = development_data()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows: list[SuiteRow] = []
    failed: list[str] = []
    places = [place for place in PLACES if place.part in parts]
    if places:
        for subject in subjects(data):
            rows += suite_rows(subject, places, fresh=fresh)
        failed += [
            f"{row.model} {row.precision} {row.format} on {row.device}"
            for row in rows
            if row.problem and not is_refused(row)
        ]
        print(markdown(SUITE_COLUMNS, [suite_cells(row) for row in rows]))
        print(
            "\nQuality with its 95 % interval; p90 of single inferences, one thread; memory is what running took: on a "
            "host peak anonymous memory above an empty process (ExecuTorch runs there in Python with PyTorch, "
            "elsewhere by a native runner), on a board all RAM. Emulated devices take a sample of the items and tell "
            "no time. Tasks and floors are those of MLPerf Tiny; no MLPerf results.\n"
        )
        print(markdown(SUMMARY_COLUMNS, list(summary_rows(rows))))
        print(f"\n{remarks(rows)}")
    if "instructions" in parts:
        counted = instruction_rows(data, fresh=fresh)
        failed += [str(row[0]) for row in counted if str(row[-1]).startswith("failed")]
        print()
        print(markdown(microcontrollers.COLUMNS, counted))
        print(
            f"\n{microcontrollers.SAMPLES} random inputs for each model; -O2; compared with LiteRT's reference kernels."
        )
    _say("done")
    sys.exit(f"failed: {'; '.join(failed)}" if failed else 0)


def _reason(error: Exception) -> str:
    if isinstance(error, EdgeDeployError) and error.problems:
        return error.problems[0]
    return f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    minutes, seconds = divmod(int(time.monotonic() - STARTED), 60)
    print(f"{minutes:3d}:{seconds:02d} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
