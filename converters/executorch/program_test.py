"""Constants reach the runtime row by row, whatever strides the model's own have."""

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.executorch.program import attribute, tidy
from converters.targets import executorch
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

torch = pytest.importorskip("torch")
pytest.importorskip("executorch")


class Scaled(torch.nn.Module):
    """What a 1-D net of Keras becomes: height 1, and a batch norm whose constants are permuted vectors."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, (1, 3))
        self.register_buffer("scale", (torch.rand(1, 1, 1, 8) + 0.5).permute(0, 3, 1, 2))
        self.register_buffer("shift", torch.rand(1, 1, 1, 8).permute(0, 3, 1, 2))
        self.register_buffer("unread", torch.rand(4))

    def forward(self, x):
        return torch.nn.functional.max_pool2d(torch.relu(self.conv(x)) * self.scale + self.shift, (1, 2))


def exported():
    torch.manual_seed(0)
    module = Scaled().eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 1, 20)
    return module, x, torch.export.export(module, (x,))


def test_constants_that_are_read_lie_row_by_row_and_the_others_are_gone():
    _, _, program = exported()
    graph = program.module(check_guards=False)
    tidy(graph)
    paths = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    assert paths == {name for name, _ in (*graph.named_parameters(), *graph.named_buffers())}
    for path in paths:
        value = attribute(graph, path)
        assert value.stride() == torch.empty(value.shape).stride(), path


def test_a_net_with_permuted_constants_loads_and_computes_the_same(tmp_path):
    from runtimes.session import open_session

    module, x, program = exported()
    torch.export.save(program, tmp_path / "net.pt2")
    captured = Captured(
        name="net",
        framework="torch",
        kind="cnn",
        folder=tmp_path,
        inputs=(TensorInfo(name="x", shape=(1, 3, 1, 20), dtype="float32", layout="NCHW"),),
        outputs=(TensorInfo(name="y", shape=(1, 8, 1, 9), dtype="float32", layout="NCHW"),),
        batches=(1,),
        program=tmp_path / "net.pt2",
    )
    (tmp_path / "made").mkdir()
    executorch.lower(LowerRequest(captured=captured, spec=spec_for_recipe("float32"), folder=tmp_path / "made"))
    session = open_session(tmp_path / "made" / "model.pte", trusted=True)
    (got,) = session.run({session.signature.inputs[0].name: x.numpy()}).values()
    with torch.no_grad():
        np.testing.assert_allclose(got, module(x).numpy(), atol=1e-5)
