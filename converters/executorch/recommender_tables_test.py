"""Stored rows give their source back within half a step, whatever their magnitude."""

import numpy as np
import pytest

from converters.executorch.recommender_tables import check_half_a_step, dequantized, stack_tables
from edge_deploy.core.errors import VerificationFailed


def tables_of(scale, dim=6):
    generator = np.random.default_rng(0)
    first = generator.normal(0, scale, (70, dim)) * generator.lognormal(0, 2, (70, 1))
    first[5] = 0
    return [first.astype(np.float32), generator.normal(0, scale, (30, dim)).astype(np.float32)]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scale", ["row", "table"])
@pytest.mark.parametrize("magnitude", [1e-30, 1e-6, 0.05, 1.0, 1e6])
def test_every_row_is_within_half_a_step(bits, scale, magnitude):
    tables = tables_of(magnitude)
    stacked = stack_tables(tables, bits=bits, scale=scale)
    check_half_a_step(stacked, ["a", "b"], tables)
    values, _ = dequantized(stacked, 0, 0, 70)
    assert (values[5] == 0).all()
    assert stacked.stored.nbytes == 100 * 6 * bits // 8
    assert np.isfinite(values).all()


def test_rows_keep_their_precision_where_magnitudes_differ():
    tables = tables_of(0.05)
    stacked = stack_tables(tables, bits=4, scale="row")
    assert stacked.scales.dtype == np.float16
    values, _ = dequantized(stacked, 0, 0, 70)
    large = np.abs(tables[0]).max(axis=1) > 1e-3
    relative = np.abs(values - tables[0]).max(axis=1)[large] / np.abs(tables[0]).max(axis=1)[large]
    assert relative.max() < 0.08


def test_the_even_element_stands_in_the_upper_half_of_its_byte():
    table = np.array([[-0.75, 0.0, 0.3]], np.float32)
    stacked = stack_tables([table], bits=4, scale="table")
    assert stacked.stored.tolist() == [[(0 << 4) | 8, (11 << 4) | 8]]


def test_a_damaged_row_is_found():
    tables = tables_of(0.05)
    stacked = stack_tables(tables, bits=8, scale="row")
    stacked.stored[70 + 3, 2] ^= 4
    with pytest.raises(VerificationFailed, match="table b: row 3 is off"):
        check_half_a_step(stacked, ["a", "b"], tables)


def test_float_tables_are_stored_as_they_are():
    tables = tables_of(0.05)
    stacked = stack_tables(tables, bits=32, scale="row")
    np.testing.assert_array_equal(stacked.stored, np.concatenate(tables))
    check_half_a_step(stacked, ["a", "b"], tables)
