"""Full-integer .tflite files of anybody become C; where a cross compiler is, it runs on emulated boards."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from converters.c.graph import read_graph
from converters.c.kernels_test import FAMILIES, Net
from converters.c.vectors import random_inputs
from device_tests.boards.board import BOARDS
from device_tests.boards.emulator import run_on_board
from edge_deploy.api.convert import convert
from edge_deploy.api.request import convert_request
from edge_deploy.core.errors import BadInput
from runtimes.folder import read_artifact
from runtimes.formats.by_hand_test import ByHand
from runtimes.session import open_session

SAMPLES = 4


def write_net(folder, families):
    net = Net(ByHand(), np.random.default_rng(3), {}, {})
    for family in families:
        FAMILIES[family](net)
    net.hand.signature("main", dict(net.inputs), dict(net.outputs))
    return net.hand.write(folder / "net.tflite")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Every operator that the C target knows, in one file."""
    folder = tmp_path_factory.mktemp("integer")
    path = write_net(folder, FAMILIES)
    request = convert_request(str(path), to=["c"], precision=["int8"], out=folder / "out")
    return path, convert(request).folder / "c-int4"


def test_the_artifact_says_what_it_is_and_that_it_equals_its_source(converted):
    _, folder = converted
    artifact = read_artifact(folder)
    assert (artifact.format, artifact.spec.recipe, artifact.model_file.path) == ("c", "int4", "model.c")
    assert artifact.verification.comparisons[0].snr_db == 999
    assert {outcome.got.split()[0] for outcome in artifact.outcomes} == {"int8", "int4"}
    assert all(outcome.is_as_asked for outcome in artifact.outcomes)
    packed = [o for o in artifact.outcomes if o.got.startswith("int4") and o.op == "CONV_2D"]
    assert packed and all(4 <= outcome.weight_bits < 5.5 for outcome in packed), "rows begin at whole bytes"
    assert "bytes of RAM" in artifact.warnings[0]


@pytest.mark.parametrize("board", ["cortex-m3", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("optimisation", ["-O0", "-O2"])
def test_every_operator_is_exact_on_emulated_boards(converted, board, optimisation):
    for program in ("arm-none-eabi-gcc", "qemu-system-arm", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make packages)")
    path, folder = converted
    signature = read_artifact(folder).signatures[0]
    session = open_session(path, kernels="reference", trusted=True)
    given = random_inputs(read_graph(path), SAMPLES, seed=9)
    feeds = {info.name: given[place] for place, info in enumerate(signature.inputs)}
    # Without optimisation every inlined function has a place of its own on the stack.
    stack = 16384 if optimisation == "-O0" else 2048
    run = run_on_board(folder, signature, BOARDS[board], feeds, optimisation=optimisation, stack_bytes=stack)
    differing = set()
    for number in range(SAMPLES):
        answer = session.run({name: array[number] for name, array in feeds.items()})
        differing |= {name for name in answer if answer[name].tobytes() != run.outputs[name][number].tobytes()}
    assert not differing


def test_the_command_takes_a_quantized_file_for_c_alone(tmp_path):
    path = write_net(tmp_path, ["chain"])
    command = [sys.executable, "-m", "edge_deploy.cli.main", "convert", str(path), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--to", "tflite"], capture_output=True, text=True, check=False)
    assert done.returncode == 4 and "quantized already" in done.stderr
    done = subprocess.run([*command, "--to", "c", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (artifact,) = json.loads(done.stdout)["artifacts"]
    assert artifact["format"] == "c"
    assert (tmp_path / "out" / "report.html").is_file()


def test_options_that_need_the_float_model_are_refused(tmp_path):
    path = write_net(tmp_path, ["chain"])
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 12, 12, 4), np.float32))
    request = convert_request(
        str(path), to=["c"], precision=["int8"], calibrate=tmp_path / "data.npz", out=tmp_path / "out"
    )
    with pytest.raises(BadInput, match=r"--calibrate: .* is quantized already"):
        convert(request)
    assert not (tmp_path / "out").exists()
