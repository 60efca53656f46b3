from pathlib import Path

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput, ToolchainError, Unsupported
from runtimes.session import open_session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """y = table[ids], with any number of ids."""
    helper, kind = onnx.helper, onnx.TensorProto
    table = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(6, 2), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "look-up",
        [helper.make_tensor_value_info("ids", kind.INT64, ["n"])],
        [helper.make_tensor_value_info("y", kind.FLOAT, ["n", 2])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_an_onnx_file_runs_as_a_session(path: Path) -> None:
    session = open_session(path)
    assert [(info.name, info.shape, info.dtype) for info in session.signature.inputs] == [("ids", (-1,), "int64")]
    assert session.kernels.startswith("onnxruntime ")
    assert session.run({"ids": np.array([5, 0])})["y"].tolist() == [[10, 11], [0, 1]]
    assert session.layer_seconds({"ids": np.array([5])}, runs=1) is None
    with pytest.raises(BadInput, match="type float32: must be int64"):
        session.run({"ids": np.zeros(2, np.float32)})
    with pytest.raises(ToolchainError, match="inference failed"):
        session.run({"ids": np.array([99])})
    session.close()
    with pytest.raises(BadInput, match="closed"):
        session.run({"ids": np.array([0])})


def test_what_it_cannot_do_is_refused(path: Path) -> None:
    with pytest.raises(Unsupported, match="one kernel set"):
        open_session(path, kernels="reference", trusted=True)
    path.write_bytes(b"no model")
    with pytest.raises(BadInput, match=r"model\.onnx: ONNX Runtime .* cannot load it"):
        open_session(path)
