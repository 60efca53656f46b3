"""Small sets in the published formats, and ONNX models that solve them: made here, for the real ones are not ours."""

from pathlib import Path

import numpy as np
import pytest

MELS, FRAMES, WINDOW = 128, 200, 5
MACHINES = (1, 2, 3, 4)


def onnx_model(path, nodes, inputs, outputs, weights):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}

    def described(entries):
        return [helper.make_tensor_value_info(name, kinds[kind], shape) for name, kind, shape in entries]

    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes],
        "net",
        described(inputs),
        described(outputs),
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with ad01, vww01 and dlrm, and models/ad.onnx, models/vww.onnx and models/dlrm.onnx that fit them."""
    root = tmp_path_factory.mktemp("made")
    (root / "models").mkdir()
    _anomaly_detection(root)
    _visual_wake_words(root)
    _clicks(root)
    return root


def _anomaly_detection(root):
    """Normal frames lie in a plane that the auto-encoder keeps, anomalies stand out of it; machine 3 hardly does."""
    generator = np.random.default_rng(0)
    folder = root / "ad01"
    folder.mkdir()
    basis = np.linalg.qr(generator.normal(size=(MELS, 8)))[0]
    lines = []
    for machine in MACHINES:
        for number in range(8):
            for label, word in ((0, "normal"), (1, "anomaly")):
                frames = generator.normal(size=(FRAMES, 8)) @ basis.T * 10 - 30
                strength = 0.001 if machine == 3 else 1.0
                frames += generator.normal(size=frames.shape) * (1.0 + label * strength)
                name = f"{word}_id_{machine:02d}_{number:08d}_hist_librosa.bin"
                (folder / name).write_bytes(frames.astype("<f4").tobytes())
                lines.append(f"{name},2,{label},{WINDOW * MELS * 4},{MELS * 4}")
    (folder / "y_labels.csv").write_text("\n".join(lines) + "\n")
    # The projection onto the plane, for each frame of a window; the level of -30 is kept by its own direction.
    level = np.ones((MELS, 1)) / np.sqrt(MELS)
    plane = np.linalg.qr(np.hstack([basis, level]))[0]
    keep = np.kron(np.eye(WINDOW), plane @ plane.T).astype(np.float32)
    onnx_model(
        root / "models" / "ad.onnx",
        [("MatMul", ["x", "w"], ["y"], {})],
        [("x", "float32", [1, 640])],
        [("y", "float32", [1, 640])],
        {"w": keep},
    )


def _visual_wake_words(root):
    """Persons are bright: the model compares the mean pixel with one half."""
    generator = np.random.default_rng(1)
    folder = root / "vww01"
    folder.mkdir()
    lines = []
    for number in range(40):
        person = number % 2
        level = 150 if person else 100
        pixels = np.clip(generator.normal(level, 20, (96, 96, 3)), 0, 255).astype(np.uint8)
        name = f"{number:012d}.bin"
        (folder / name).write_bytes(pixels.tobytes())
        lines.append(f"{name}, 2, {person}")  # the published files come with and without these spaces
    (folder / "y_labels.csv").write_text("\n".join(lines) + "\n")
    onnx_model(
        root / "models" / "vww.onnx",
        [
            ("ReduceMean", ["x"], ["mean"], {"axes": [1, 2, 3], "keepdims": 0}),
            ("Unsqueeze", ["mean", "axis"], ["column"], {}),
            ("Sub", ["column", "half"], ["person"], {}),
            ("Neg", ["person"], ["nobody"], {}),
            ("Concat", ["nobody", "person"], ["y"], {"axis": 1}),
        ],
        [("x", "float32", [1, 96, 96, 3])],
        [("y", "float32", [1, 2])],
        {"axis": np.array([1]), "half": np.array(0.49, np.float32)},
    )


def _clicks(root):
    generator = np.random.default_rng(2)
    folder = root / "dlrm"
    folder.mkdir()
    dense = generator.normal(size=(400, 4)).astype(np.float32)
    sparse = generator.integers(0, 50, (400, 1))
    table = generator.normal(size=(50, 1)).astype(np.float32)
    logit = dense[:, 0] + table[sparse[:, 0], 0]
    clicks = (generator.random(400) < 1 / (1 + np.exp(-2 * logit))).astype(np.int64)
    np.savez(folder / "eval.npz", dense=dense, sparse=sparse, y=clicks)
    onnx_model(
        root / "models" / "dlrm.onnx",
        [
            ("MatMul", ["dense", "w"], ["from_dense"], {}),
            ("Gather", ["table", "sparse"], ["rows"], {"axis": 0}),
            ("Squeeze", ["rows", "last"], ["from_table"], {}),
            ("Add", ["from_dense", "from_table"], ["y"], {}),
        ],
        [("dense", "float32", [1, 4]), ("sparse", "int64", [1, 1])],
        [("y", "float32", [1, 1])],
        {"w": np.array([[1.0], [0], [0], [0]], np.float32), "table": table, "last": np.array([2])},
    )
