from pathlib import Path

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from runtimes.formats.by_hand_test import OPS, TYPES, ByHand, dense, look_up, offset_buffers, schema, small_cnn
from runtimes.formats.tflite import lint, read_facts, read_graph, read_signatures


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.tflite"


def test_a_blockwise_int4_table_takes_half_a_byte_a_weight(path: Path) -> None:
    facts = read_facts(look_up(rows=100, columns=16).write(path))
    assert [(f.layer, f.op, f.weight_dtype, f.granularity, f.runs_on) for f in facts] == [
        ("embedding", "EMBEDDING_LOOKUP", "int4", "blockwise", "builtin")
    ]
    assert (facts[0].weight_bits, facts[0].weight_count, facts[0].weight_bytes) == (4.0, 1600, 800)
    assert facts[0].activation_dtype == "float32"


def test_facts_tell_weights_by_their_bytes_and_kernels_by_their_types(path: Path) -> None:
    facts = {fact.layer: fact for fact in read_facts(small_cnn(bits=4).write(path))}
    assert list(facts) == ["conv", "depthwise", "mean", "logits", "probabilities"]
    assert [facts["conv"].weight_dtype, facts["conv"].weight_bits, facts["conv"].runs_on] == ["int4", 4.0, "builtin"]
    assert [facts["depthwise"].weight_bits, facts["depthwise"].granularity] == [8.0, "per-channel"]
    assert facts["depthwise"].runs_on == "XNNPACK"
    assert (facts["mean"].weight_dtype, facts["mean"].weight_bytes) == (None, 0)


def test_the_graph_counts_multiply_accumulates_and_weight_bytes(path: Path) -> None:
    graph = read_graph(small_cnn(filters=4, channels=3, size=6).write(path))
    macs = {layer.name: layer.macs for layer in graph.layers}
    assert macs["conv"] == 6 * 6 * 4 * 3 * 3 * 3
    assert macs["depthwise"] == 6 * 6 * 4 * 3 * 3
    assert macs["logits"] == 4 * 5
    assert graph.layers[0].weight_bytes == 4 * 27 + 4 * 4
    assert graph.layers[1].inputs == ("conv",)
    assert graph.outputs == ("probabilities",)


def test_scales_of_a_blockwise_table_count_as_its_bytes(path: Path) -> None:
    assert read_graph(look_up(rows=100).write(path)).weight_bytes == 800 + 200


def test_several_signatures_share_weights_and_are_told_once(path: Path) -> None:
    dense((1, 8)).write(path)
    assert [signature.name for signature in read_signatures(path)] == ["batch_1", "batch_8"]
    assert [info.name for info in read_signatures(path)[0].inputs] == ["b", "a"]
    assert len([fact for fact in read_facts(path) if fact.weight_bytes]) == 1
    assert read_graph(path, signature="batch_8").macs == 8 * read_graph(path).macs


def test_a_file_without_signature_is_called_by_its_tensor_names(path: Path) -> None:
    hand = dense()
    hand.model.signatureDefs = []
    (signature,) = read_signatures(hand.write(path))
    assert (signature.name, [info.name for info in signature.inputs]) == ("main", ["b_in", "a_in"])
    assert [info.name for info in signature.outputs] == ["out"]


def test_offset_buffers_read_as_inline_ones_do(path: Path) -> None:
    inline = read_facts(small_cnn().write(path))
    path.write_bytes(offset_buffers(small_cnn().bytes()))
    assert read_facts(path) == inline
    assert lint(path) == ()


def test_float16_weights_are_found_behind_their_dequantize(path: Path) -> None:
    hand = ByHand()
    stored = hand.tensor("kernel16", [3, 4], TYPES.FLOAT16, data=np.ones((3, 4), np.float16))
    kernel, x, y = hand.tensor("kernel", [3, 4]), hand.tensor("x", [1, 4]), hand.tensor("y", [1, 3])
    hand.operator(OPS.DEQUANTIZE, [stored], [kernel], schema.DequantizeOptionsT())
    hand.operator(OPS.FULLY_CONNECTED, [x, kernel, -1], [y], schema.FullyConnectedOptionsT())
    hand.signature("serving_default", {"x": x}, {"y": y})
    fact = read_facts(hand.write(path))[1]
    assert (fact.layer, fact.weight_dtype, fact.weight_bits, fact.weight_bytes) == ("y", "float16", 16.0, 24)


def test_a_custom_operator_is_told_by_its_name(path: Path) -> None:
    hand = dense()
    code = hand.model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = OPS.CUSTOM
    code.customCode = b"Mine"
    hand.graph.operators[0].builtinOptions, hand.graph.operators[0].builtinOptionsType = None, 0
    fact = read_facts(hand.write(path))[0]
    assert (fact.op, fact.runs_on) == ("CUSTOM Mine", "custom")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x1c\0\0\0TFL3", b"\x1c\0\0\0TFL3" + bytes(60), b"PK\x03\x04" * 9])
def test_what_is_no_tflite_file_is_refused_by_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.tflite"):
        if lint(path):
            raise BadInput(f"{path}: {lint(path)}")


def test_every_development_file_is_sound_and_its_graph_can_be_read(data: Path) -> None:
    files = sorted((data / "models").rglob("*.tflite"))
    assert files
    for file in files:
        assert lint(file) == (), file
        assert read_graph(file).macs > 0
        assert any(fact.weight_bits in (8.0, 32.0) for fact in read_facts(file))
