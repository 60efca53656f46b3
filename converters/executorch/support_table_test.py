"""Entries of support.toml, held against what ExecuTorch really makes of the operators."""

from __future__ import annotations

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.support import entries, lookup
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo
from runtimes.formats.pte import read_facts

pytestmark = pytest.mark.slow

GOT = {"native": "{recipe}", "stored only": "int4 stored, int8 compute"}


def capture(module, shape, folder):
    import torch

    torch.manual_seed(0)
    example = torch.randn(1, *shape)
    torch.export.save(torch.export.export(module.eval(), (example,)), folder / "program.pt2")
    np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((8, *shape)).astype(np.float32))
    with torch.no_grad():
        result = module(example)
    return Captured(
        name="net",
        framework="torch",
        kind="generic",
        folder=folder,
        inputs=(TensorInfo(name="x", shape=(1, *shape), dtype="float32"),),
        outputs=(TensorInfo(name="y", shape=tuple(result.shape), dtype="float32"),),
        program=folder / "program.pt2",
    )


@pytest.fixture(scope="module")
def weights_everywhere(tmp_path_factory):
    import torch
    from torch import nn
    from torch.nn import functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv1d(4, 6, 3, padding=1)
            self.b = nn.ConvTranspose1d(6, 4, 2, 2)
            self.c = nn.Conv2d(4, 4, (1, 3), padding="same")
            self.d = nn.ConvTranspose2d(4, 2, (1, 2), (1, 2))
            self.e = nn.Linear(64, 10)
            self.f = nn.Parameter(torch.randn(10, 8))
            self.g = nn.Parameter(torch.randn(8, 6))
            self.h = nn.Parameter(torch.randn(6))

        def forward(self, x):
            x = functional.relu(self.b(functional.relu(self.a(x))))
            x = self.d(functional.relu(self.c(x.unsqueeze(2))))
            x = functional.relu(torch.mm(functional.relu(self.e(x.flatten(1))), self.f))
            return torch.addmm(self.h, x, self.g)

    return capture(Net(), (4, 8), tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_operators_with_weights_become_what_the_table_says(weights_everywhere, tmp_path, recipe):
    from converters.targets.executorch import lower

    request = LowerRequest(
        captured=weights_everywhere,
        spec=spec_for_recipe(recipe),
        folder=tmp_path,
        calibration=weights_everywhere.folder / "data.npz",
    )
    outcomes = lower(request).outcomes
    assert len(outcomes) == 7
    for outcome in outcomes:
        entry = lookup("executorch", recipe, outcome.op)
        assert entry.operator == outcome.op, "the operator is listed by name"
        assert outcome.got == GOT[entry.status].format(recipe=recipe)


def test_operators_without_weights_compute_on_int8(tmp_path):
    import torch
    from torch import nn
    from torch.nn import functional

    from converters.targets.executorch import lower

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(4, 4, 1)
            self.last = nn.Linear(8, 4)

        def forward(self, x):
            x = functional.relu6(self.stem(x))
            x = functional.max_pool2d(x * x + x, 2)
            x = torch.cat([x, functional.hardtanh(x)], 1).mean((2, 3))
            return self.last(x.reshape(1, 8))

    captured = capture(Net(), (4, 8, 8), tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()
    lowered = lower(
        LowerRequest(captured=captured, spec=spec_for_recipe("int8"), folder=folder, calibration=tmp_path / "data.npz")
    )
    assert lowered.warnings == ()
    facts = [fact for fact in read_facts(folder / "model.pte") if not fact.op.startswith("Convert")]
    assert {fact.activation_dtype for fact in facts} == {"int8"}


def test_a_three_dimensional_convolution_is_refused_by_name(tmp_path):
    from torch import nn

    from converters.targets.executorch import lower

    captured = capture(nn.Sequential(nn.Conv3d(2, 3, 2)), (2, 4, 4, 4), tmp_path)
    for recipe in ("int8", "int4"):
        request = LowerRequest(
            captured=captured, spec=spec_for_recipe(recipe), folder=tmp_path, calibration=tmp_path / "data.npz"
        )
        with pytest.raises(Unsupported, match=r"layer 0 \(aten\.conv3d\)"):
            lower(request)
    assert not (tmp_path / "model.pte").exists()


def test_the_table_has_an_entry_for_every_recipe():
    for recipe in ("float32", "int8", "int4", "int8-dynamic", "int4-dynamic"):
        assert any(entry.recipe == recipe for entry in entries("executorch"))
