"""What is claimed of a file is held against its bytes, and its outputs against the float model's."""

from dataclasses import replace

import numpy as np
import pytest

from converters.verify import check_float, check_outcomes, compare_arrays
from edge_deploy.core.artifact import LayerFacts, LayerOutcome
from edge_deploy.core.errors import VerificationFailed

CONV = LayerFacts(layer="stem", op="CONV_2D", weight_dtype="int4", weight_bits=4.0, weight_count=64, weight_bytes=32)
TABLES = LayerFacts(
    layer="tables", op="EMBEDDING_LOOKUP", weight_dtype="int4", weight_bits=4.0, weight_count=640, weight_bytes=320
)
ADD = LayerFacts(layer="add", op="ADD")


def claim(layer: str, got: str, bits: float, size: int) -> LayerOutcome:
    return LayerOutcome(layer=layer, op="op", asked="int4", got=got, weight_bits=bits, weight_bytes=size)


TRUE = (
    claim("stem", "int4 per-channel", 4.0, 32),
    claim("tables.0", "int4, one scale a row", 4.0, 200),
    claim("tables.1", "int4, one scale a row", 4.0, 120),
)


def test_true_claims_pass_also_of_tables_that_are_stored_as_one():
    check_outcomes(TRUE, (CONV, TABLES, ADD))


def test_a_layer_that_a_recipe_left_in_float_is_found_in_the_bytes():
    left = replace(CONV, weight_dtype="float32", weight_bits=32.0, weight_bytes=256)
    with pytest.raises(VerificationFailed, match=r"layer stem .*claimed 4 bits a weight, the file has 32"):
        check_outcomes(TRUE, (left, TABLES, ADD))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_tables_stored_wider_than_claimed_are_all_named(dtype):
    with pytest.raises(VerificationFailed) as caught:
        check_outcomes(TRUE, (CONV, replace(TABLES, weight_dtype=dtype, weight_bytes=5120), ADD))
    assert [problem.split(" (")[0] for problem in caught.value.problems] == ["layer tables.0", "layer tables.1"]


def test_a_layer_that_the_file_does_not_have_is_named():
    with pytest.raises(VerificationFailed, match=r"layer stem .*no such layer"):
        check_outcomes(TRUE[:1], (ADD,))


def test_outputs_are_compared_as_numbers_and_as_answers():
    want = {"scores": np.float32([[1, 2, 3], [3, 2, 1]])}
    same = compare_arrays(want, want, kernels="k", threads=1)
    assert (same.snr_db, same.cosine, same.max_error, same.top1_agreement) == (999.0, pytest.approx(1), 0.0, 1.0)
    other = compare_arrays(want, {"scores": np.float32([[1, 2, 3], [1, 2, 2]])}, kernels="k", threads=1)
    assert other.top1_agreement == 0.5 and other.max_error == 2
    assert other.snr_db == pytest.approx(10 * np.log10(28 / 5))


def test_outputs_that_are_not_finite_are_told():
    want = {"scores": np.float32([[1, 2]])}
    found = compare_arrays(want, {"scores": np.float32([[1, np.nan]])}, kernels="k", threads=2)
    assert not found.finite and found.snr_db < 0


def test_a_float_file_that_differs_by_more_than_rounding_is_refused():
    want = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    same = compare_arrays({"y": want}, {"y": want * np.float32(1 + 1e-6)}, kernels="k", threads=1)
    check_float([same])
    other = compare_arrays({"y": want}, {"y": want * np.float32(1.2)}, kernels="k", threads=2, signature="s")
    with pytest.raises(VerificationFailed, match=r"k, 2 threads, signature s: SNR 14\.0 dB"):
        check_float([same, other])


def test_a_move_that_bears_a_layers_name_does_not_hide_the_layers_weights():
    layer = LayerFacts(layer="conv", op="Conv2d", weight_dtype="int8", weight_bits=8, weight_count=9, weight_bytes=9)
    move = LayerFacts(layer="conv", op="StaticTranspose")
    claimed = LayerOutcome(layer="conv", op="conv2d", asked="int8", got="int8", weight_bits=8, weight_bytes=9)
    check_outcomes((claimed,), (layer, move))
    with pytest.raises(VerificationFailed, match="the file has 4"):
        check_outcomes((claimed,), (replace(layer, weight_bits=4), move))
