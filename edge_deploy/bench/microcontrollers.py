"""`make bench-microcontrollers`: generated C on emulated Cortex-M boards: instructions, memory, bit-exactness.

Needs EDGE_DEPLOY_DATA, arm-none-eabi-gcc and qemu-system-arm. Instructions are counted, and nothing is timed: an
emulator knows no cycles. BENCH=--all-boards adds Cortex-M3, M7 and M33, BENCH=-O3 compiles for speed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.c.graph import read_graph
from converters.c.vectors import random_inputs
from device_tests.boards.board import BOARDS
from device_tests.boards.emulator import run_on_board
from edge_deploy.api.convert import convert
from edge_deploy.api.request import ConvertRequest, convert_request
from edge_deploy.bench.models import DESCRIPTIONS, development_data
from edge_deploy.bench.rows import markdown
from edge_deploy.core.artifact import Artifact
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.serde import write_json
from edge_deploy.zoo.dlrm import CONFIG_VARIABLE, DlrmConfig
from runtimes.folder import read_artifact
from runtimes.formats.c_source import arena_bytes
from runtimes.micro.arena import measure_arena
from runtimes.session import open_session

__all__ = ["main"]

YARDSTICK = "yardstick CNN"
# Instructions for each inference of the yardstick and arena bytes on that board, measured with TFLM built from source.
TFLM = {
    "cortex-m4": {"TFLM reference kernels": (78.6e6, 10980), "TFLM + CMSIS-NN": (2.71e6, 11620)},
    "cortex-m55": {"TFLM + CMSIS-NN": (0.74e6, 13108)},
}
SAMPLES = 8
CALIBRATION_SAMPLES = 200
COLUMNS = (
    *("model", "board", "kernels", "M instructions", "per MAC", "arena B", "TFLM head B", "RAM B", "flash B"),
    "bits that differ",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model in C."""

    name: str
    request: ConvertRequest


def cases(data: Path, work: Path) -> tuple[Case, ...]:
    """The yardstick as it is, and the reference nets and a recommender converted here."""
    models = data / "models"
    yardstick = next((models / "yardstick_cnn_int8").glob("*.tflite"))
    resnet = next((models / "mlperf_tiny_ic_resnet8").glob("*.h5"))
    dscnn = models / "mlperf_tiny_kws_dscnn" / "kws_ref_model"

    def net(name: str, source: Path, calibrate: str, precision: str) -> Case:
        return Case(
            name=f"{name} {precision.upper()}",
            request=convert_request(
                str(source),
                to=["c"],
                precision=[precision],
                fallback="int8" if precision == "int4" else None,
                calibrate=DESCRIPTIONS / calibrate,
                calibrate_limit=CALIBRATION_SAMPLES,
                out=work / f"{name}-{precision}",
            ),
        )

    return (
        Case(name=YARDSTICK, request=convert_request(str(yardstick), to=["c"], precision=["int8"], out=work / "y")),
        net("ResNet-8", resnet, "cifar10_train4k.toml", "int8"),
        net("ResNet-8", resnet, "cifar10_train4k.toml", "int4"),
        net("DS-CNN", dscnn, "kws01_calibrate.toml", "int8"),
        net("DS-CNN", dscnn, "kws01_calibrate.toml", "int4"),
        _recommender(work),
    )


def _recommender(work: Path) -> Case:
    """A DLRM of 6 tables and three layers each way, with random weights: they change no instruction."""
    config = DlrmConfig(dense_features=13, table_rows=(500, 300, 200, 1000, 70, 90), dim=16)
    write_json(config, work / "dlrm.json")
    os.environ[CONFIG_VARIABLE] = str(work / "dlrm.json")
    random = np.random.default_rng(0)
    dense = random.normal(size=(CALIBRATION_SAMPLES, config.dense_features)).astype(np.float32)
    ids = np.stack([random.integers(0, rows, CALIBRATION_SAMPLES) for rows in config.table_rows], 1)
    np.savez(work / "clicks.npz", dense=dense, sparse=ids)
    request = convert_request(
        "edge_deploy.zoo.dlrm:configured",
        to=["c"],
        precision=["int8"],
        for_device="mcu",
        calibrate=work / "clicks.npz",
        inputs=[f"dense:1,{config.dense_features}", f"sparse:1,{len(config.table_rows)}:int64"],
        out=work / "dlrm",
    )
    return Case(name="DLRM INT8", request=request)


