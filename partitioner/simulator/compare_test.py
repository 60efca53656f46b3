from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from partitioner.bounds.oracle import best_per_moment, hindsight_static, paying_oracle
from partitioner.controller import train
from partitioner.simulator.arrivals import poisson
from partitioner.simulator.compare import compare
from partitioner.simulator.parquet import HOW, RequestWriter
from partitioner.simulator.simulate import PARTS
from partitioner.simulator.simulate_test import ALL_POLICIES, SETTING, TRAINING, three_cuts, trace_of, wandering
from partitioner.simulator.world import World

WORLD = World(setting=SETTING)


def compared(trace, specs=ALL_POLICIES, training=TRAINING, **options):
    policies = [train(spec, three_cuts(), training) for spec in specs]
    return compare(policies, [(trace, poisson(1.0, trace.end_s, 0))], WORLD, **options)


def test_the_paying_oracle_is_the_best_of_all_sequences():
    random = np.random.default_rng(0)
    for _ in range(30):
        taken, price = random.random((6, 3)), random.random(3) * 0.5
        found = paying_oracle(taken, price)

        def total(sequence, taken=taken, price=price):
            moved = sum(price[b] for a, b in itertools.pairwise(sequence) if a != b)
            return taken[np.arange(6), list(sequence)].sum() + moved + price[sequence[0]] * 0

        everything = np.stack(np.meshgrid(*[np.arange(3)] * 6, indexing="ij"), -1).reshape(-1, 6)
        assert total(found) == pytest.approx(min(total(tuple(sequence)) for sequence in everything))


def test_free_switches_make_it_the_best_of_each_moment_and_dear_ones_the_best_static_cut():
    taken = np.random.default_rng(1).random((50, 4))
    assert np.array_equal(paying_oracle(taken, np.zeros(4)), best_per_moment(taken))
    assert np.array_equal(paying_oracle(taken, np.full(4, 1e9)), hindsight_static(taken))


def test_adapting_pays_on_a_link_that_wanders():
    found = compared(wandering(9, 900))
    oracle, static = found.score("oracle"), found.score("static")
    assert found.pays and "Adapting pays" in found.verdict
    assert oracle.gain > 0.05 and oracle.captured == pytest.approx(1.0)
    assert static.gain == 0.0 and static.captured == 0.0 and static.switches == 0
    assert found.score("learned").captured > 0.5
    for score in found.scores:
        assert score.gain_low <= score.gain <= score.gain_high
        assert score.mean_s >= 0.98 * oracle.mean_s


def test_adapting_does_not_pay_on_a_steady_link_and_that_is_said():
    steady = trace_of(np.full(600, 20e6), edge_load=0.3)
    found = compared(steady, training=dataclasses.replace(TRAINING, traces=(steady,)))
    assert not found.pays
    assert found.verdict.startswith("Adapting does not pay here: even an oracle")
    assert found.score("learned").captured is None
    assert found.score("learned").gain == pytest.approx(0.0, abs=0.01)


def test_two_minutes_of_a_trace_show_nothing():
    found = compared(wandering(12, 120), ("static", "always-best"))
    assert found.blocks == 2 and found.score("always-best").gain > 0.01
    assert not found.pays and found.verdict.startswith("It is not shown that adapting pays here")


def test_without_a_static_policy_there_is_nothing_to_compare_with():
    with pytest.raises(BadInput, match="need static once"):
        compared(wandering(9), specs=("learned",))


def test_every_request_is_in_the_parquet_file_with_its_parts(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    with RequestWriter(tmp_path / "r.parquet") as writer:
        found = compared(wandering(9), ("static", "learned"), keep=lambda _, served: writer.write("w", served))
    table = parquet.read_table(tmp_path / "r.parquet")
    count = found.score("static").requests
    assert table.num_rows == writer.rows == 5 * count
    rows = table.filter(np.array(table["policy"].to_pylist()) == "learned").to_pydict()
    sums = np.sum([rows[f"{part}_s"] for part in PARTS], axis=0)
    np.testing.assert_allclose(sums, rows["latency_s"], atol=1e-9)
    assert set(rows["how"]) <= set(HOW) and set(rows["cut"]) <= set(three_cuts().cuts)
    assert np.mean(rows["latency_s"]) == pytest.approx(found.score("learned").mean_s)


def test_a_broken_run_leaves_no_file(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(RuntimeError), RequestWriter(tmp_path / "r.parquet") as writer:
        compared(wandering(9), ("static",), keep=lambda _, served: writer.write("w", served))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
