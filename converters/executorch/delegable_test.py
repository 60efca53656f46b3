"""Operators that would leave the delegate are spelled out in ones that stay inside, and compute the same."""

from __future__ import annotations

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.support import entries, lookup
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo
from runtimes.formats.pte import read_pte


def functions():
    import torch
    from torch.nn import functional

    return {
        "hard sigmoid": ((4, 6), lambda x: functional.hardsigmoid(x * 3)),
        "division": ((4, 6), lambda x: x / 3 + x / 0.7),
        "split": ((6, 5), lambda x: torch.cat([x.split([1, 2, 3], 1)[2], x.chunk(2, 1)[0], x.split(4, 1)[-1]], 1)),
        "pooled sequence": ((3, 9), lambda x: functional.max_pool1d(x, 3, 2, padding=1)),
        "whole strides": ((3, 9), lambda x: functional.max_pool1d(x, 2)),
        "mean of a sequence": ((3, 9), lambda x: torch.cat([x.mean(-1), x.mean(2, keepdim=True).flatten(1)], 1)),
        "mean of a channels-last sequence": ((9, 3), lambda x: x.mean(1)),
        "adaptive mean": ((3, 9), lambda x: functional.adaptive_avg_pool1d(x, 1)),
        "maximum of an image": ((3, 4, 5), lambda x: torch.cat([x.amax((2, 3)), x.amax((-1, -2), True).flatten(1)], 1)),
        "maximum of a channels-last image": ((4, 5, 3), lambda x: x.amax((1, 2))),
        "maximum of a sequence": ((9, 3), lambda x: x.amax(1)),
    }  # fmt: skip


NAMES = (
    *("hard sigmoid", "division", "split", "pooled sequence", "whole strides", "mean of a sequence"),
    *("mean of a channels-last sequence", "adaptive mean", "maximum of an image"),
    *("maximum of a channels-last image", "maximum of a sequence"),
)
SPELLED = tuple(
    entry for entry in entries("executorch") if entry.recipe == "int8" and entry.reason.startswith("division")
)
GONE = ("hardsigmoid", "div", "split", "chunk", "getitem", "pool1d", "amax")


def module_of(function):
    import torch

    class Net(torch.nn.Module):
        def forward(self, x):
            return function(x)

    return Net().eval()


def example(shape, batch):
    import torch

    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_it_computes_the_same(name, batch):
    import torch

    from converters.executorch.delegable import spell_out

    shape, function = functions()[name]
    module, x = module_of(function), example(shape, 3)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=8)},) if batch > 1 else None
    graph = torch.export.export(module, (x[:batch],), dynamic_shapes=dynamic).module(check_guards=False)
    assert spell_out(graph) >= 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    assert not [node for node in graph.graph.nodes if any(word in str(node.target) for word in GONE)]
    torch.testing.assert_close(graph(x[:batch]), module(x[:batch]))


def test_what_cannot_be_said_otherwise_is_left_alone():
    import torch

    from converters.executorch.delegable import spell_out

    def function(x):
        return (x / x.abs()).mean((1, 2)) + x.amax((0, 3)).sum() + (x.long() // 2).sum()

    x = example((2, 3, 4), 2)
    graph = torch.export.export(module_of(function), (x,)).module(check_guards=False)
    before = [str(node.target) for node in graph.graph.nodes]
    assert spell_out(graph) == 0
    assert [str(node.target) for node in graph.graph.nodes] == before


def lowered(module, shape, folder, recipe="int8"):
    """The lowering, and the file of a net of float inputs [1, *shape]."""
    import torch

    from converters.targets.executorch import lower

    samples = np.random.default_rng(0).standard_normal((16, *shape)).astype(np.float32)
    torch.export.save(torch.export.export(module, (torch.zeros(1, *shape),)), folder / "program.pt2")
    np.savez(folder / "data.npz", x=samples)
    with torch.no_grad():
        result = module(torch.zeros(1, *shape))
    captured = Captured(
        name="net",
        framework="torch",
        kind="cnn",
        folder=folder,
        inputs=(TensorInfo(name="x", shape=(1, *shape), dtype="float32"),),
        outputs=(TensorInfo(name="y", shape=tuple(result.shape), dtype="float32"),),
        program=folder / "program.pt2",
    )
    out = folder / "out"
    out.mkdir()
    made = lower(
        LowerRequest(captured=captured, spec=spec_for_recipe(recipe), folder=out, calibration=folder / "data.npz")
    )
    return made, samples, out / "model.pte"


def run(made, samples, path):
    from runtimes.backends.executorch import open_session

    session = open_session(path, signature=made.signatures[0], threads=1)
    outputs = np.concatenate([session.run({"x": row[None]})["y"] for row in samples])
    session.close()
    return outputs


@pytest.mark.parametrize("recipe", ["int8", "float32"])
def test_a_sequence_net_and_gates_and_differences_stay_in_one_delegate(recipe, tmp_path, snr):
    import torch
    from torch import nn
    from torch.nn import functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.left, self.right = (
                nn.Conv1d(4, 8, 3, padding=1),
                nn.Conv1d(4, 4, 3, padding=1),
                nn.Conv1d(4, 4, 1),
            )
            self.gate, self.head = nn.Linear(8, 8), nn.Linear(8, 5)

        def forward(self, x):
            left, right = functional.max_pool1d(functional.relu(self.stem(x)), 2).chunk(2, 1)
            x = torch.cat([self.left(left) - self.right(right), right / 3], 1)
            x = x * functional.hardsigmoid(self.gate(functional.adaptive_avg_pool1d(x, 1).flatten(1))).unsqueeze(-1)
            (_, two), (three, *_) = x.split([3, 5], 1), x.split(3, 1)
            return self.head(torch.cat([three.amax(-1), two.amax(-1)], 1))

    torch.manual_seed(0)
    module = Net().eval()
    made, samples, path = lowered(module, (4, 16), tmp_path, recipe)
    with torch.no_grad():
        reference = module(torch.from_numpy(samples)).numpy()
    assert snr(reference, run(made, samples, path)) > (100 if recipe == "float32" else 28)
    assert made.warnings == ()
    assert len(read_pte(path).main.delegates) == 1 and not read_pte(path).main.operators


def test_the_support_table_calls_them_native():
    from converters.executorch.delegable import _RULES

    operators = {name.removesuffix(".default") for name in _RULES}
    assert operators == {entry.operator for entry in SPELLED} | {"aten.mean.dim", "aten.div.Scalar"}
    assert {entry.status for entry in SPELLED} == {"native"}
    assert lookup("executorch", "int8", "aten.sub.Tensor").operator == "aten.sub.Tensor"


def test_a_layer_with_weights_that_stays_in_float_is_told(tmp_path):
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 2, 1)).eval()
    made, _, _ = lowered(net, (3, 6, 6), tmp_path)
    assert made.warnings == ("computed in float32: 1",)