def rows_of(case: Case, boards: tuple[str, ...], *, optimisation: str) -> list[tuple[object, ...]]:
    """Convert, run on every board on the same random inputs, and compare with the reference kernels."""
    conversion = convert(case.request, progress=lambda stage: _say(f"{case.name}: {stage}"))
    artifact = conversion.artifacts[0]
    folder = conversion.folder / next(each.name for each in conversion.folder.iterdir() if each.is_dir())
    graph = read_graph(folder / "model.tflite")
    given = random_inputs(graph, SAMPLES, seed=2)
    signature = read_artifact(folder).signatures[0]
    feeds = {info.name: given[place] for place, info in enumerate(signature.inputs)}
    wanted = _reference(folder / "model.tflite", given)
    head = _tflm_head(folder / "model.tflite")
    found: list[tuple[object, ...]] = []
    for board in boards:
        _say(f"{case.name}: {board}")
        run = run_on_board(folder, signature, BOARDS[board], feeds, optimisation=optimisation)
        answers = [run.outputs[info.name] for info in signature.outputs]
        found.append(
            (
                *(case.name, board, "generated C"),
                *(f"{run.instructions / 1e6:.3f}", _per_mac(run.instructions, artifact)),
                *(arena_bytes(folder / "model.c"), head, run.ram_bytes, run.flash_bytes),
                _differing(answers, wanted),
            )
        )
        if case.name == YARDSTICK:
            for kernels, (instructions, arena) in TFLM.get(board, {}).items():
                numbers = (f"{instructions / 1e6:.3f}", _per_mac(instructions, artifact), arena)
                found.append((case.name, board, kernels, *numbers, "", "", "", ""))
    return found


def _tflm_head(path: Path) -> object:
    """What TFLite Micro's arena needs for the same values (its wheel, x86-64 reference kernels)."""
    try:
        return measure_arena(path).head_bytes
    except EdgeDeployError:
        return ""  # it refuses the model, as it does packed INT4 of some layers, or its wheel is not installed


def _per_mac(instructions: float, artifact: Artifact) -> str:
    return f"{instructions / artifact.graph.macs:.2f}"


def _reference(path: Path, given: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    session = open_session(path, kernels="reference", trusted=True)
    answers: list[dict[str, Any]] = []
    for number in range(SAMPLES):
        answers.append(session.run({info.name: given[k][number] for k, info in enumerate(session.signature.inputs)}))
    return [np.stack([answer[info.name] for answer in answers]) for info in session.signature.outputs]


def _differing(answers: list[np.ndarray], wanted: list[np.ndarray]) -> str:
    differing = total = 0
    for got, want in zip(answers, wanted, strict=True):
        bits = np.unpackbits(np.ascontiguousarray(got).view(np.uint8) ^ np.ascontiguousarray(want).view(np.uint8))
        differing += int(bits.sum())
        total += bits.size
    return f"{differing} of {total}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main(arguments: list[str], *, choose: Callable[[Case], bool] = lambda case: True) -> list[tuple[object, ...]]:
    """Print the table; its rows."""
    boards = tuple(BOARDS) if "--all-boards" in arguments else ("cortex-m4", "cortex-m55")
    optimisation = "-O3" if "-O3" in arguments else "-O2"
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory(prefix="edge-deploy-bench-") as folder:
        for case in cases(development_data(), Path(folder)):
            if choose(case):
                rows += rows_of(case, boards, optimisation=optimisation)
    print(markdown(COLUMNS, rows))
    print(f"\n{SAMPLES} random inputs for each model; {optimisation}; compared with LiteRT's reference kernels.")
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
