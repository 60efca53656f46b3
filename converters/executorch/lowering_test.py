"""Whole conversions of small nets: what the files hold, what they compute, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe
from runtimes.formats.pte import read_facts, read_pte

pytestmark = pytest.mark.slow


def weighted(conversion):
    return {fact.layer: fact for fact in read_facts(conversion.folder / "model.pte") if fact.weight_count}


@pytest.mark.parametrize(
    ("name", "recipe", "least_db"),
    [
        ("residual", "float32", 100),
        ("residual", "int8", 30),
        ("residual", "int4", 10),
        ("mixed", "int8", 25),
        ("odd", "int8", 35),
        ("odd", "int4", 20),
    ],
)
def test_one_and_two_threads_compute_what_the_float_model_computes(convert, snr, name, recipe, least_db):
    conversion = convert(name, recipe)
    for threads in (1, 2):
        assert snr(conversion.net.reference, conversion.outputs(threads)) > least_db


def test_every_layer_of_an_int8_file_is_int8_in_one_delegate(convert):
    conversion = convert("residual", "int8")
    assert {fact.weight_dtype for fact in weighted(conversion).values()} == {"int8"}
    assert [outcome.got for outcome in conversion.lowered.outcomes] == ["int8"] * 4
    file = read_pte(conversion.folder / "model.pte")
    assert len(file.main.delegates) == 1
    assert file.main.operators == {}
    assert conversion.lowered.warnings == ()


def test_layer_names_are_module_paths_and_the_same_at_every_precision(convert):
    names = {recipe: list(weighted(convert("residual", recipe))) for recipe in ("float32", "int8", "int4")}
    assert names["float32"] == names["int8"] == names["int4"] == ["stem", "depthwise", "project", "head"]


def test_four_bit_convolutions_take_half_a_byte_beside_the_program(convert):
    conversion = convert("residual", "int4")
    facts = weighted(conversion)
    assert facts["stem"].weight_bytes == 3 * 8 * 9 / 2
    assert facts["stem"].weight_bits == 4
    assert conversion.outcome("stem").got == "int4 stored, int8 compute"
    assert conversion.outcome("head").got == "int4"
    assert facts["head"].weight_bytes == 8 * 5 / 2
    roles = {entry.path: entry.role for entry in conversion.lowered.files}
    kept = {"quantized.pt2": "quantized-program", "passes.npz": "other"}
    assert roles == {"model.pte": "model", "model.ptd": "data", **kept}
    for entry in conversion.lowered.files:
        assert file_sha256(conversion.folder / entry.path) == entry.sha256


def test_the_packed_weights_are_those_of_the_quantized_program(convert):
    from converters.executorch.program import load_program
    from runtimes.formats.nibble_ptd import inflate
    from runtimes.formats.ptd_file import named_weights

    conversion = convert("residual", "int4")
    packed = (conversion.folder / "model.ptd").read_bytes()
    plain, entries = inflate(packed, where="model.ptd"), named_weights(packed, where="model.ptd")
    keys = {operator.layer: operator.weight_key for operator in read_pte(conversion.folder / "model.pte").operators}
    entry = entries[keys["project"]]
    found = np.frombuffer(plain, np.int8, entry.size, entry.start).reshape(8, 1, 1, 8).transpose(0, 3, 1, 2)
    program = load_program(conversion.folder / "quantized.pt2")
    constants = {**dict(program.named_parameters()), **dict(program.named_buffers())}
    assert any(np.array_equal(value.numpy(), found) for value in constants.values() if value.shape == found.shape)


def test_odd_inputs_of_four_bit_linears_become_even(convert):
    conversion = convert("odd", "int4")
    facts = weighted(conversion)
    assert facts["first"].weight_count == 14 * 8  # a column for its input, a row for the next layer's
    assert facts["second"].weight_count == 8 * 34
    assert {fact.weight_bits for fact in facts.values()} == {4.0}


def test_a_product_and_an_addition_are_quantized_like_a_linear(convert):
    facts = weighted(convert("odd", "int8"))
    assert len(facts) == 3
    assert {fact.weight_dtype for fact in facts.values()} == {"int8"}


def test_a_pad_before_a_convolution_stays_int8_and_one_before_a_pool_loads(convert):
    facts = read_facts(convert("mixed", "int8").folder / "model.pte")
    pads = [fact.activation_dtype for fact in facts if fact.op.startswith("StaticConstantPad")]
    assert "int8" in pads
    assert len(pads) == 2


def test_a_norm_that_stands_alone_becomes_a_quantized_layer(convert):
    assert convert("mixed", "int8").outcome("norm").got == "int8"


def test_int8_inputs_and_outputs_carry_scales(convert, snr):
    for name in ("residual", "mixed"):
        conversion = convert(name, "int8", io="int8")
        signature = conversion.lowered.signatures[0]
        assert signature.inputs[0].dtype == signature.outputs[0].dtype == "int8"
        assert len(signature.inputs[0].scale) == 1
        method = read_pte(conversion.folder / "model.pte").main
        assert method.inputs[0].dtype == method.outputs[0].dtype == "int8"
        assert snr(conversion.net.reference, conversion.outputs()) > 20


def test_a_dynamic_batch_whose_size_the_net_asks_for_takes_int8_inputs(convert, snr):
    conversion = convert("residual", "int8", (1, 4), io="int8")
    assert snr(conversion.net.reference, conversion.outputs(signature=1)) > 20


def test_several_batches_share_one_program(convert, snr):
    conversion = convert("residual", "int8", (1, 4))
    assert [signature.name for signature in conversion.lowered.signatures] == ["batch_1", "batch_4"]
    for index, signature in enumerate(conversion.lowered.signatures):
        assert signature.inputs[0].shape[0] == (1, 4)[index]
        assert snr(conversion.net.reference, conversion.outputs(signature=index)) > 30


@pytest.mark.parametrize("ranges", [{"range_method": "percentile", "percentile": 99.0}, {"range_method": "mse"}])
def test_clipped_ranges_are_narrower_and_still_right(convert, snr, ranges):
    narrow, wide = convert("odd", "int8", **ranges), convert("odd", "int8")
    assert snr(wide.net.reference, narrow.outputs()) > 15
    assert file_sha256(narrow.folder / "model.pte") != file_sha256(wide.folder / "model.pte")


def test_a_rule_keeps_a_layer_in_float_and_only_that_one(convert, snr):
    conversion = convert("residual", "int8", rules=(LayerRule(pattern="depth*", weight_bits=32),))
    assert {outcome.layer: outcome.got for outcome in conversion.lowered.outcomes} == {
        "stem": "int8",
        "depthwise": "float32",
        "project": "int8",
        "head": "int8",
    }
    assert snr(conversion.net.reference, conversion.outputs()) > 30


def test_what_cannot_be_quantized_is_refused_by_name_or_recorded(convert, snr):
    with pytest.raises(Unsupported, match=r"layer up .*grouped transposed"):
        convert("grouped-up", "int8")
    conversion = convert("grouped-up", "int8", fallback_bits=32)
    assert conversion.outcome("up").got == "float32"
    assert "grouped" in conversion.outcome("up").reason
    assert conversion.outcome("stem").got == "int8"
    assert snr(conversion.net.reference, conversion.outputs()) > 25


def test_the_kept_program_reloads_and_computes_what_the_file_computes(convert, snr):
    import torch

    from converters.executorch.program import load_program

    conversion = convert("residual", "int8")
    module = load_program(conversion.folder / "quantized.pt2").module(check_guards=False)
    with torch.no_grad():
        kept = np.concatenate([module(torch.from_numpy(row[None])).numpy() for row in conversion.net.samples])
    assert snr(conversion.outputs(), kept) > 35


def test_the_kept_program_holds_no_path_of_this_machine(convert):
    import zipfile

    with zipfile.ZipFile(convert("residual", "int8").folder / "quantized.pt2") as archive:
        texts = b"".join(archive.read(name) for name in archive.namelist())
    assert b"conftest.py" not in texts


def test_the_graph_counts_multiply_accumulates(convert):
    graph = convert("residual", "int8").lowered.graph
    macs = {layer.name: layer.macs for layer in graph.layers if layer.macs}
    assert macs == {"stem": 144 * 8 * 27, "depthwise": 144 * 8 * 9, "project": 144 * 64, "head": 40}
    assert graph.outputs == ("y",)


def test_quantizing_without_calibration_data_is_refused(net, tmp_path):
    from converters.contracts import LowerRequest
    from converters.targets.executorch import lower

    request = LowerRequest(captured=net("odd").captured, spec=spec_for_recipe("int8"), folder=tmp_path)
    with pytest.raises(BadInput, match="needs calibration data"):
        lower(request)
    assert not list(tmp_path.iterdir())


def test_layers_are_timed_by_name(convert):
    from runtimes.backends.executorch import open_session

    conversion = convert("residual", "int4")
    session = open_session(
        conversion.folder / "model.pte", signature=conversion.lowered.signatures[0], data=conversion.data
    )
    seconds = session.layer_seconds({"x": conversion.net.samples[:1]}, runs=3)
    session.close()
    assert {"stem", "depthwise", "project", "head"} <= set(seconds)
    assert all(value >= 0 for value in seconds.values())


def test_a_program_without_its_packed_weights_does_not_load(convert):
    from runtimes.backends.executorch import open_session

    conversion = convert("residual", "int4")
    with pytest.raises(BadInput, match="ptd"):
        open_session(conversion.folder / "model.pte", signature=conversion.lowered.signatures[0])


def test_mutated_files_are_read_or_refused_and_never_more(convert):
    import random

    conversion = convert("residual", "int8")
    data = (conversion.folder / "model.pte").read_bytes()
    path = conversion.folder / "mutated.pte"
    generator = random.Random(0)
    refused = 0
    for _ in range(400):
        mutated = bytearray(data)
        for _ in range(generator.randint(1, 8)):
            mutated[generator.randrange(len(mutated))] = generator.randrange(256)
        if generator.random() < 0.3:
            del mutated[generator.randrange(len(mutated)) :]
        path.write_bytes(mutated)
        try:
            read_facts(path)
        except BadInput:
            refused += 1
    assert refused > 40
