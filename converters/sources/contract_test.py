"""The contract of every source that the folder holds: a small model, captured and run in float.

A new source needs one entry in `MODELS`; the tests then cover it.
"""

import inspect
import subprocess
import sys

import numpy as np
import pytest

from converters.capture import capture, choose_source, run_float
from converters.contracts import CaptureRequest, Source
from edge_deploy.core import registry
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

PACKAGE = "converters.sources"
INPUT = (TensorInfo(name="x", shape=(1, 6), dtype="float32"),)
FACTORY = """
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
"""


def factory(folder):
    pytest.importorskip("torch")
    (folder / "contract_of_sources.py").write_text(FACTORY)
    return CaptureRequest(source="contract_of_sources:net", inputs=INPUT, search_path=(str(folder),))


def pt2(folder):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(6, 3)).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 6),)), folder / "net.pt2")
    return CaptureRequest(source=str(folder / "net.pt2"))


def keras(folder):
    library = pytest.importorskip("keras")
    layers = library.layers
    library.Sequential([layers.Input((6,), name="x"), layers.Dense(3)]).save(folder / "net.keras")
    return CaptureRequest(source=str(folder / "net.keras"))


def saved_model(folder):
    library = pytest.importorskip("keras")
    layers = library.layers
    library.Sequential([layers.Input((6,), name="x"), layers.Dense(3)]).export(folder / "net", verbose=False)
    return CaptureRequest(source=str(folder / "net"))


def tflite(folder):
    request = keras(folder)
    file = capture(request, folder / "captured").float_tflite
    return CaptureRequest(source=str(file.rename(folder / "net.tflite")))


def onnx(folder):
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("onnx2tf")
    module = torch.nn.Sequential(torch.nn.Linear(6, 3)).eval()
    torch.onnx.export(module, (torch.zeros(1, 6),), folder / "net.onnx", input_names=["x"], dynamo=False)
    return CaptureRequest(source=str(folder / "net.onnx"))


def arrays(folder):
    random = np.random.default_rng(0)
    shapes = {"table": (9, 4), "low.0.weight": (4, 6), "low.0.bias": (4,), "high.0.weight": (1, 5), "high.0.bias": (1,)}
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", random.normal(size=shape).astype(np.float32))
    return CaptureRequest(source=str(folder))


MODELS = {
    "dlrm-arrays": arrays,
    "onnx": onnx,
    "keras": keras,
    "pt2": pt2,
    "saved-model": saved_model,
    "tflite": tflite,
    "torch-module": factory,
}


@pytest.fixture(scope="module", params=registry.names(PACKAGE))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def request_(name, tmp_path_factory):
    assert name in MODELS, f"converters/sources/{name}: give the contract test a model for it"
    return MODELS[name](tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def captured(request_, tmp_path_factory):
    return capture(request_, tmp_path_factory.mktemp("captured"))


@pytest.mark.parametrize("function", ["accepts", "capture", "run_float"])
def test_it_is_called_as_the_contract_says(name, function):
    have = inspect.signature(getattr(registry.load(PACKAGE, name), function)).parameters
    want = inspect.signature(getattr(Source, function)).parameters
    assert list(have) == [parameter for parameter in want if parameter != "self"]


def test_one_source_alone_accepts_a_model(name, request_):
    accepting = [each for each in registry.names(PACKAGE) if registry.load(PACKAGE, each).accepts(request_)]
    assert accepting == [name] and choose_source(request_) == name


def test_accepting_loads_no_heavy_library(name):
    code = (
        "import sys; from edge_deploy.core import registry; from converters.contracts import CaptureRequest\n"
        f"registry.load({PACKAGE!r}, {name!r}).accepts(CaptureRequest(source='any.file'))\n"
        "sys.exit(bool({'torch', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_it_captures_needs_its_framework_no_more(captured):
    if captured.is_streamed:
        assert captured.program is captured.float_tflite is None
        assert captured.kind == "recommender" and captured.recommender.is_relative_to(captured.folder)
        return
    assert (captured.program is not None) == (captured.framework == "torch")
    assert (captured.float_tflite is not None) == (captured.framework == "keras")
    for path in (captured.program, captured.float_tflite):
        assert path is None or (path.is_file() and path.is_relative_to(captured.folder))
    assert captured.name and captured.kind == "generic"
    assert [(info.shape[1:], info.dtype) for info in captured.inputs] == [((6,), "float32")]
    assert [info.shape[1:] for info in captured.outputs] == [(3,)]


def feeds(captured):
    random = np.random.default_rng(0)
    return {
        info.name: random.standard_normal((5, *info.shape[1:])).astype(info.dtype)
        if info.dtype == "float32"
        else random.integers(0, 9, (5, *info.shape[1:]))
        for info in captured.inputs
    }


def test_the_float_model_answers_for_every_sample(captured, tmp_path):
    (gotten,) = captured.outputs
    np.savez(tmp_path / "feeds.npz", **feeds(captured))
    run_float(captured, tmp_path / "feeds.npz", tmp_path / "answers.npz")
    with np.load(tmp_path / "answers.npz") as answers:
        assert answers.files == [gotten.name] and answers[gotten.name].shape == (5, *gotten.shape[1:])
        assert np.isfinite(answers[gotten.name]).all() and np.ptp(answers[gotten.name], axis=0).min() > 0


def test_feeds_of_another_shape_are_bad_input(captured, tmp_path):
    wrong = {captured.inputs[0].name: np.zeros((5, 7), np.float32)}
    np.savez(tmp_path / "feeds.npz", **{**feeds(captured), **wrong})
    with pytest.raises(BadInput):
        run_float(captured, tmp_path / "feeds.npz", tmp_path / "answers.npz")
    assert not (tmp_path / "answers.npz").exists()
