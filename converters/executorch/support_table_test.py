"""Entries of support.toml, held against what ExecuTorch really makes of the operators."""

from __future__ import annotations

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.support import RECIPE_KINDS, entries, lookup
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


def test_the_table_has_an_entry_for_every_recipe():
    for recipe in RECIPE_KINDS:
        assert any(entry.recipe == recipe for entry in entries("executorch"))


def test_the_remaining_operators_without_weights_compute_on_int8_and_products_become_linears(tmp_path):
    import torch
    from torch import nn
    from torch.nn import functional

    from converters.targets.executorch import lower

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv1d(4, 4, 3, padding="same")
            self.first, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
            self.matrix = nn.Parameter(torch.randn(4, 5))

        def forward(self, x):
            x = functional.relu(self.stem(x)).unsqueeze(2)
            x = functional.relu(self.norm(self.first(functional.pad(x, (1, 1, 1, 1))))).permute(0, 1, 3, 2)
            x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
            return torch.matmul(x.view(1, 4), self.matrix)

    captured = capture(Net(), (4, 8), tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()
    lowered = lower(
        LowerRequest(captured=captured, spec=spec_for_recipe("int8"), folder=folder, calibration=tmp_path / "data.npz")
    )
    for outcome in lowered.outcomes:
        entry = lookup("executorch", "int8", outcome.op)
        assert entry.operator == outcome.op and outcome.got == "int8", outcome
    assert len(lowered.outcomes) == 3
    facts = [fact for fact in read_facts(folder / "model.pte") if not fact.op.startswith("Convert")]
    unlisted = {fact.op: fact.layer for fact in facts if fact.activation_dtype == "float32"}
    assert list(unlisted.values()) == ["unsqueeze"], "what the table does not list is computed in float32 ..."
    assert lookup("executorch", "int8", "aten.unsqueeze").operator == "*"
    assert any("unsqueeze" in warning for warning in lowered.warnings), "... and said so"


REFUSED = {
    "aten.conv3d": lambda nn: nn.Conv3d(2, 3, 2),
    "aten.lstm.input": lambda nn: nn.LSTM(4, 3, batch_first=True),
    "aten.gru.input": lambda nn: nn.GRU(4, 3, batch_first=True),
    "aten.rnn_tanh.input": lambda nn: nn.RNN(4, 3, batch_first=True),
    "aten.bilinear": lambda nn: nn.Bilinear(4, 4, 3),
    "aten.bmm": lambda nn: None,
}


@pytest.mark.parametrize("operator", REFUSED)
@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_what_the_table_refuses_is_refused_by_name(operator, recipe, tmp_path):
    import torch
    from torch import nn

    from converters.targets.executorch import lower

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = REFUSED[operator](nn)
            self.stored = nn.Parameter(torch.randn(1, 4, 3))

        def forward(self, x):
            if operator == "aten.bmm":
                return torch.bmm(x, self.stored)
            found = self.inner(x, x) if operator == "aten.bilinear" else self.inner(x)
            return found[0] if isinstance(found, tuple) else found

    captured = capture(Net(), (2, 4, 4, 4) if operator == "aten.conv3d" else (3, 4), tmp_path)
    request = LowerRequest(
        captured=captured, spec=spec_for_recipe(recipe), folder=tmp_path, calibration=tmp_path / "data.npz"
    )
    assert lookup("executorch", recipe, operator).status == "refused"
    with pytest.raises(Unsupported) as caught:
        lower(request)
    assert operator in {refusal.op for refusal in caught.value.refusals}
    assert not (tmp_path / "model.pte").exists()


def test_everything_that_the_table_refuses_is_tried_here():
    tried = [entry for entry in entries("executorch") if entry.recipe in ("int8", "int4")]
    refused = {entry.operator for entry in tried if entry.status == "refused"}
    assert refused == set(REFUSED)


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.last = nn.Linear(8 * 16, 10)

        def forward(self, x):
            x = torch.relu(self.deep(torch.relu(self.stem(x))))
            return self.last(x.flatten(1))

    return capture(Net(), (3, 4, 4), tmp_path_factory.mktemp("convolutions"))


@pytest.mark.parametrize("recipe", ["float16", "int8-dynamic", "int8-weight", "int4-weight", "int16x8"])
def test_precisions_without_calibration_are_native_or_refused_by_name_as_the_table_says(convolutions, tmp_path, recipe):
    from converters.targets.executorch import lower

    request = LowerRequest(captured=convolutions, spec=spec_for_recipe(recipe), folder=tmp_path)
    ops = ("aten.conv2d", "aten.linear")
    expected = {op for op in ops if lookup("executorch", recipe, op).status == "refused"}
    if not expected:
        assert {outcome.got for outcome in lower(request).outcomes} == {recipe}
        return
    with pytest.raises(Unsupported) as caught:
        lower(request)
    assert {refusal.op for refusal in caught.value.refusals} == expected
    assert not list(tmp_path.iterdir())


def test_a_float16_program_is_half_as_large_and_computes_the_same(convolutions, tmp_path):
    import torch

    from converters.targets.executorch import lower
    from runtimes.session import open_session

    lowered = lower(LowerRequest(captured=convolutions, spec=spec_for_recipe("float16"), folder=tmp_path))
    assert {outcome.weight_bits for outcome in lowered.outcomes} == {16}
    facts = [fact for fact in read_facts(tmp_path / "model.pte") if fact.weight_count]
    assert {(fact.weight_dtype, fact.activation_dtype, fact.runs_on) for fact in facts} == {
        ("float16", "float16", "XNNPACK")
    }
    samples = np.load(convolutions.folder / "data.npz")["x"]
    plain = torch.export.load(convolutions.program).module()
    want = np.concatenate([plain(torch.from_numpy(row[None])).detach().numpy() for row in samples])
    session = open_session(tmp_path / "model.pte", trusted=True)
    given, made = session.signature.inputs[0], session.signature.outputs[0]
    found = np.concatenate([session.run({given.name: row[None]})[made.name] for row in samples])
    assert 10 * np.log10(np.sum(want**2) / np.sum((want - found) ** 2)) > 50


def test_dynamic_linears_stand_beside_float_convolutions_on_wish(convolutions, tmp_path):
    from converters.targets.executorch import lower

    spec = spec_for_recipe("int8-dynamic", fallback_bits=32)
    outcomes = lower(LowerRequest(captured=convolutions, spec=spec, folder=tmp_path)).outcomes
    assert {outcome.op: outcome.got for outcome in outcomes} == {
        "aten.conv2d": "float32",
        "aten.linear": "int8, dynamic int8 activations",
    }
    assert all(outcome.reason for outcome in outcomes if outcome.got == "float32")
