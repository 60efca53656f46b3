"""Rewrites keep what a graph computes; ranges and widths follow the request."""

from __future__ import annotations

import numpy as np
import pytest

from converters.executorch.layers import Weighted
from converters.executorch.widths import choose_widths
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe
from edge_deploy.core.tensor import TensorInfo


@pytest.mark.parametrize("name", ["residual", "odd", "mixed"])
def test_rewriting_changes_nothing_that_the_graph_computes(net, snr, name):
    import torch

    from converters.executorch.odd_linear import pad_odd_linears
    from converters.executorch.program import load_graph
    from converters.executorch.rewrites import rewrite

    made = net(name)
    graph = load_graph(made.captured)
    rewrite(graph)
    targets = {str(node.target) for node in graph.graph.nodes}
    assert not targets & {"aten.batch_norm.default", "aten.matmul.default", "aten.adaptive_avg_pool2d.default"}
    widened = pad_odd_linears(graph, {"first", "second", "matmul"})
    assert widened == (3 if name == "odd" else 0)
    with torch.no_grad():
        outputs = np.concatenate([graph(torch.from_numpy(row[None])).numpy() for row in made.samples])
    assert snr(made.reference, outputs) > 100


def test_tables_are_rewritten_with_ids_in_range():
    import torch

    from converters.executorch.embeddings import quantize_embeddings
    from converters.executorch.program import export, name_layers

    class Tables(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.even = torch.nn.Embedding(20, 6)
            self.odd = torch.nn.Embedding(5, 7)
            self.bias = torch.nn.Embedding(20, 1)  # a value for each id, as factorisation machines have

        def forward(self, ids):
            return torch.cat([self.even(ids[:, 0]), self.odd(ids[:, 1]), self.bias(ids[:, 0])], 1)

    module = Tables().eval()
    info = (TensorInfo(name="ids", shape=(1, 2), dtype="int64"),)
    graph = export(module, info, (1,)).module(check_guards=False)
    name_layers(graph)
    assert quantize_embeddings(graph, {"even": 8, "odd": 4, "bias": 8}, "row") == 3
    for ids in ([3, 1], [19, 4]):
        want = module(torch.tensor([ids])).detach().numpy()[0]
        found = graph(torch.tensor([ids])).detach().numpy()[0]
        assert found.shape == want.shape
        steps = [np.abs(want[:6]).max() / 127, np.abs(want[6:13]).max() / 7]
        assert np.abs(want - found)[:6].max() <= steps[0] * 0.51
        assert np.abs(want - found)[6:13].max() <= steps[1] * 0.51
        assert np.abs(want - found)[13] <= np.abs(want[13]) / 127 * 0.51
    outside = graph(torch.tensor([[10**9, -7]])).detach().numpy()
    np.testing.assert_array_equal(outside, graph(torch.tensor([[19, 0]])).detach().numpy())


@pytest.mark.parametrize("shape", [(1, 6), (1, 6, 5), (1, 3, 6)])
def test_prelus_of_rows_and_sequences_are_lowered(shape, tmp_path):
    import torch

    from converters.executorch.lowering import write_program
    from converters.executorch.program import export
    from converters.executorch.rewrites import rewrite

    slopes = shape[1] if shape != (1, 3, 6) else 1
    module = torch.nn.Sequential(torch.nn.Linear(shape[-1], shape[-1]), torch.nn.PReLU(slopes)).eval()
    with torch.no_grad():
        module[1].weight.copy_(torch.linspace(0.1, 1.5, slopes))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    graph = torch.export.export(module, (x,)).module(check_guards=False)
    rewrite(graph)
    assert not any("prelu" in str(node.target) for node in graph.graph.nodes)
    torch.testing.assert_close(graph(x), module(x))
    write_program(export(graph, (TensorInfo(name="x", shape=shape, dtype="float32"),), (1,)), tmp_path)


def test_constants_among_the_activations_are_calibrated(tmp_path, snr):
    import torch

    from converters.contracts import Captured, LowerRequest
    from converters.targets.executorch import lower
    from runtimes.backends.executorch import open_session

    class HardSwish(torch.nn.Module):
        """As MobileNetV3 was written before nn.Hardswish: its constants get observers of their own."""

        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

        def forward(self, x):
            x = self.first(x)
            return self.last(x * torch.nn.functional.relu6(x + 3) / 6)

    torch.manual_seed(0)
    module, info = HardSwish().eval(), TensorInfo(name="x", shape=(1, 8), dtype="float32")
    samples = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    torch.export.save(torch.export.export(module, (torch.zeros(1, 8),)), tmp_path / "program.pt2")
    np.savez(tmp_path / "calibration.npz", x=samples)
    captured = Captured(
        name="hard-swish",
        framework="torch",
        kind="cnn",
        folder=tmp_path,
        inputs=(info,),
        outputs=(TensorInfo(name="y", shape=(1, 4), dtype="float32"),),
        batches=(1,),
        program=tmp_path / "program.pt2",
    )
    spec = spec_for_recipe("int8")
    lowered = lower(
        LowerRequest(captured=captured, spec=spec, folder=tmp_path, calibration=tmp_path / "calibration.npz")
    )
    session = open_session(tmp_path / "model.pte", signature=lowered.signatures[0], threads=1)
    found = np.concatenate([session.run({"x": row[None]})["y"] for row in samples])
    session.close()
    assert snr(module(torch.from_numpy(samples)).detach().numpy(), found) > 25


def layer(name, kind="linear", op="aten.linear", shape=(4, 3), groups=1):
    return Weighted(name=name, op=op, kind=kind, shape=shape, groups=groups)


def test_all_refusals_come_at_once_with_their_remedy():
    volumes = [layer(name, "conv3d", "aten.conv3d", (2, 2, 2, 2, 2)) for name in ("a", "b")]
    with pytest.raises(Unsupported) as caught:
        choose_widths([*volumes, layer("c")], spec_for_recipe("int8"))
    assert [refusal.layer for refusal in caught.value.refusals] == ["a", "b"]
    assert "--fallback" in caught.value.refusals[0].remedy


def test_a_permitted_fallback_is_recorded_with_its_reason():
    volume = layer("a", "conv3d", "aten.conv3d", (2, 2, 2, 2, 2))
    (choice,) = choose_widths([volume], spec_for_recipe("int4", fallback_bits=32))
    assert (choice.asked, choice.width) == (4, "float32")
    assert choice.reason


def test_rules_and_the_width_of_mlps_decide_by_layer():
    layers = [layer("table", "embedding", "aten.embedding"), layer("top"), layer("kept")]
    spec = spec_for_recipe("int4", rules=(LayerRule(pattern="kept", weight_bits=32),))
    choices = choose_widths(layers, spec, is_recommender=True)
    assert [(choice.asked, choice.width) for choice in choices] == [(4, "int4 packed"), (8, "int8"), (32, "float32")]


def test_weights_that_are_no_numbers_are_refused_by_layer(net):
    from converters.executorch.layers import check_finite_weights
    from converters.executorch.program import attribute, load_graph

    graph = load_graph(net("residual").captured)
    check_finite_weights(graph)
    attribute(graph, "project.weight").data[0, 0] = float("nan")
    with pytest.raises(BadInput, match=r"layer project: 1 of 64 values"):
        check_finite_weights(graph)
