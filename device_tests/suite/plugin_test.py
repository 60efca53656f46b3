"""The plugin in a pytest of its own, as users start it."""

import os
import re
import subprocess
import sys

import pytest

from device_tests.suite.opened import artifacts_below
from edge_deploy.core.errors import BadInput

PLUGIN = ("-p", "device_tests.suite.plugin", "-p", "no:cacheprovider", "-rs", "-q")


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "pytest", *PLUGIN, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An int8 identity as .tflite would need TensorFlow: an ONNX net of one layer does."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    import numpy as np

    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])],
        [onnx.numpy_helper.from_array(np.eye(8, 3, dtype=np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    onnx.save(made, str(path))
    return path


def test_the_suite_runs_on_an_artifact_from_anywhere(model, tmp_path):
    done = run(tmp_path, "--artifact", model, "--device", "host")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"4 passed, 1 skipped", done.stdout), done.stdout
    assert "no --task-data" in done.stdout


def test_a_damaged_artifact_and_a_budget_that_is_too_small_fail_with_their_reason(model, tmp_path):
    (tmp_path / "torn.onnx").write_bytes(model.read_bytes()[:40])
    done = run(
        *(tmp_path, "--artifact", tmp_path / "torn.onnx", "--artifact", model, "--max-memory", "1MiB"),
        *("-k", "loads or memory"),
    )
    assert done.returncode == 1
    assert "torn.onnx" in done.stdout
    assert "the budget is 1.05 MB" in done.stdout
    for count in ("1 failed", "1 passed", "2 errors"):  # of memory, of loading, of the torn one's both
        assert count in done.stdout
    assert "Traceback" not in done.stdout


def test_an_unknown_device_fails_with_a_suggestion_before_anything_is_loaded(model, tmp_path):
    done = run(tmp_path, "--artifact", model, "--device", "hots", "-k", "loads")
    assert done.returncode == 1
    assert "did you mean host" in done.stdout


def test_without_the_option_and_with_tests_of_ones_own_the_plugin_keeps_out(model, tmp_path):
    own = tmp_path / "test_own.py"
    own.write_text("def test_own():\n    pass\n")
    assert "1 passed" in run(tmp_path).stdout
    own.write_text("def test_own(on_device):\n    assert on_device.loaded['kernels']\n")
    assert "1 passed" in run(tmp_path, "--artifact", model, "test_own.py").stdout


def test_what_is_no_artifact_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        artifacts_below(tmp_path / "absent")
    with pytest.raises(BadInput, match=r"holds no manifest\.json"):
        artifacts_below(tmp_path)
