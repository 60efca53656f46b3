"""Slices with a step, and channels of zeros around them, are convolutions that change no INT8 value."""

from __future__ import annotations

import numpy as np
import pytest


def forms():
    from torch.nn import functional

    return {
        "slice": lambda x: x[:, :, ::2, ::2],
        "one axis": lambda x: x[:, :, :, ::3],
        "option A": lambda x: functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 3)),
    }


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("name", ["slice", "one axis", "option A"])
def test_it_moves_the_same_pixels(name, size):
    import torch

    from converters.executorch.subsample import subsample_by_convolution

    class Net(torch.nn.Module):
        def forward(self, x):
            return forms()[name](x).relu()

    x = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(0))
    graph = torch.export.export(Net().eval(), (x,)).module(check_guards=False)
    assert subsample_by_convolution(graph) == 1
    graph.graph.eliminate_dead_code()
    operators = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert operators == ["aten.conv2d.default", "aten.relu.default"]
    assert torch.equal(graph(x), Net()(x))


def test_other_slices_and_pads_are_left_alone():
    import torch

    from converters.executorch.subsample import subsample_by_convolution

    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.pad(x[:, ::2, 1:5, 1::2], (0, 0, 0, 0, 1, 1)), x[:, :, 0:6:2], x[0, ::2]

    graph = torch.export.export(Net().eval(), (torch.zeros(1, 4, 8, 8),)).module(check_guards=False)
    assert subsample_by_convolution(graph) == 0


def test_a_shortcut_keeps_a_net_in_one_delegate_and_its_int8_values(tmp_path, snr, monkeypatch):
    import torch
    from torch import nn
    from torch.nn import functional

    from converters.executorch import routes
    from converters.executorch.delegable_test import lowered, run
    from runtimes.formats.pte import read_pte

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            x = functional.relu(self.stem(x))
            short = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
            return self.head(functional.relu(self.down(x) + short).mean((2, 3)))

    torch.manual_seed(0)
    module = Net().eval()
    made, samples, path = lowered(module, (3, 8, 8), tmp_path)
    file = read_pte(path)
    assert len(file.main.delegates) == 1 and not file.main.operators and made.warnings == ()
    assert {outcome.layer for outcome in made.outcomes} == {"stem", "down", "head"}
    with torch.no_grad():
        assert snr(module(torch.from_numpy(samples)).numpy(), run(made, samples, path)) > 30
    monkeypatch.setattr(routes, "subsample_by_convolution", lambda graph: 0)
    (tmp_path / "sliced").mkdir()
    sliced, _, other = lowered(module, (3, 8, 8), tmp_path / "sliced")
    assert len(read_pte(other).main.delegates) > 1
    np.testing.assert_array_equal(run(sliced, samples, other), run(made, samples, path))
