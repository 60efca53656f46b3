"""The support table of the C target against what its generator knows and refuses."""

import numpy as np
import pytest

from converters.c.from_tflite import lower_integer_file
from converters.c.program import BUILDERS
from converters.support import entries, lookup
from edge_deploy.core.errors import BadInput, Unsupported
from runtimes.formats.by_hand_test import OPS, TYPES, ByHand, schema


def net(*, dtype=TYPES.INT8, shape=(1, 4), dynamic=None):
    hand = ByHand()
    quantized = {} if dtype == TYPES.FLOAT32 else {"scale": 0.1, "zero_point": 0}
    x = hand.tensor("x", list(shape), dtype, dynamic=dynamic, **quantized)
    y = hand.tensor("the sine", list(shape), dtype, **quantized)
    z = hand.tensor("the cumulative sum", list(shape), dtype, **quantized)
    hand.operator(OPS.SIN, [x], [y])
    hand.operator(OPS.CUMSUM, [y, hand.tensor("axis", [], TYPES.INT32, data=np.int32(1))], [z], schema.CumsumOptionsT())
    hand.signature("main", {"x": x}, {"z": z})
    return hand


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_the_table_lists_what_the_generator_writes(recipe):
    listed = {entry.operator for entry in entries("c") if entry.recipe == recipe and entry.status == "native"}
    assert listed == set(BUILDERS)
    assert lookup("c", recipe, "CUMSUM").status == "refused"
    assert lookup("c", "float32", "CONV_2D").status == "refused"


def test_all_refused_operators_are_named_with_their_layers_and_nothing_is_written(tmp_path):
    path = net().write(tmp_path / "net.tflite")
    (tmp_path / "c").mkdir()
    with pytest.raises(Unsupported) as caught:
        lower_integer_file(path, tmp_path / "c", name="net")
    assert {(refusal.layer, refusal.op) for refusal in caught.value.refusals} == {
        ("the sine", "SIN"),
        ("the cumulative sum", "CUMSUM"),
    }
    assert not list((tmp_path / "c").iterdir())


def test_layers_in_float_are_named_with_what_to_do(tmp_path):
    path = net(dtype=TYPES.FLOAT32).write(tmp_path / "net.tflite")
    with pytest.raises(Unsupported, match=r"the sine \(SIN\): computes in float; .*--calibrate"):
        lower_integer_file(path, tmp_path, name="net")


def test_sizes_that_a_call_decides_are_refused(tmp_path):
    path = net(shape=(1, 4), dynamic=[1, -1]).write(tmp_path / "net.tflite")
    with pytest.raises(BadInput, match="fixed sizes"):
        lower_integer_file(path, tmp_path, name="net")


@pytest.mark.parametrize("cut", [0.2, 0.7, 0.95])
def test_a_damaged_file_is_refused(tmp_path, cut):
    data = net().bytes()
    (tmp_path / "net.tflite").write_bytes(data[: int(len(data) * cut)])
    with pytest.raises((BadInput, Unsupported)):
        lower_integer_file(tmp_path / "net.tflite", tmp_path, name="net")
