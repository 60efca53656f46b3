"""Sessions over small programs made with ExecuTorch alone."""

from __future__ import annotations

import numpy as np
import pytest

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.tensor import TensorInfo
from runtimes.backends.executorch import open_model, open_session
from runtimes.formats.pte import read_facts, read_pte

SIGNATURE = Signature(
    name="forward",
    inputs=(TensorInfo(name="image", shape=(1, 3, 6, 5), dtype="float32"),),
    outputs=(TensorInfo(name="y", shape=(1, 4, 6, 5), dtype="float32"),),
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A convolution, delegated, behind a cumulative sum, which stays portable; and what torch computes."""
    torch = pytest.importorskip("torch")
    exir = pytest.importorskip("executorch.exir")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(torch.cumsum(x, 3))

    torch.manual_seed(0)
    module = Net().eval()
    exported = torch.export.export(module, (torch.randn(1, 3, 6, 5),))
    edge = exir.to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    path = tmp_path_factory.mktemp("program") / "net.pte"
    path.write_bytes(edge.to_executorch().buffer)

    def reference(image):
        with torch.no_grad():
            return module(torch.from_numpy(np.ascontiguousarray(image))).numpy()

    return path, reference


@pytest.fixture
def session(program):
    opened = open_session(program[0], signature=SIGNATURE)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).standard_normal((1, 3, 6, 5)).astype(np.float32)


def test_a_session_computes_what_torch_computes(session, program, image):
    np.testing.assert_allclose(session.run({"image": image})["y"], program[1](image), atol=1e-5)
    assert session.kernels.startswith("executorch 1.")
    assert session.kernels.endswith("XNNPACK+portable")


def test_channels_last_memory_is_not_taken_for_channels_first(session, program, image):
    view = np.ascontiguousarray(image.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert view.shape == image.shape
    assert not view.flags.c_contiguous
    np.testing.assert_array_equal(session.run({"image": view})["y"], session.run({"image": image})["y"])


def test_a_read_only_array_is_taken_and_an_answer_survives_the_next_call(session, image):
    frozen = image.copy()
    frozen.setflags(write=False)
    first = session.run({"image": frozen})["y"]
    kept = first.copy()
    session.run({"image": image * 2})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("rows", [4, 4000], ids=["copied in", "shared"])
def test_answers_that_are_inputs_or_share_memory_survive_the_next_call(rows, tmp_path):
    torch = pytest.importorskip("torch")
    exir = pytest.importorskip("executorch.exir")

    class Net(torch.nn.Module):
        def forward(self, x, z):
            double = x * 2
            return double, double.view(4, -1), x, z

    examples = (torch.zeros(rows, 4), torch.zeros(2, dtype=torch.int64))
    edge = exir.to_edge_transform_and_lower(torch.export.export(Net(), examples))
    path = tmp_path / "aliases.pte"
    path.write_bytes(edge.to_executorch().buffer)
    session = open_model(path, data_files=(), known=(), signature=None, threads=1, kernels="default")
    names = [info.name for info in session.signature.inputs]
    x, z = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4), np.array([3, 4])
    first = session.run(dict(zip(names, (x, z), strict=True)))
    session.run(dict(zip(names, (x * 0 - 1, z * 0 - 1), strict=True)))
    for got, wanted in zip(first.values(), (x * 2, (x * 2).reshape(4, -1), x, z), strict=True):
        np.testing.assert_array_equal(got, wanted)
    session.close()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing"),
        ({"image": np.zeros((1, 3, 6, 5), np.float64)}, "float64"),
        ({"image": np.zeros((1, 6, 5, 3), np.float32)}, "shape"),
        ({"image": np.zeros((2, 3, 6, 5), np.float32)}, "shape"),
        ({"image": np.zeros((1, 3, 6, 5), np.float32), "other": np.zeros(1)}, "unknown"),
        ({"image": [[0.0]]}, "NumPy array"),
    ],
)
def test_inputs_that_do_not_fit_are_named(session, inputs, message):
    with pytest.raises(BadInput, match=message):
        session.run(inputs)


def test_open_sessions_share_one_number_of_threads(session, program):
    with pytest.raises(BadInput, match="another ExecuTorch session"):
        open_session(program[0], signature=SIGNATURE, threads=2)
    session.close()
    with pytest.raises(BadInput, match="closed"):
        session.run({"image": np.zeros((1, 3, 6, 5), np.float32)})
    other = open_session(program[0], signature=SIGNATURE, threads=2)
    other.close()


def test_there_is_one_kernel_set(program):
    with pytest.raises(Unsupported, match="one kernel set"):
        open_session(program[0], signature=SIGNATURE, kernels="reference")


def test_a_bare_file_describes_itself(program, image):
    session = open_model(program[0], data_files=(), known=(), signature=None, threads=1, kernels="default")
    (taken,) = session.signature.inputs
    assert (taken.shape, taken.dtype) == ((1, 3, 6, 5), "float32")
    np.testing.assert_allclose(next(iter(session.run({taken.name: image}).values())), program[1](image), atol=1e-5)
    session.close()


def test_delegated_and_portable_operators_are_told_apart(program):
    facts = {fact.op.split(" ")[0]: fact for fact in read_facts(program[0])}
    assert facts["Conv2d"].runs_on == "XNNPACK"
    assert (facts["Conv2d"].weight_dtype, facts["Conv2d"].weight_count) == ("float32", 3 * 4 * 9)
    assert facts["aten::cumsum.out"].runs_on == "portable"
    method = read_pte(program[0]).main
    assert method.planned_bytes > 0
    assert [name for name, _ in method.delegates] == ["XnnpackBackend"]


def test_quantized_kernels_are_registered(session):
    from executorch.runtime import Runtime

    names = Runtime.get().operator_registry.operator_names
    assert any("embedding_4bit" in name for name in names)


def test_layer_times_cover_delegated_and_portable_operators(session, image):
    seconds = session.layer_seconds({"image": image}, runs=2)
    assert any("cumsum" in name for name in seconds)
    assert any(name.startswith("Conv2d") for name in seconds)


def test_a_file_that_is_no_program_is_refused(tmp_path):
    (tmp_path / "x.pte").write_bytes(b"\0\0\0\0TFL3" + bytes(64))
    with pytest.raises(BadInput, match="not an ExecuTorch program"):
        read_pte(tmp_path / "x.pte")
    with pytest.raises(BadInput):
        open_session(tmp_path / "x.pte", signature=SIGNATURE)


def test_layer_times_of_a_net_with_large_images_do_not_end_the_process(tmp_path):
    torch = pytest.importorskip("torch")
    exir = pytest.importorskip("executorch.exir")
    shape = (1, 2, 512, 512)  # 2 MB: more than a buffer for intermediate values would hold

    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.cumsum(x, 3) + 1

    edge = exir.to_edge_transform_and_lower(torch.export.export(Net(), (torch.zeros(shape),)))
    path = tmp_path / "large.pte"
    path.write_bytes(edge.to_executorch().buffer)
    signature = Signature(
        name="forward",
        inputs=(TensorInfo(name="image", shape=shape, dtype="float32"),),
        outputs=(TensorInfo(name="y", shape=shape, dtype="float32"),),
    )
    session = open_session(path, signature=signature)
    assert session.layer_seconds({"image": np.ones(shape, np.float32)}, runs=2)
    session.close()
