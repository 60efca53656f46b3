import numpy as np
import pytest

from converters.capture import capture, choose_source, run_float
from converters.contracts import CaptureRequest
from edge_deploy.core.errors import BadInput, ToolchainError
from edge_deploy.core.tensor import TensorInfo

FACTORY = """
import os
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))

def noisy():
    print("noise on stdout")
    return net()

def dies():
    os.abort()
"""
INPUT = (TensorInfo(name="x", shape=(1, 3), dtype="float32"),)


@pytest.fixture
def request_for(tmp_path):
    """Make a request for a factory in a module that lies in a folder of its own."""
    (tmp_path / "user_code_for_capture.py").write_text(FACTORY)

    def make(name, **more):
        source = f"user_code_for_capture:{name}"
        return CaptureRequest(source=source, inputs=INPUT, search_path=(str(tmp_path),), **more)

    return make


def test_a_factory_is_captured_and_run_in_child_processes(request_for, tmp_path, capfd):
    torch = pytest.importorskip("torch")
    got = capture(request_for("noisy"), tmp_path / "captured")
    x = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    np.savez(tmp_path / "feeds.npz", x=x)
    run_float(got, tmp_path / "feeds.npz", tmp_path / "answers.npz")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with np.load(tmp_path / "answers.npz") as answers:
        np.testing.assert_allclose(answers["output"], net(torch.from_numpy(x)).detach().numpy(), atol=1e-6)
    assert capfd.readouterr() == ("", "")


def test_a_crash_of_user_code_stays_in_the_child(request_for, tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(ToolchainError, match=r"capture of user_code_for_capture:dies: .*SIGABRT"):
        capture(request_for("dies"), tmp_path / "captured")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.pte", bytes(4) + b"ET12" + bytes(8), "the result of a conversion"),
        ("m.keras", b"PK\x03\x04 half a file", "truncated or damaged"),
        ("m.h5", b"", "is empty"),
        ("m.pt2", b"text", "no model file that edge-deploy knows"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        choose_source(CaptureRequest(source=str(tmp_path / name)))
    assert "edge-deploy reads Keras .keras and .h5" in str(caught.value)


def test_folders_missing_files_and_half_factories_are_refused(tmp_path):
    with pytest.raises(BadInput, match="is a folder"):
        choose_source(CaptureRequest(source=str(tmp_path)))
    with pytest.raises(BadInput, match="no such file"):
        choose_source(CaptureRequest(source=str(tmp_path / "no.keras")))
    with pytest.raises(BadInput, match=r"must be package\.module:factory"):
        choose_source(CaptureRequest(source="package.module:"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.onnx", b"\x08\x07\x12\x07pytorch", "no sound ONNX model"),
        ("m.tflite", bytes(4) + b"TFL3" + bytes(8), "damaged"),
        ("net/saved_model.pb", b"x", "truncated or damaged"),
    ],
)
def test_damaged_models_are_refused_when_they_are_read(tmp_path, name, content, message):
    pytest.importorskip("tensorflow")
    pytest.importorskip("onnx2tf")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    source = path.parent if path.parent != tmp_path else path
    with pytest.raises(BadInput, match=message):
        capture(CaptureRequest(source=str(source)), tmp_path / "captured")


def test_each_source_is_chosen_by_what_it_reads(tmp_path):
    (tmp_path / "any.name").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert choose_source(CaptureRequest(source=str(tmp_path / "any.name"))) == "keras"
    assert choose_source(CaptureRequest(source="package.module:factory")) == "torch-module"
