"""The emitted order of an interaction's dot products holds each of them once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table
from converters.tflite.recommender_columns import order_columns, permuted
from converters.tflite.recommender_tables import Fused
from edge_deploy.core.tensor import TensorInfo


def columns_of(count, pairs):
    model = Recommender(
        inputs=(TensorInfo(name="ids", shape=(-1, count), dtype="int64"),),
        output=TensorInfo(name="score", shape=(-1, 1), dtype="float32"),
        tables=tuple(Table(name=f"t{i}", rows=9, dim=4, weight=f"t{i}") for i in range(count)),
        lookups=tuple(Lookup(table=i, input="ids", column=i) for i in range(count)),
        interaction=Interaction(kind="dot", top_inputs=("pairs",), vectors=tuple(range(count)), pairs=tuple(pairs)),
        top=(Dense(name="top", weight="top", in_features=len(pairs), out_features=1),),
    )
    fused = Fused(
        name="t", storage="float32", tables=tuple(range(count)), starts=(0,) * count, rows=9, dim=4, stored_dim=4
    )
    return order_columns(model, (fused,))


@given(count=st.integers(3, 30), seed=st.integers(0, 99))
def test_every_pair_is_in_the_band_and_costs_at_most_a_third_more_columns(count, seed):
    rng = np.random.default_rng(seed)
    pairs = rng.permutation([(a, b)[:: rng.choice([-1, 1])] for a in range(count) for b in range(a)])
    columns = columns_of(count, [(int(a), int(b)) for a, b in pairs])
    band = columns.dot.band
    vectors = rng.standard_normal((count, 4))
    products = (vectors @ vectors.T).reshape(-1)[:-1].reshape(count - 1, count + 1)
    emitted = products[:, 1 : band.width + 1].reshape(-1)
    weight = rng.standard_normal((1, len(pairs)))
    wanted = weight @ np.array([vectors[a] @ vectors[b] for a, b in pairs])
    np.testing.assert_allclose(permuted(weight, columns) @ emitted, wanted, rtol=1e-9, atol=1e-9)
    assert len(emitted) <= 4 / 3 * len(pairs)


@pytest.mark.parametrize(
    "pairs",
    [
        [(a, b) for a in range(9) for b in range(a + 1)],
        [(a, 0) for a in range(1, 9)],
        [(1, 0), (0, 1), *((a, b) for a in range(9) for b in range(a))],
    ],
    ids=["with itself", "with the first", "one twice"],
)
def test_pairs_that_no_band_holds_are_picked_one_by_one(pairs):
    columns = columns_of(9, pairs)
    assert columns.dot.band is None
    assert list(columns.permutation) == list(range(len(pairs)))
