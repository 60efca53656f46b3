import numpy as np
import pytest

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.errors import BadInput, NoFeasiblePlan
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile, Slowdown
from edge_deploy.core.serde import read_json, write_json
from edge_deploy.core.tensor import TensorInfo
from partitioner.constraints import Constraints
from partitioner.plan import plan
from partitioner.plan_table import Grid, PlanTable, look_up, plan_table
from partitioner.problem import Problem


def tensor(name, size):
    return TensorInfo(name=name, shape=(1, size), dtype="int8")


def profile(factor, **changes):
    times = {f"l{i}": 0.004 * (i + 1) * factor for i in range(4)}
    values = {"artifact": "net", "sha256": "ab", "device": "d", "kernels": "k", "provenance": "measured"}
    return ModelProfile(**values, source="test", layer_s=times, overhead_s=0.0, whole_s=sum(times.values()), **changes)


@pytest.fixture
def problem():
    sizes = [50_000, 8_000, 20_000, 2_000, 10]
    layers = tuple(
        Layer(name=f"l{i}", op="CONV", inputs=(f"t{i}",), outputs=(tensor(f"t{i + 1}", sizes[i + 1]),))
        for i in range(4)
    )
    graph = LayerGraph(inputs=(tensor("t0", sizes[0]),), outputs=("t4",), layers=layers)
    edge = profile(1.0, cpu=Slowdown(at=(0.0, 1.0), factor=(1.0, 4.0)))
    return Problem(graph=graph, edge=edge, cloud=profile(0.1))


BASE = Conditions(uplink_bps=1.0, downlink_bps=0.0, rtt_s=0.0)


def test_every_point_of_the_table_is_what_plan_says_there(problem):
    grid = Grid(uplink_bps=(1e6, 5e6, 2e7, 5e8), edge_load=(0.0, 0.5, 1.0), rtt_s=(0.005, 0.05))
    table = plan_table(problem, BASE, grid)
    assert len({*table.choice}) > 1
    for u in grid.uplink_bps:
        for e in grid.edge_load:
            for r in grid.rtt_s:
                now = Conditions(uplink_bps=u, downlink_bps=u, rtt_s=r, edge_load=e)
                found = look_up(table, uplink_bps=u, edge_load=e, rtt_s=r)
                weighed = {item.cut: item.cost.total_s for item in plan(problem, now).considered}
                assert weighed[found] == pytest.approx(min(weighed.values()))


def test_between_points_the_table_never_assumes_better_conditions_than_measured(problem):
    grid = Grid(uplink_bps=(1e6, 5e6, 2e7), edge_load=(0.0, 0.5, 1.0), rtt_s=(0.005, 0.05))
    table = plan_table(problem, BASE, grid)
    assert look_up(table, uplink_bps=1.9e7, edge_load=0.1, rtt_s=0.006) == look_up(
        table, uplink_bps=5e6, edge_load=0.5, rtt_s=0.05
    )
    assert look_up(table, uplink_bps=1e3, edge_load=0.1, rtt_s=9.0) == "all-edge"


def test_the_table_reads_back_from_json_and_says_how_to_look_up(problem, tmp_path):
    table = plan_table(problem, BASE, Grid())
    write_json(table, tmp_path / "table.json")
    assert read_json(PlanTable, tmp_path / "table.json") == table
    assert len(table.choice) == 17 * 5 * 7
    assert "largest uplink_bps that is not above" in table.rule


def test_points_without_a_feasible_cut_say_so(problem):
    limited = Problem(
        graph=problem.graph, edge=problem.edge, cloud=problem.cloud, constraints=Constraints(max_latency_s=0.045)
    )
    table = plan_table(limited, BASE, Grid(uplink_bps=(1e5, 1e9), edge_load=(1.0,), rtt_s=(0.001,)))
    assert table.choice[0] == -1 and table.latency_s[0] == -1
    assert look_up(table, uplink_bps=1e5, edge_load=1.0, rtt_s=0.0) is None
    assert look_up(table, uplink_bps=1e9, edge_load=1.0, rtt_s=0.0) is not None
    impossible = Problem(
        graph=problem.graph, edge=problem.edge, cloud=problem.cloud, constraints=Constraints(max_latency_s=1e-6)
    )
    with pytest.raises(NoFeasiblePlan, match="at any point"):
        plan_table(impossible, BASE, Grid())


def test_a_grid_must_increase():
    with pytest.raises(BadInput, match="increasing"):
        Grid(rtt_s=(0.1, 0.05))
    with pytest.raises(BadInput, match="above 0"):
        Grid(uplink_bps=(0.0, 1.0))


def test_latencies_of_the_table_are_those_of_its_cuts(problem):
    table = plan_table(problem, BASE, Grid())
    rising = np.array(table.latency_s).reshape(17, 5, 7)
    assert (np.diff(rising, axis=0) <= 1e-12).all()
    assert (np.diff(rising, axis=1) >= -1e-12).all()
