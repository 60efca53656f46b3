"""Places in a shared array: the published formula, blocks that stay together, numbers that never overflow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from edge_deploy.core.errors import BadInput
from edge_deploy.core.robe import MOST_IDS, PRIME, RobeHash, RobeTable, make_hash


@given(
    size=some.integers(8, MOST_IDS - 1),
    block=some.integers(1, 8),
    dim=some.sampled_from([8, 9, 16, 64]),
    seed=some.integers(0, 1000),
    row=some.integers(0, MOST_IDS - 1),
)
def test_slots_are_the_published_formula_without_overflow(size: int, block: int, dim: int, seed: int, row: int) -> None:
    made = make_hash(size=size, dim=dim, block=block, seed=seed)
    one, two, three = made.multipliers
    wanted = [(three * row + two * (j // block) + one) % PRIME % (size - block + 1) + j % block for j in range(dim)]
    assert made.slots(np.array([row]))[0].tolist() == wanted
    assert max(wanted) < size


def test_blocks_are_read_in_one_piece() -> None:
    slots = make_hash(size=1000, dim=16, block=4).slots(np.arange(50))
    assert (np.diff(slots.reshape(50, 4, 4), axis=-1) == 1).all()


def test_rows_of_two_tables_differ_and_ids_outside_a_table_are_its_last_row() -> None:
    made = make_hash(size=500, dim=8, block=8)
    first, second = RobeTable(hash=made, rows=10), RobeTable(hash=made, rows=20, offset=10)
    assert not np.array_equal(first.slots(np.array([3])), second.slots(np.array([3])))
    np.testing.assert_array_equal(first.slots(np.array([10, 999, -4])), first.slots(np.array([9, 9, 0])))


def test_an_array_smaller_than_a_block_is_refused() -> None:
    with pytest.raises(BadInput, match="at least a block"):
        RobeHash(size=3, block=4, dim=8, multipliers=(1, 2, 3))
