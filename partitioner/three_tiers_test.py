import itertools

import numpy as np
import pytest

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.errors import NoFeasiblePlan
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile, Power, Slowdown
from edge_deploy.core.tensor import TensorInfo
from partitioner.candidates import legal_cuts
from partitioner.constraints import Constraints
from partitioner.cost import as_arrays, cost
from partitioner.cut_table import build_cut_table
from partitioner.objectives import parse_objective
from partitioner.problem import Problem
from partitioner.three_tiers import Links, pair_costs, plan_three_tiers, three_tiers

SIZES = [9000, 5000, 800, 3000, 10]
POWER = Power(compute_w=2.0, send_w=3.0, receive_w=1.0, wait_w=0.5)


def profile(factor, **changes):
    times = {f"l{i}": factor * (i + 1) for i in range(4)}
    values = {"artifact": "net", "sha256": "", "device": "d", "kernels": "k", "provenance": "measured"}
    return ModelProfile(**values, source="test", layer_s=times, overhead_s=factor / 10, whole_s=10 * factor, **changes)


@pytest.fixture
def problem():
    layers = tuple(
        Layer(
            name=f"l{i}",
            op="CONV",
            inputs=(f"t{i}",),
            outputs=(TensorInfo(name=f"t{i + 1}", shape=(1, SIZES[i + 1]), dtype="int8"),),
        )
        for i in range(4)
    )
    graph = LayerGraph(
        inputs=(TensorInfo(name="t0", shape=(1, SIZES[0]), dtype="int8"),), outputs=("t4",), layers=layers
    )
    return Problem(graph=graph, edge=profile(0.010, power=POWER), cloud=profile(0.0002))


MIDDLE = profile(0.001, cpu=Slowdown(at=(0.0, 1.0), factor=(1.0, 2.0)))
LINKS = Links(
    near=Conditions(uplink_bps=8e5, downlink_bps=1.6e6, rtt_s=0.004, cloud_load=0.5, cloud_queue_s=0.001),
    far=Conditions(uplink_bps=4e5, downlink_bps=8e5, rtt_s=0.02, cloud_queue_s=0.002),
)


def by_hand(inner, outer, links):
    """Latency of the first `inner` layers on the device, up to `outer` in the middle, the rest in the cloud."""
    total = sum(0.010 * (i + 1) for i in range(inner)) + (0.001 if inner else 0.0)
    if outer > inner:
        total += 1.5 * (sum(0.001 * (i + 1) for i in range(inner, outer)) + 0.0001) + links.near.cloud_queue_s
    if outer < 4:
        total += sum(0.0002 * (i + 1) for i in range(outer, 4)) + 0.00002 + links.far.cloud_queue_s
    back = SIZES[4]
    if inner == outer and outer < 4 and links.direct is not None:
        used = [(links.direct, inner)]
    else:
        used = [(links.near, inner)] * (inner < 4) + [(links.far, outer)] * (outer < 4)
    for link, place in used:
        total += SIZES[place] * 8 / link.uplink_bps + back * 8 / link.downlink_bps + link.rtt_s
    return total


@pytest.mark.parametrize("direct", [None, Conditions(uplink_bps=5e5, downlink_bps=5e5, rtt_s=0.05)])
def test_every_pair_costs_what_a_reader_would_compute_by_hand(problem, direct):
    links = Links(near=LINKS.near, far=LINKS.far, direct=direct)
    cuts = legal_cuts(problem.graph)
    found = pair_costs(three_tiers(problem, cuts, MIDDLE), links).total_s
    for inner, outer in itertools.product(range(5), repeat=2):
        expected = by_hand(inner, outer, links) if inner <= outer else np.inf
        assert found[inner, outer] == pytest.approx(expected), (inner, outer)


def test_the_plan_is_the_cheapest_pair_and_its_parts_add_up(problem):
    cuts = legal_cuts(problem.graph)
    plan, costs = plan_three_tiers(problem, cuts, MIDDLE, LINKS)
    assert plan.cost.total_s == pytest.approx(costs.total_s.min())
    assert len(plan.cuts) == 2
    assert "of 15 nested pairs" in plan.why


def test_a_middle_tier_that_is_out_of_reach_leaves_what_two_tiers_give(problem):
    direct = Conditions(uplink_bps=8e5, downlink_bps=8e5, rtt_s=0.01)
    links = Links(near=Conditions(uplink_bps=0, downlink_bps=0, rtt_s=0.0), far=LINKS.far, direct=direct)
    cuts = legal_cuts(problem.graph)
    plan, costs = plan_three_tiers(problem, cuts, MIDDLE, links)
    table = build_cut_table(problem.graph, cuts, edge=problem.edge, cloud=problem.cloud)
    two = cost(table, as_arrays(direct)).total_s[0]
    queue = np.where(table.crosses, links.far.cloud_queue_s, 0.0)
    np.testing.assert_allclose(np.diag(costs.total_s), two + queue)
    assert plan.cuts[0] == plan.cuts[1]
    assert plan.cost.total_s == pytest.approx((two + queue).min())


def test_limits_hold_for_the_device(problem):
    cuts = legal_cuts(problem.graph)
    limits = Constraints(keep_on_edge=("l1",))
    limited = Problem(graph=problem.graph, edge=problem.edge, cloud=problem.cloud, constraints=limits)
    plan, _ = plan_three_tiers(limited, cuts, MIDDLE, LINKS)
    assert plan.cuts[0] in {cut.id for cut in cuts if "l1" in cut.edge_layers}
    limits = Constraints(max_latency_s=1e-4)
    limited = Problem(graph=problem.graph, edge=problem.edge, cloud=problem.cloud, constraints=limits)
    with pytest.raises(NoFeasiblePlan, match="latency rules out 5"):
        plan_three_tiers(limited, cuts, MIDDLE, LINKS)


@pytest.mark.parametrize("objective", ["throughput", "energy", "latency=1,energy=0.1"])
def test_other_objectives_choose_their_own_minimum(problem, objective):
    wanted = parse_objective(objective)
    changed = Problem(graph=problem.graph, edge=problem.edge, cloud=problem.cloud, objective=wanted)
    plan, costs = plan_three_tiers(changed, legal_cuts(problem.graph), MIDDLE, LINKS)
    parts = {"latency": costs.total_s, "throughput": costs.slowest_stage_s, "energy": costs.energy_j}
    nested = np.isfinite(costs.total_s)
    scores = np.where(nested, 0.0, np.inf)
    for name, values in parts.items():
        scores[nested] += getattr(wanted, name) * values[nested]
    ids = [cut.id for cut in legal_cuts(problem.graph)]
    assert scores[ids.index(plan.cuts[0]), ids.index(plan.cuts[1])] == pytest.approx(scores.min())
    if objective == "energy":
        assert plan.cost.energy_j == pytest.approx(scores.min())
