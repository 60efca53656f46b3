"""Generated C on emulated boards, bit by bit; skipped where compiler and emulator are not installed."""

import shutil

import numpy as np
import pytest

from device_tests.boards.board import BOARDS, find_board
from device_tests.boards.emulator import run_on_board
from device_tests.device_list import connect, find_device
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra, Unsupported
from edge_deploy.core.tensor import TensorInfo

HEADER = """
#define MODEL_INPUTS 1
#define MODEL_OUTPUTS 1
#include <stdint.h>
/* input 0: x [1, 4] */
typedef int8_t model_input_0_t;
/* output 0: y [1, 4] */
typedef int32_t model_output_0_t;
void *model_input(int index);
const void *model_output(int index);
int model_invoke(void);
"""
CODE = """
#include "model.h"
static const int32_t factors[{flash}] = {{1, 2, 3, 4}};
static int8_t x[4];
static int32_t y[{ram}];
void *model_input(int index) {{ return index ? 0 : x; }}
const void *model_output(int index) {{ return index ? 0 : y; }}
int model_invoke(void) {{
  if (x[0] == 99) for (;;) {{ }}
  if (x[0] == 98) *(volatile int32_t *)0xF0000000 = 1;
  if (x[0] == 97) return 1;
  for (int i = 0; i < 4; ++i) y[i] = x[i] * factors[i];
  return factors[(uint8_t)x[3] % {flash}] + y[(uint8_t)x[3] % {ram}] == -1;
}}
"""
SIGNATURE = Signature(
    name="main",
    inputs=(TensorInfo(name="x", shape=(1, 4), dtype="int8"),),
    outputs=(TensorInfo(name="y", shape=(1, 4), dtype="int32"),),
)


@pytest.fixture
def installed():
    for program in ("arm-none-eabi-gcc", "qemu-system-arm", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make packages)")


def project(folder, *, flash=4, ram=4):
    folder.mkdir(exist_ok=True)
    (folder / "model.h").write_text(HEADER)
    (folder / "model.c").write_text(CODE.format(flash=flash, ram=ram))
    return folder


def rows(*firsts):
    return {"x": np.array([[[first, -2, 3, 4]] for first in firsts], np.int8)}


@pytest.mark.parametrize("name", BOARDS)
def test_samples_run_on_every_board_and_count_the_same_twice(name, tmp_path, installed):
    made = project(tmp_path / "c")
    first, again = (run_on_board(made, SIGNATURE, BOARDS[name], rows(1, 5, -7)) for _ in range(2))
    assert first.outputs["y"].tolist() == [[[x, -4, 9, 16]] for x in (1, 5, -7)]
    assert first.instructions == again.instructions > 20
    assert first.by_function["model_invoke"] > 10
    assert name in first.kernels and "emulated" in first.kernels
    assert 0 < first.flash_bytes < 4000
    assert 16 <= first.ram_bytes < 2000


def test_what_does_not_fit_the_device_is_refused_with_the_bytes_that_are_too_many(tmp_path, installed):
    big = project(tmp_path / "c", flash=20_000, ram=5_000)
    board = BOARDS["cortex-m4"]
    with pytest.raises(DeviceError, match=r"\d+ bytes too many for 65536 bytes of FLASH"):
        run_on_board(big, SIGNATURE, board, rows(1), flash_bytes=64 << 10)
    with pytest.raises(DeviceError, match=r"\d+ bytes too many for 16384 bytes of RAM"):
        run_on_board(big, SIGNATURE, board, rows(1), ram_bytes=16 << 10)
    with pytest.raises(BadInput, match="RAM of 0 bytes"):
        run_on_board(big, SIGNATURE, board, rows(1), ram_bytes=0)
    assert run_on_board(big, SIGNATURE, board, rows(1), flash_bytes=128 << 10, ram_bytes=32 << 10).outputs


def test_hangs_faults_and_bad_ids_end_in_bounded_time_with_the_reason(tmp_path, installed):
    made = project(tmp_path / "c")
    board = BOARDS["cortex-m4"]
    with pytest.raises(DeviceError, match="no answer within 1 s"):
        run_on_board(made, SIGNATURE, board, rows(1, 99), timeout_s=1)
    with pytest.raises(DeviceError, match="fault of the core"):
        run_on_board(made, SIGNATURE, board, rows(98))
    with pytest.raises(DeviceError, match="the program"):
        run_on_board(made, SIGNATURE, board, rows(1), stack_bytes=64, optimisation="-O0", timeout_s=10)
    with pytest.raises(DeviceError, match="id outside its table"):
        run_on_board(made, SIGNATURE, board, rows(97))


def test_code_that_the_compiler_refuses_is_shown(tmp_path, installed):
    made = project(tmp_path / "c")
    (made / "model.c").write_text("int model_invoke(void) { return fish; }")
    with pytest.raises(DeviceError, match="fish"):
        run_on_board(made, SIGNATURE, BOARDS["cortex-m4"], rows(1))


def test_a_missing_compiler_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="apt-get install"):
        run_on_board(project(tmp_path / "c"), SIGNATURE, BOARDS["cortex-m4"], rows(1))


def test_an_unknown_board_is_refused_with_a_suggestion():
    with pytest.raises(BadInput, match="did you mean cortex-m4"):
        find_board("cortex-m4f")


def test_a_pushed_project_is_run_through_the_transport(tmp_path, installed):
    made = project(tmp_path / "c")
    np.savez(tmp_path / "in.npz", **rows(1, 2))
    transport = connect(find_device("qemu:cortex-m3"))
    try:
        for name in ("model.h", "model.c"):
            pushed = transport.push(made / name, f"0/{name}")
        feeds = transport.push(tmp_path / "in.npz", "in.npz")
        channel = transport.run("device_tests.worker")
        with pytest.raises(BadInput, match="nothing is loaded"):
            channel.ask({"do": "infer", "inputs": feeds, "outputs": feeds + ".out"}, timeout_s=60)
        assert channel.ask({"do": "load", "path": pushed}, timeout_s=60)["emulator"].startswith("emulated by QEMU")
        told = channel.ask({"do": "infer", "inputs": feeds, "outputs": feeds + ".out"}, timeout_s=60)
        assert told["instructions"] > 0 and told["ram_bytes"] > 0
        transport.pull("in.npz.out", tmp_path / "out.npz")
        assert np.load(tmp_path / "out.npz")["y"].shape == (2, 1, 4)
        with pytest.raises(DeviceError, match="count instructions"):
            channel.ask({"do": "warm", "rounds": 1, "runs": 1, "min_seconds": 0}, timeout_s=60)
        with pytest.raises(Unsupported, match="--to c"):
            channel.ask({"do": "load", "path": "model.tflite"}, timeout_s=60)
    finally:
        transport.close()
