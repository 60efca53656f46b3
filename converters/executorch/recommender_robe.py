"""Tables over a shared array (ROBE) on ExecuTorch: places computed with 64-bit integers, elements looked up one by one.

At 4 bits the array is stored as rows of two values, as tables are: the one of even place in the upper half of the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.executorch.recommender_tables import StackedTables, stack_tables
from converters.recommender.model import Recommender
from edge_deploy.core.robe import RobeHash

__all__ = ["constants", "elements", "first_ids", "places_in", "shared_rows", "stack_shared"]


def stack_shared(array: np.ndarray, *, bits: int) -> StackedTables:
    """A shared array [size, 1] as one stacked table with one scale."""
    return stack_tables([shared_rows(array, bits)], bits=bits, scale="table")


def shared_rows(array: np.ndarray, bits: int) -> np.ndarray:
    """The array as it is stacked: rows of one value, or of two at 4 bits, the last filled up with zero."""
    if bits != 4:
        return np.asarray(array, np.float32).reshape(-1, 1)
    flat = np.asarray(array, np.float32).reshape(-1)
    return np.append(flat, np.zeros(len(flat) % 2, np.float32)).reshape(-1, 2)


def first_ids(model: Recommender, group: Any, owner: Sequence[int]) -> list[int]:
    """The global id of the first row of each looked-up id's table; `owner` gives its place in the group."""
    found = []
    for at in owner:
        robe = model.tables[group.tables[at]].robe
        assert robe is not None, "the group is one of shared tables"
        found.append(robe.offset)
    return found


def constants(torch: Any, robe: RobeHash) -> dict[str, Any]:
    """What the places are computed with, by name: the quantizer turns numbers in a program into float tensors."""
    numbers = {
        "factor": [robe.multipliers[2]],
        "shifts": robe.shifts,
        "prime": [robe.prime],
        "places": [robe.places],
        "inside": range(robe.block),
    }
    return {name: torch.tensor(list(values), dtype=torch.int64) for name, values in numbers.items()}


def places_in(torch: Any, ids: Any, held: Any, dim: int) -> Any:
    """int64 [*ids.shape, dim] of global ids, as `RobeHash.slots`; `held` has the `constants` as attributes."""
    mixed = ids.unsqueeze(-1) * held.factor + held.shifts
    starts = torch.remainder(torch.remainder(mixed, held.prime), held.places)
    if len(held.inside) == 1:
        return starts
    slots = (starts.unsqueeze(-1) + held.inside).flatten(-2)
    return slots if slots.shape[-1] == dim else slots[..., :dim]


def elements(torch: Any, slots: Any, rows: Any, *, bits: int, scale: float) -> Any:
    """float32 values at these places of the stored array."""
    embedding = torch.nn.functional.embedding
    if bits == 32:
        return embedding(slots, rows).squeeze(-1)
    if bits == 8:
        return embedding(slots, rows).squeeze(-1).to(torch.float32) * scale
    pairs = embedding(torch.bitwise_right_shift(slots, 1), rows).squeeze(-1)
    is_second = torch.bitwise_and(slots, 1) == 1
    halves = torch.where(is_second, torch.bitwise_and(pairs, 15), torch.bitwise_right_shift(pairs, 4))
    return (halves.to(torch.float32) - 8.0) * scale
