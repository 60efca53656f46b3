"""Range equalisation on exported programs: exact in float, also across branches, clips and flattenings."""

from importlib import import_module

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from converters.contracts import Captured, LowerRequest  # noqa: E402
from converters.executorch.layers import layer_name  # noqa: E402
from converters.executorch.program import export, name_layers, tidy  # noqa: E402
from converters.executorch.rewrites import rewrite  # noqa: E402
from converters.passes.equalise_torch import apply_factors, equalise_graph  # noqa: E402
from edge_deploy.core.passes import BIASES, FOLD, ROUNDING  # noqa: E402
from edge_deploy.core.quant_spec import spec_for_recipe  # noqa: E402
from edge_deploy.core.tensor import TensorInfo  # noqa: E402

nn = torch.nn
INPUTS = (TensorInfo(name="image", shape=(1, 3, 8, 8), dtype="float32", layout="NCHW"),)


class Branches(nn.Module):
    """Batch norms, a depthwise layer, a clip, two readers of one tensor, a concatenation, a sum, a flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.inner = nn.Conv2d(8, 8, 1)
        self.pool = nn.MaxPool2d(2)
        self.scores = nn.Linear(8 * 16, 5)
        generator = torch.Generator().manual_seed(0)
        for layer in (self.first, self.depth, self.left, self.right, self.inner):
            sizes = torch.exp(-4 * torch.rand(len(layer.weight), generator=generator))
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * sizes[:, None, None, None]
        self.norm.running_var.data = torch.rand(8, generator=generator) + 0.5
        self.norm.bias.data = torch.randn(8, generator=generator) * 0.1

    def forward(self, image):
        x = torch.relu(self.norm(self.first(image)))
        x = nn.functional.relu6(self.depth(x))
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        x = self.pool(x)
        x = torch.relu(x + self.inner(x))
        return self.scores(x.flatten(1))


@pytest.fixture(scope="module")
def graph():
    made = export(Branches().eval(), INPUTS, (1,)).module(check_guards=False)
    name_layers(made)
    rewrite(made)
    tidy(made)
    return made


def batches(count, seed=0):
    images = np.random.default_rng(seed).normal(size=(count, 1, 3, 8, 8)).astype(np.float32)
    return [(torch.from_numpy(image),) for image in images]


def test_outputs_stay_and_the_changes_can_be_repeated(graph):
    import copy

    before = [graph(*batch) for batch in batches(32)]
    other = copy.deepcopy(graph)
    bits = {layer_name(node): 8 for node in graph.graph.nodes if node.op == "call_function"}
    factors, changed = equalise_graph(graph, batches(32), bits)
    assert factors.groups >= 3 and changed
    assert factors.ratio[1] < factors.ratio[0] / 2
    for batch, want in zip(batches(32), before, strict=True):
        torch.testing.assert_close(graph(*batch), want, rtol=1e-3, atol=1e-3)
    apply_factors(other, changed)
    torch.testing.assert_close(other(*batches(1)[0]), graph(*batches(1)[0]))


def test_a_program_of_the_changed_graph_computes_the_same(graph):
    program = export(graph, INPUTS, (1,))
    (batch,) = batches(1, seed=5)
    torch.testing.assert_close(program.module(check_guards=False)(*batch), graph(*batch))


def test_trials_of_one_program_do_not_touch_each_other(tmp_path):
    target = import_module("converters.targets.executorch")
    torch.export.save(export(Branches().eval(), INPUTS, (1,)), tmp_path / "net.pt2")
    images = np.concatenate([batch[0].numpy() for batch in batches(24)])
    np.savez(tmp_path / "calibration.npz", image=images)
    np.savez(tmp_path / "held.npz", image=images[:8])
    scores = TensorInfo(name="scores", shape=(1, 5), dtype="float32")
    captured = Captured(
        name="net", framework="torch", kind="cnn", folder=tmp_path, inputs=INPUTS, outputs=(scores,),
        program=tmp_path / "net.pt2",
    )  # fmt: skip

    def tried(*passes):
        spec = spec_for_recipe("int4", passes=passes)
        asked = LowerRequest(captured=captured, spec=spec, folder=tmp_path, calibration=tmp_path / "calibration.npz")
        want, got, _ = target.try_out(asked, tmp_path / "held.npz")
        return want["scores"], got["scores"]

    want, plain = tried(FOLD)
    _, searched = tried(FOLD, ROUNDING, BIASES)
    again, repeated = tried(FOLD)
    np.testing.assert_array_equal(plain, repeated)
    np.testing.assert_array_equal(want, again)
    assert np.square(searched - want).sum() < np.square(plain - want).sum()
