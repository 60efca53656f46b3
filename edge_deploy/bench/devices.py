"""`make bench-devices`: the suite on host, TFLM, emulated ARM and generated C; bits and instructions on boards.

Needs EDGE_DEPLOY_DATA, and what each part needs (LiteRT, ExecuTorch, tflite-micro, arm-none-eabi-gcc and
qemu-system-arm, an aarch64 compiler and qemu-user): a part that cannot run is a row that says why. Where emulation is
slow, a sample of the items is taken, and the table says how many. Results are kept in build/bench-devices;
BENCH=--fresh makes them again, BENCH="--only host,c" runs some parts: host, tflm, arm, c, boards, instructions.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_tests.tasks.data import Part
from device_tests.tasks.models import TaskModelFile, describe_model
from device_tests.tasks.run import SuiteOptions, SuiteRow, run_suite, with_floor_of_float
from device_tests.tasks.task import find_tasks
from edge_deploy.api.convert import convert
from edge_deploy.api.request import convert_request
from edge_deploy.bench import microcontrollers
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
        precisions: Of them, those that are tried; empty tries all.
    """

    part: str
    device: str
    formats: tuple[str, ...]
    backend: str | None = None
    precisions: tuple[str, ...] = ()
    limit: int | None = None


PLACES = (
    Place(part="host", device="host", formats=("tflite", "executorch")),
    Place(part="tflm", device="host", formats=("tflite",), backend="tflite-micro", precisions=("int8", "int4")),
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


def artifacts(subject: Subject, *, fresh: bool) -> Iterator[Path]:
    """The published files, then ours: each format at each precision, converted here; what is refused is told."""
    yield from subject.published
    wanted = [
        (target, recipe, "phone") for target in ("tflite", "executorch") for recipe in ("float32", "int8", "int4")
    ]
    wanted += [("tflite", "int8", "mcu")] if subject.is_static_apart else []
    wanted += [("c", "int8", "mcu"), ("c", "int4", "mcu")]
    for target, recipe, place in wanted:
        name = f"{subject.name}-{target}-{recipe}" + ("-mcu" if place == "mcu" and target != "c" else "")
        out = HOME / "artifacts" / name

        def make(target: str = target, recipe: str = recipe, place: str = place, out: Path = out) -> str:
            out.parent.mkdir(parents=True, exist_ok=True)
            convert(subject.request(target, recipe, place, out))
            return str(out)

        _say(f"{name}: convert")
        try:
            folder = Path(kept(HOME / "converted", name, make, fresh=fresh or not out.exists()))
        except EdgeDeployError as error:
            _say(f"{name}: not converted: {_reason(error)}")
            continue
        for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
            if recipe == "int4" and not any("int4" in each.got for each in read_artifact(manifest.parent).outcomes):
                _say(f"{name}: nothing of it became INT4; its INT8 rows stand for it")
                continue
            yield manifest.parent


def suite_rows(subject: Subject, places: Sequence[Place], *, fresh: bool) -> list[SuiteRow]:
    """Every artifact of a subject in every place that it fits."""
    (task,) = find_tasks(subject.task)
    rows: list[SuiteRow] = []
    for path in artifacts(subject, fresh=fresh):
        model = describe_model(path, wanted=task.name)
        for place in places:
            if model.format not in place.formats or (place.precisions and model.precision not in place.precisions):
                continue
            if place.part == "tflm" and subject.is_static_apart and not path.name.endswith("-mcu"):
                continue
            options = SuiteOptions(backends=(place.backend,), limit=place.limit, part=subject.part)
            if place.device.startswith("qemu:"):
                # An emulator's times mean nothing: none is spent on measuring them.
                options = dataclasses.replace(options, min_seconds=0.0, runs=6, rounds=1)

            def make(model: TaskModelFile = model, place: Place = place, options: SuiteOptions = options) -> Any:
                found = run_suite([task], subject.data, [model], device=place.device, options=options)
                return to_json(found.rows[0])

            name = "-".join((subject.name, path.name, place.part, place.device)).replace(":", "-").replace("/", "-")
            _say(f"{subject.name} {path.name}: {place.part}, {place.device}")
            try:
                row = from_json(SuiteRow, kept(HOME / "rows", name, make, fresh=fresh), where=name)
            except EdgeDeployError as error:
                _say(f"{name}: {_reason(error)}")
                continue
            published = "published " if path in subject.published else ""
            static = " for microcontrollers" if model.format == "tflite" and path.name.endswith("-mcu") else ""
            problem = row.problem.removeprefix(f"{row.path}/").removeprefix("model.tflite: ")
            rows.append(dataclasses.replace(row, model=f"{published}{subject.name}{static}", problem=problem))
    return with_floor_of_float(task, rows)  # each was measured by itself, without the float model beside it


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

        try:
            found = kept(HOME / "instructions", case.name.replace(" ", "-"), make, fresh=fresh)
        except EdgeDeployError as error:
            found = [(case.name, *[""] * (len(microcontrollers.COLUMNS) - 2), f"failed: {_reason(error)}")]
        rows += [tuple(row) for row in found]
    return rows


def main(arguments: list[str]) -> None:
    """Print both tables."""
    fresh = "--fresh" in arguments
    parts = arguments[arguments.index("--only") + 1].split(",") if "--only" in arguments else list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        sys.exit(f"--only {','.join(unknown)}: must be among {', '.join(PARTS)}")
    data = development_data()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows: list[SuiteRow] = []
    places = [place for place in PLACES if place.part in parts]
    if places:
        for subject in subjects(data):
            rows += suite_rows(subject, places, fresh=fresh)
        print(markdown(SUITE_COLUMNS, [suite_cells(row) for row in rows]))
        print(
            "\nQuality with its 95 % interval; p90 of single inferences, one thread; memory is what running took: on a "
            "host peak anonymous memory above an empty process (ExecuTorch runs there in Python with PyTorch, "
            "elsewhere by a native runner), on a board all RAM. Emulated devices take a sample of the items and tell "
            "no time. Tasks and floors are those of MLPerf Tiny; no MLPerf results."
        )
    if "instructions" in parts:
        print()
        print(markdown(microcontrollers.COLUMNS, instruction_rows(data, fresh=fresh)))
        print(
            f"\n{microcontrollers.SAMPLES} random inputs for each model; -O2; compared with LiteRT's reference kernels."
        )


def _reason(error: EdgeDeployError) -> str:
    return error.problems[0] if error.problems else str(error)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
