import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_deploy.core.errors import ToolchainError
from runtimes.first_load import first_load
from runtimes.formats.by_hand_test import dense, look_up, small_cnn

ROOT = Path(__file__).parents[1]
# What a fresh process finds of a sound file, one that the runtime refuses and one that ends its process.
SCRIPT = """
import json, sys, threading
from pathlib import Path
import numpy as np
np.ones((300, 300)) @ np.ones((300, 300))
if sys.argv[1] == "more threads":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
if sys.argv[1] == "a library's threads":
    import torch
    torch.set_num_threads(2)
    torch.nn.functional.conv2d(torch.ones(8, 32, 64, 64), torch.ones(32, 32, 3, 3))
from edge_deploy.core.errors import EdgeDeployError
from runtimes.first_load import trial
found = []
for path in sys.argv[2:]:
    try:
        with trial(Path(path), backend="litert") as wait:
            wait()
        found.append(["", ""])
    except EdgeDeployError as error:
        found.append([type(error).__name__, str(error)])
print(json.dumps([*found, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    refused = dense()
    refused.model.operatorCodes[1].version = 99
    return [
        small_cnn().write(folder / "sound.tflite"),
        refused.write(folder / "refused.tflite"),
        look_up(block=(2, 0)).write(folder / "deadly.tflite"),
    ]


@pytest.mark.parametrize("process", ["numpy's threads", "more threads", "a library's threads"])
def test_a_file_is_tried_in_a_fork_where_nothing_can_be_missing_in_it_and_else_in_a_fresh_process(
    files: list[Path], process: str
) -> None:
    if process == "a library's threads":
        pytest.importorskip("torch")
    command = [sys.executable, "-c", SCRIPT, process, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    sound, refused, deadly, modules = json.loads(done.stdout)
    if sys.platform.startswith("linux"):
        assert ("edge_deploy.core.child" in modules) == (process != "numpy's threads")
    assert sound == ["", ""]
    assert refused[0] == "BadInput" and "FULLY_CONNECTED" in refused[1]
    assert deadly[0] == "ToolchainError"
    assert "first load of deadly.tflite: the child process died of SIGFPE" in deadly[1]


def test_bytes_that_were_sound_are_not_tried_again_under_any_name(files: list[Path], tmp_path: Path) -> None:
    first_load(files[0], backend="litert")
    other = tmp_path / "other.tflite"
    other.write_bytes(files[0].read_bytes())
    first_load(other, backend="litert", timeout_s=0)  # no process could answer in that time
    for changed in ("kernels", "bytes"):
        if changed == "bytes":
            other.write_bytes(files[0].read_bytes() + b"\0" * 16)
        with pytest.raises(ToolchainError, match="gave no answer within 0 s"):
            first_load(other, backend="litert", kernels="default" if changed == "bytes" else "builtin", timeout_s=0)
