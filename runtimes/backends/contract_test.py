"""The contract of every runtime that the folder holds: the same small model, called the same way.

A new backend needs one entry in `MODELS`; the tests then cover it.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deploy.core import registry
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.contracts import Backend
from runtimes.session import BACKENDS, open_session

PACKAGE = "runtimes.backends"
SHAPE = (1, 4)
X = np.float32([[1, -2, 3.5, 0]])


def tflite(folder: Path) -> Path:
    by_hand = pytest.importorskip("runtimes.formats.by_hand_test")
    hand = by_hand.ByHand()
    x, y = hand.tensor("x", list(SHAPE)), hand.tensor("y", list(SHAPE))
    hand.operator(by_hand.OPS.ADD, [x, x], [y], by_hand.schema.AddOptionsT())
    hand.signature("serving_default", {"x": x}, {"y": y})
    return hand.write(folder / "model.tflite")


def micro(folder: Path) -> Path:
    pytest.importorskip("tflite_micro")
    return tflite(folder)


def native(folder: Path) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    return pte(folder)


def onnx(folder: Path) -> Path:
    library = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = library.helper, library.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "twice",
        [helper.make_tensor_value_info("x", kind, SHAPE)],
        [helper.make_tensor_value_info("y", kind, SHAPE)],
    )
    library.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "model.onnx"
    )
    return folder / "model.onnx"


def exported() -> Any:
    torch = pytest.importorskip("torch")

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    return torch.export.export(Twice(), (torch.zeros(SHAPE),))


def pt2(folder: Path) -> Path:
    program = exported()
    pytest.importorskip("torch").export.save(program, folder / "model.pt2")
    return folder / "model.pt2"


def pte(folder: Path) -> Path:
    exir = pytest.importorskip("executorch.exir")
    (folder / "model.pte").write_bytes(exir.to_edge_transform_and_lower(exported()).to_executorch().buffer)
    return folder / "model.pte"


C_HEADER = """
/* input 0: x [1, 4] */
typedef float model_input_0_t;
/* output 0: y [1, 4] */
typedef float model_output_0_t;
void *model_input(int index);
const void *model_output(int index);
int model_invoke(void);
"""
C_CODE = """#include "model.h"
static float x[4], y[4];
void *model_input(int index) { return index ? 0 : x; }
const void *model_output(int index) { return index ? 0 : y; }
int model_invoke(void) { for (int i = 0; i < 4; ++i) y[i] = 2 * x[i]; return 0; }
"""


def c_project(folder: Path) -> Path:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("needs a C compiler")
    (folder / "model.h").write_text(C_HEADER)
    (folder / "model.c").write_text(C_CODE)
    return folder / "model.c"


MODELS: dict[str, Callable[[Path], Path]] = {
    "c-host": c_project,
    "executorch": pte,
    "executorch-native": native,
    "litert": tflite,
    "null": lambda folder: folder / "none",
    "onnxruntime": onnx,
    "tflite-micro": micro,
    "torch-eager": pt2,
}


@pytest.fixture(scope="module", params=registry.names(PACKAGE))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def opened(name: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    assert name in MODELS, f"runtimes/backends/{name}: give the contract test a model for it"
    path = MODELS[name](tmp_path_factory.mktemp(name))
    if name == "null":
        info = TensorInfo(name="x", shape=SHAPE, dtype="float32")
        known = (
            Signature(name="forward", inputs=(info,), outputs=(TensorInfo(name="y", shape=SHAPE, dtype="float32"),)),
        )
        return registry.load(PACKAGE, name).open_model(
            path, data_files=(), known=known, signature=None, threads=1, kernels="default"
        )
    return open_session(path, backend=name, trusted=True)


def test_it_is_opened_as_the_contract_says(name: str) -> None:
    have = inspect.signature(registry.load(PACKAGE, name).open_model).parameters
    want = inspect.signature(Backend.open_model).parameters
    assert [(p.name, p.kind) for p in have.values()] == [(p.name, p.kind) for p in want.values() if p.name != "self"]


def test_every_backend_but_null_opens_a_type_of_file() -> None:
    # These open what others open, where they are asked for by name.
    assert (
        {*BACKENDS.values(), "null", "tflite-micro", "executorch-native"} == set(registry.names(PACKAGE)) == set(MODELS)
    )


def test_arrays_go_in_and_come_out_by_name(name: str, opened: Any) -> None:
    (given,), (gotten,) = opened.signature.inputs, opened.signature.outputs
    assert (given.shape, given.dtype, gotten.shape) == (SHAPE, "float32", SHAPE)
    answer = opened.run({given.name: X})
    assert list(answer) == [gotten.name]
    first = answer[gotten.name]
    np.testing.assert_array_equal(first, np.zeros_like(X) if name == "null" else 2 * X)
    assert first.dtype == np.float32
    kept = first.copy()
    opened.run({given.name: X + 1})
    np.testing.assert_array_equal(first, kept, err_msg="a later call changed an earlier answer")
    assert opened.kernels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {}, "missing"),
        (lambda x: {x: X, "other": X}, "unknown"),
        (lambda x: {x: X[:, :3]}, "shape"),
        (lambda x: {x: X.astype(np.int64)}, "type int64"),
        (lambda x: {x: X.tolist()}, "NumPy array"),
    ],
)
def test_wrong_inputs_are_refused_and_the_session_lives_on(
    opened: Any, change: Callable[[str], dict[str, Any]], message: str
) -> None:
    given = opened.signature.inputs[0].name
    with pytest.raises(BadInput, match=message):
        opened.run(change(given))
    assert opened.run({given: X})


def test_layer_times_are_seconds_or_none(opened: Any) -> None:
    found = opened.layer_seconds({opened.signature.inputs[0].name: X}, runs=2)
    assert found is None or (found and all(seconds >= 0 for seconds in found.values()))


def test_closing_twice_is_fine(name: str, tmp_path: Path, opened: Any) -> None:
    opened.close()
    opened.close()
