"""A generated C project behind a pseudo terminal, compiled from the very protocol that a board would run."""

import numpy as np
import pytest

from device_tests.benchmark import benchmark
from device_tests.device_list import connect, find_device
from device_tests.loopback.serial_board import loopback_board
from device_tests.serial_line import SerialLine
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra

HEADER = """
#define MODEL_INPUTS 2
#define MODEL_OUTPUTS 1
#include <stdint.h>
/* input 0: x [1, 40] */
typedef int8_t model_input_0_t;
#define MODEL_INPUT_0_SCALE 0.5f
#define MODEL_INPUT_0_ZERO_POINT 0
/* input 1: id [1, 1] */
typedef int32_t model_input_1_t;
/* output 0: y [1, 3] */
typedef int8_t model_output_0_t;
#define MODEL_OUTPUT_0_SCALE 0.00390625f
#define MODEL_OUTPUT_0_ZERO_POINT -128
void *model_input(int index);
const void *model_output(int index);
int model_invoke(void);
"""
CODE = """
#include "model.h"
static int8_t x[40], y[3];
static int32_t id[1];
void *model_input(int index) { return index ? (void *)id : (void *)x; }
const void *model_output(int index) { return index ? 0 : y; }
int model_invoke(void) {
  int sum = 0;
  if (id[0] == 98) for (;;) { }
  if (id[0] > 90) return 1;
  for (int i = 0; i < 40; ++i) { sum += x[i]; x[i] = 0; }
  y[0] = (int8_t)sum; y[1] = (int8_t)id[0]; y[2] = -128;
  return 0;
}
"""
LOAD = {
    "do": "load",
    "backend": None,
    "signature": None,
    "threads": 1,
    "kernels": "default",
    "seed": 0,
    "inputs": None,
    "source": [],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.h").write_text(HEADER)
    (folder / "model.c").write_text(CODE)
    return folder


@pytest.fixture
def board(project):
    try:
        with loopback_board(project) as found:
            yield found
    except MissingExtra as missing:
        pytest.skip(str(missing))


@pytest.fixture
def worker(board, project):
    transport = connect(find_device(f"serial:{board[0]}"))
    for name in ("model.h", "model.c"):
        path = transport.push(project / name, f"0/{name}")
    channel = transport.run("")
    yield channel, path, transport
    channel.close()
    transport.close()


def sample(ids, seed=0):
    x = np.random.default_rng(seed).integers(-3, 4, (len(ids), 1, 40)).astype(np.int8)
    return {"x": x, "id": np.array(ids, np.int32).reshape(-1, 1, 1)}


def test_inputs_go_over_the_line_and_quantized_outputs_come_back_exactly(worker, tmp_path):
    channel, path, _ = worker
    arrays = sample([5, -7, 90])
    np.savez(tmp_path / "in.npz", **arrays)
    told = channel.ask({**LOAD, "path": path}, timeout_s=20)
    assert told["kernels"] == "firmware of LOOPBACK (profile edge-deploy serial protocol, model model)"
    request = {"do": "infer", "inputs": str(tmp_path / "in.npz"), "outputs": str(tmp_path / "out.npz")}
    assert channel.ask(request, timeout_s=20) == {"samples": 3}
    with np.load(tmp_path / "out.npz") as archive:
        found = archive["y"]
    assert found.dtype == np.int8
    want = [[[int(x.sum()), number, -128]] for x, number in zip(arrays["x"], (5, -7, 90), strict=True)]
    assert found.tolist() == want


def test_a_benchmark_takes_the_boards_own_times(board, project):
    (report,) = benchmark([project / "model.c"], device=f"serial:{board[0]}", runs=6, rounds=6, min_seconds=0)
    assert report.device.kind == "microcontroller"
    assert report.conditions.calls_per_value > 10
    assert all(0 < value < 0.1 for values in report.rounds_s for value in values)
    assert any("the model is part of the firmware" in note for note in report.notes)


def test_what_the_board_refuses_is_an_error_in_its_words(board, worker, tmp_path):
    channel, path, _ = worker
    np.savez(tmp_path / "in.npz", **sample([95]))
    channel.ask({**LOAD, "path": path}, timeout_s=20)
    with pytest.raises(DeviceError, match="infer: the board says: An id is out of range"):
        channel.ask({"do": "infer", "inputs": str(tmp_path / "in.npz"), "outputs": "x"}, timeout_s=20)
    with SerialLine(board[0]) as line, pytest.raises(DeviceError, match="the board says: This model takes 44 bytes"):
        line.send_input(b"too few")


def test_a_board_that_hangs_or_is_pulled_out_is_given_up_in_time(board, worker, tmp_path):
    channel, path, _ = worker
    channel.ask({**LOAD, "path": path}, timeout_s=20)
    np.savez(tmp_path / "in.npz", **sample([98]))
    with pytest.raises(DeviceError, match="gave no answer within 0 s; does its firmware speak"):
        channel.ask({"do": "infer", "inputs": str(tmp_path / "in.npz"), "outputs": "x"}, timeout_s=0.4)
    board[1].kill()
    board[1].wait()
    with pytest.raises(DeviceError, match=r"gave no answer|the board is gone"):
        channel.ask({"do": "measure", "values_per_round": 1, "calls_per_value": 1}, timeout_s=0.4)


def test_ports_that_are_none_are_refused(tmp_path):
    with pytest.raises(DeviceError, match=r"cannot be opened .*plug the board in"):
        find_device("serial:/dev/ttyNONE7")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="is no terminal"):
        find_device(f"serial:{tmp_path}/file")
    with pytest.raises(BadInput, match=r"must be serial:/dev/tty"):
        find_device("serial:COM3")
    with pytest.raises(BadInput, match="12345 baud: must be a standard speed"):
        find_device("serial:/dev/null:12345")
