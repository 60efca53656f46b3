"""A plain `.pte` holds 1x1 convolutions as packed 4-bit linears; what is no such convolution is refused or INT8."""

from __future__ import annotations

import numpy as np
import pytest

from converters.support import lookup
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.quant_spec import LayerRule
from runtimes.formats.pte import read_facts, read_pte

POINTWISE = {"stem", "strided", "narrow", "wide"}


@pytest.fixture(scope="module")
def plain(convert):
    return convert("separable", "int4", plain_pte=True, fallback_bits=8)


def test_rewriting_changes_nothing_that_the_graph_computes(net, snr):
    import torch

    from converters.executorch.pointwise import pointwise_to_linear
    from converters.executorch.program import load_graph
    from converters.executorch.rewrites import rewrite

    made = net("separable")
    graph = load_graph(made.captured)
    rewrite(graph)
    assert pointwise_to_linear(graph, {"depthwise", *POINTWISE}) == len(POINTWISE)
    convolutions = [node for node in graph.graph.nodes if "conv" in str(node.target)]
    assert len(convolutions) == 1
    with torch.no_grad():
        outputs = np.concatenate([graph(torch.from_numpy(row[None])).numpy() for row in made.samples])
    assert snr(made.reference, outputs) > 100


def test_sequences_are_rewritten_and_other_convolutions_are_not():
    import torch
    from torch import nn

    from converters.executorch.pointwise import pointwise_to_linear
    from converters.executorch.program import name_layers

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv1d(4, 6, 1, stride=2, padding="valid")
            self.grouped = nn.Conv1d(6, 6, 1, groups=2)
            self.padded = nn.Conv1d(6, 6, 1, padding=1)

        def forward(self, x):
            return self.padded(self.grouped(torch.relu(self.one(x))))

    module, x = Net().eval(), torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0))
    graph = torch.export.export(module, (x,)).module(check_guards=False)
    name_layers(graph)
    assert pointwise_to_linear(graph, {"one", "grouped", "padded"}) == 1
    torch.testing.assert_close(graph(x), module(x))


def test_one_file_holds_the_1x1_convolutions_in_half_a_byte_a_weight(plain):
    assert {entry.path for entry in plain.lowered.files} == {"model.pte", "quantized.pt2", "passes.npz"}
    assert read_pte(plain.folder / "model.pte").external == ()
    facts = {fact.layer: fact for fact in read_facts(plain.folder / "model.pte") if fact.weight_count}
    for layer in (*POINTWISE, "head"):
        assert plain.outcome(layer).got == "int4"
        assert facts[layer].weight_bytes == facts[layer].weight_count / 2
        assert "XNNPACK" in facts[layer].runs_on or "xnnpack" in facts[layer].runs_on
    assert "linear" in plain.outcome("strided").reason
    assert (plain.outcome("depthwise").asked, plain.outcome("depthwise").got) == ("int4", "int8")


def test_it_computes_what_the_packed_file_beside_computes(plain, convert, snr):
    beside = convert("separable", "int4", fallback_bits=8)
    assert (beside.folder / "model.ptd").exists()
    for threads in (1, 2):
        assert snr(plain.net.reference, plain.outputs(threads)) > snr(plain.net.reference, beside.outputs()) - 3


def test_the_kept_program_computes_what_the_file_computes(plain, snr):
    import torch

    from converters.executorch.program import load_program

    module = load_program(plain.folder / "quantized.pt2").module(check_guards=False)
    with torch.no_grad():
        kept = np.concatenate([module(torch.from_numpy(row[None])).numpy() for row in plain.net.samples])
    assert snr(plain.outputs(), kept) > 35


def test_the_errors_of_its_layers_are_told(plain):
    from converters.contracts import LowerRequest
    from converters.executorch.layer_errors import layer_errors
    from edge_deploy.core.quant_spec import spec_for_recipe

    found = layer_errors(
        LowerRequest(
            captured=plain.net.captured,
            spec=spec_for_recipe("int4", plain_pte=True, fallback_bits=8),
            folder=plain.folder,
            calibration=plain.net.calibration,
        )
    )
    known = {layer.layer: layer for layer in found.layers}
    for layer in POINTWISE:
        assert known[layer].snr_db > 10 and known[layer].weight_snr_db > 10


def test_int8_inputs_and_several_batches_work_too(convert, snr):
    conversion = convert("separable", "int4", (1, 4), plain_pte=True, fallback_bits=8, io="int8")
    for signature in (0, 1):
        assert snr(conversion.net.reference, conversion.outputs(signature=signature)) > 12


def test_what_is_no_1x1_convolution_is_refused_by_name(convert):
    with pytest.raises(Unsupported, match=r"depthwise .*--fallback int8") as caught:
        convert("separable", "int4", plain_pte=True)
    assert [refusal.layer for refusal in caught.value.refusals] == ["depthwise"]
    with pytest.raises(Unsupported) as caught:
        convert("mixed", "int4", plain_pte=True)
    assert {"stem", "branch", "up"} <= {refusal.layer for refusal in caught.value.refusals}


def test_rules_decide_by_layer(convert):
    rules = (LayerRule(pattern="depthwise", weight_bits=8), LayerRule(pattern="wide", weight_bits=8))
    conversion = convert("separable", "int4", plain_pte=True, rules=rules)
    assert {outcome.layer for outcome in conversion.lowered.outcomes if outcome.got == "int8"} == {"depthwise", "wide"}


def test_the_support_table_says_so(plain):
    for outcome in plain.lowered.outcomes:
        entry = lookup("executorch", "int4-plain", outcome.op)
        assert entry.status == "native" and entry.operator == outcome.op
    assert lookup("executorch", "int4-plain", "aten.conv_transpose2d.input").status == "refused"
    assert lookup("executorch", "int4-plain", "aten.lstm.input").status == "refused", "as without --plain-pte"
