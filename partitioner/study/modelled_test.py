import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.profile import Slowdown
from partitioner.cost import cost
from partitioner.cut_table import CutTable
from partitioner.engine.run import run_tasks
from partitioner.study.findings import analyse
from partitioner.study.grid import DEFAULT_GRID, Grid
from partitioner.study.model_error import Pair, draw_pairs, summarise
from partitioner.study.modelled import modelled_tasks, read_modelled, table_from_json, table_to_json

GRID = Grid(
    levels={
        "uplink_bps": (1e6, 5e6, 20e6, 100e6),
        "rtt_s": (0.01, 0.05),
        "edge_load": (0.0, 0.5, 1.0),
        "cloud_load": (0.0, 1.0),
    }
)


@pytest.fixture(scope="module")
def table():
    cuts = 5
    return CutTable(
        cuts=tuple(f"{place:03d}" for place in range(cuts)),
        codec="raw",
        edge_s=np.linspace(0, 0.8, cuts),
        cloud_s=np.linspace(0.2, 0, cuts),
        encode_s=np.zeros(cuts),
        decode_s=np.zeros(cuts),
        up_bytes=np.array([600_000, 800_000, 200_000, 50_000, 0]),
        down_bytes=np.array([4000, 4000, 4000, 4000, 0]),
        edge_bytes=np.arange(cuts) * 1000,
        exit_share=np.zeros(cuts),
        crosses=np.array([True, True, True, True, False]),
        edge_cpu=Slowdown(at=(0.0, 1.0), factor=(1.0, 2.5)),
        cloud_cpu=Slowdown(at=(0.0, 1.0), factor=(1.0, 3.0)),
    )


def test_partitions_hold_the_cost_of_every_cut_under_every_condition(tmp_path, table):
    tasks = modelled_tasks(table, GRID, stretch=7)
    assert len(tasks) == -(-len(GRID) // 7)
    run_tasks(tasks, tmp_path)
    sweep = read_modelled("net", tmp_path, tasks, table, GRID)
    direct = cost(table, GRID.rows(0, len(GRID)))
    np.testing.assert_allclose(sweep.total_s, direct.total_s, rtol=1e-6)
    np.testing.assert_allclose(sweep.edge_s, np.broadcast_to(direct.edge_s, direct.total_s.shape), rtol=1e-6)
    assert sweep.values == len(GRID) * 5
    assert sweep.factors == ("uplink_bps", "rtt_s", "edge_load", "cloud_load")


def test_a_modelled_sweep_is_analysed_without_intervals_and_says_that_it_is_modelled(tmp_path, table):
    tasks = modelled_tasks(table, GRID)
    run_tasks(tasks, tmp_path)
    found = analyse(read_modelled("net", tmp_path, tasks, table, GRID), noisy=False)
    assert "in the model" in found.verdict
    assert found.oracle_gain > 0.05
    shares = {each.part: each.shares for each in found.variance}
    assert shares["edge"]["edge_load"] == pytest.approx(1.0, abs=1e-6)
    assert shares["cloud"]["cloud_load"] == pytest.approx(1.0, abs=1e-6)
    assert shares["transfer"]["uplink_bps"] > 0.5


def test_another_table_or_grid_is_another_task(table):
    other = Grid(levels={**GRID.levels, "rtt_s": (0.01, 0.06)})
    keys = {task.key for task in modelled_tasks(table, GRID)}
    assert not keys & {task.key for task in modelled_tasks(table, other)}
    assert keys == {task.key for task in modelled_tasks(table, Grid(levels=dict(GRID.levels)))}
    halved = table_from_json({**table_to_json(table), "edge_s": (table.edge_s / 2).tolist()})
    assert not keys & {task.key for task in modelled_tasks(halved, GRID)}


def test_a_table_travels_unchanged(table):
    back = table_from_json(table_to_json(table))
    np.testing.assert_array_equal(back.edge_s, table.edge_s)
    assert (back.cuts, back.edge_cpu, back.provenance) == (table.cuts, table.edge_cpu, table.provenance)


def test_the_grid_has_at_least_35000_conditions_and_233_cuts_make_8_million_points():
    assert len(DEFAULT_GRID) >= 35_000
    assert len(DEFAULT_GRID) * 233 > 8_000_000


def test_a_grid_is_every_combination_once():
    rows = GRID.rows(0, len(GRID))
    combinations = set(zip(*(rows[name].tolist() for name in GRID.levels), strict=True))
    assert len(combinations) == len(GRID) == 4 * 2 * 3 * 2
    np.testing.assert_array_equal(rows["downlink_bps"], rows["uplink_bps"])
    np.testing.assert_array_equal(GRID.rows(5, 9)["edge_load"], rows["edge_load"][5:9])


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"rtt_s": (0.1,)}, "uplink_bps is missing"),
        ({"uplink_bps": (1e6, 1e6), "rtt_s": (0.1,)}, "levels must increase"),
        ({"uplink_bps": (1e6,), "rtt_s": ()}, "one at least"),
        ({"uplink_bps": (1e6,), "rtt_s": (-0.1,)}, "not negative"),
        ({"uplink_bps": (1e6,), "rtt_s": (0.1,), "weather": (1.0,)}, "unknown field"),
    ],
)
def test_grids_that_make_no_sense_are_refused(levels, message):
    with pytest.raises(BadInput, match=message):
        Grid(levels=levels)


def pair(modelled_s, *measured_s, net="net"):
    return Pair(net=net, number=0, cut=0, conditions={}, modelled_s=modelled_s, measured_s=measured_s, parts_s={})


def test_errors_are_relative_to_the_median_measured():
    pairs = [pair(1.1, 1.0, 1.0, 9.0), pair(0.8, 1.0), pair(2.0, 2.0, net="other")]
    every, net, other = summarise(pairs)
    assert (every.net, every.pairs, net.pairs, other.pairs) == ("all", 3, 2, 1)
    assert every.median == pytest.approx(0.1)
    assert net.median == pytest.approx(0.15)
    assert net.bias == pytest.approx(-0.05)
    assert other.p95 == 0
    assert every.rank == pytest.approx(0.866, abs=1e-3)
    assert summarise([]) == ()


def test_pairs_are_drawn_once_each_and_the_same_for_a_seed():
    one = draw_pairs({"a": 3, "b": 2}, 10, count=20, seed=1)
    assert one == draw_pairs({"a": 3, "b": 2}, 10, count=20, seed=1)
    assert one[:7] == draw_pairs({"a": 3, "b": 2}, 10, count=7, seed=1)
    assert len(set(one)) == 20
    assert {net for net, _, _ in one} == {"a", "b"}
    with pytest.raises(BadInput, match="51 wanted of 50"):
        draw_pairs({"a": 3, "b": 2}, 10, count=51, seed=1)
