import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import make_cut
from edge_deploy.core.errors import BadInput, NoFeasiblePlan, Unsupported
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile, Power
from edge_deploy.core.tensor import TensorInfo
from partitioner.candidates import legal_cuts
from partitioner.constraints import Constraints
from partitioner.cost import as_arrays, cost
from partitioner.cut_table import build_cut_table
from partitioner.decision import decide, prepare
from partitioner.objectives import Objective, parse_objective, score
from partitioner.plan import plan
from partitioner.problem import Problem
from partitioner.solvers.enumerate import best_cuts
from partitioner.solvers.min_cut import prices, propose

POWER = Power(compute_w=2.0, send_w=3.0, receive_w=1.0, wait_w=0.5)


def profile(layer_s, **changes):
    values = {"artifact": "net", "sha256": "", "device": "d", "kernels": "k", "provenance": "measured"}
    values |= {"source": "test", "layer_s": layer_s, "overhead_s": 0.001, "whole_s": 1.0}
    return ModelProfile(**(values | changes))


@st.composite
def problems(draw, most=20):
    """A DAG in which every layer reads one to three earlier tensors, some tensors are groups, some are outputs."""
    count = draw(st.integers(1, most))
    seed = draw(st.integers(0, 2**32 - 1))
    window = draw(st.sampled_from([2, 3, 6, 20]))
    rng = np.random.default_rng(seed)
    tensors = [TensorInfo(name="x", shape=(1, int(rng.integers(1, 5000))), dtype="float32")]
    layers, read = [], set()
    for number in range(count):
        near = tensors[-window:]
        many = int(rng.integers(1, min(3, len(near)) + 1))
        inputs = [near[i].name for i in rng.choice(len(near), size=many, replace=False)]
        read.update(inputs)
        made = [
            TensorInfo(
                name=f"t{number}.{i}", shape=(1, int(rng.integers(1, 5000))), dtype=str(rng.choice(["int8", "float32"]))
            )
            for i in range(1 if rng.random() < 0.8 else 2)
        ]
        group = "fused" if number in (2, 3) and rng.random() < 0.3 else ""
        layers.append(
            Layer(
                name=f"l{number}",
                op="op",
                inputs=tuple(inputs),
                outputs=tuple(made),
                weight_bytes=int(rng.integers(0, 1000)),
                group=group,
            )
        )
        tensors += made
    outputs = tuple(t.name for t in tensors[1:] if t.name not in read or rng.random() < 0.05)
    graph = LayerGraph(inputs=tuple(tensors[:1]), outputs=outputs, layers=tuple(layers))
    edge = profile({layer.name: float(rng.uniform(0, 0.02)) for layer in layers}, power=POWER)
    cloud = profile({layer.name: float(rng.uniform(0, 0.005)) for layer in layers})
    objective = draw(st.sampled_from(["latency", "energy", "latency=1,energy=0.3"]))
    problem = Problem(graph=graph, edge=edge, cloud=cloud, objective=parse_objective(objective))
    now = Conditions(
        uplink_bps=float(10 ** rng.uniform(5, 7.5)),
        downlink_bps=float(10 ** rng.uniform(5, 8)),
        rtt_s=float(rng.uniform(0, 0.02)),
    )
    return problem, now


def all_down_sets(graph):
    """Every legal cut, by trying to add each layer in order to every down-set of the layers before it."""
    made_by = {tensor.name: layer.name for layer in graph.layers for tensor in layer.outputs}
    found = [frozenset()]
    for layer in graph.layers:
        needs = {made_by[name] for name in layer.inputs if name in made_by}
        found += [down | {layer.name} for down in found if needs <= down]
    grouped = {layer.name for layer in graph.layers if layer.group}
    return [make_cut(graph, down) for down in found if not grouped & down or grouped <= down]


def best_score(problem, now, cuts):
    table = build_cut_table(problem.graph, cuts, edge=problem.edge, cloud=problem.cloud, codec=problem.codec)
    return float(score(cost(table, as_arrays(now)), problem.objective).min())


@settings(max_examples=60, deadline=None)
@given(problems())
def test_min_cut_finds_the_best_of_all_down_sets(drawn):
    problem, now = drawn
    everything = all_down_sets(problem.graph)
    if len(everything) > 20_000:
        everything = everything[:20_000]
        assert best_score(problem, now, propose(problem, now)) <= best_score(problem, now, everything) + 1e-12
        return
    assert best_score(problem, now, propose(problem, now)) == pytest.approx(
        best_score(problem, now, everything), rel=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(problems())
def test_networkx_agrees_on_the_price_of_the_cheapest_down_set(drawn):
    networkx = pytest.importorskip("networkx")
    problem, now = drawn
    price = prices(problem, now)
    net = networkx.DiGraph()
    for layer in problem.graph.layers:
        returned = sum(
            int(np.prod(t.shape)) * (4 if t.dtype == "float32" else 1)
            for t in layer.outputs
            if t.name in problem.graph.outputs
        )
        net.add_edge("edge", layer.name, capacity=price.cloud[layer.name] + returned * price.returned)
        net.add_edge(layer.name, "cloud", capacity=price.edge[layer.name])
    makers = {t.name: layer.name for layer in problem.graph.layers for t in layer.outputs}
    sizes = {t.name: t for t in problem.graph.inputs} | {
        t.name: t for layer in problem.graph.layers for t in layer.outputs
    }
    for layer in problem.graph.layers:
        for name in layer.inputs:
            tensor = sizes[name]
            size = int(np.prod(tensor.shape)) * (4 if tensor.dtype == "float32" else 1)
            net.add_edge(makers.get(name, "edge"), ("sent", name), capacity=size * price.sent)
            net.add_edge(("sent", name), layer.name)
            if name in makers:
                net.add_edge(layer.name, makers[name])
    grouped = [layer.name for layer in problem.graph.layers if layer.group]
    for one, other in itertools.pairwise(grouped):
        net.add_edge(one, other)
        net.add_edge(other, one)
    expected = networkx.minimum_cut_value(net, "edge", "cloud")
    found = min(_price(problem, price, cut) for cut in propose(problem, now))
    assert found == pytest.approx(expected, rel=1e-9)


def _price(problem, price, cut):
    edge = set(cut.edge_layers)
    layers = sum(price.edge[n] if n in edge else price.cloud[n] for n in (layer.name for layer in problem.graph.layers))
    return layers + cut.up_bytes * price.sent + cut.down_bytes * price.returned


@settings(max_examples=40, deadline=None)
@given(problems(), st.floats(1.0, 100.0))
def test_more_bandwidth_never_raises_the_best_latency(drawn, faster):
    problem, now = drawn
    problem = Problem(graph=problem.graph, edge=problem.edge, cloud=problem.cloud)
    better = Conditions(uplink_bps=now.uplink_bps * faster, downlink_bps=now.downlink_bps, rtt_s=now.rtt_s)
    assert plan(problem, better).cost.total_s <= plan(problem, now).cost.total_s * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(problems(most=12), st.data())
def test_a_plan_keeps_its_constraints_or_none_of_all_cuts_does(drawn, data):
    problem, now = drawn
    names = [layer.name for layer in problem.graph.layers]
    limits = Constraints(
        max_latency_s=data.draw(st.none() | st.floats(0.001, 0.3)),
        max_edge_bytes=data.draw(st.none() | st.integers(1000, 60_000)),
        max_bytes=data.draw(st.none() | st.integers(0, 30_000)),
        keep_on_edge=tuple(data.draw(st.sets(st.sampled_from(names), max_size=1))),
    )
    limited = Problem(graph=problem.graph, edge=problem.edge, cloud=problem.cloud, constraints=limits)
    try:
        found = plan(limited, now)
    except NoFeasiblePlan as error:
        prefixes = legal_cuts(problem.graph)
        table = build_cut_table(problem.graph, prefixes, edge=problem.edge, cloud=problem.cloud)
        seconds = cost(table, as_arrays(now)).total_s[0]
        assert not any(_keeps(limits, table, i, cut, seconds[i]) for i, cut in enumerate(prefixes))
        assert "rules out" in str(error)
        return
    parts = found.cost
    assert limits.max_latency_s is None or parts.total_s <= limits.max_latency_s * (1 + 1e-9)
    assert limits.max_edge_bytes is None or parts.edge_bytes <= limits.max_edge_bytes
    assert limits.max_bytes is None or parts.up_bytes + parts.down_bytes <= limits.max_bytes
    assert {item.cut for item in found.considered if not item.refused} >= set(found.cuts)


def _keeps(limits, table, column, cut, seconds):
    return (
        (limits.max_latency_s is None or seconds <= limits.max_latency_s)
        and (limits.max_edge_bytes is None or table.edge_bytes[column] <= limits.max_edge_bytes)
        and (limits.max_bytes is None or table.up_bytes[column] + table.down_bytes[column] <= limits.max_bytes)
        and set(limits.keep_on_edge) <= set(cut.edge_layers)
    )


@settings(max_examples=40, deadline=None)
@given(problems(), st.sampled_from(["latency", "throughput", "energy", "latency=1,throughput=0.5,energy=0.1"]))
def test_a_decision_costs_what_the_cost_function_says_and_is_its_minimum(drawn, objective):
    problem, now = drawn
    problem = Problem(graph=problem.graph, edge=problem.edge, cloud=problem.cloud, objective=parse_objective(objective))
    cuts = legal_cuts(problem.graph)
    prepared = prepare(problem, cuts)
    found = decide(prepared, now)
    costs = cost(prepared.table, as_arrays(now))
    column = prepared.table.index(found.cuts[0])
    assert found.cost.total_s == pytest.approx(costs.total_s[0, column], rel=1e-9)
    assert found.cost.energy_j == pytest.approx(costs.energy_j[0, column], rel=1e-9)
    scores = score(costs, problem.objective)[0]
    assert scores[column] == pytest.approx(scores.min(), rel=1e-9)
    many = best_cuts(prepared.table, as_arrays(now), objective=problem.objective)
    assert many.value[0] == pytest.approx(scores.min(), rel=1e-9)


def test_limits_are_met_by_cuts_that_are_no_prefixes_where_prefixes_cannot():
    # Two heads behind one stem: the heavy head is first in the order, the limit only leaves room for the light one.
    def tensor(name, size):
        return TensorInfo(name=name, shape=(1, size), dtype="int8")

    layers = (
        Layer(name="stem", op="op", inputs=("x",), outputs=(tensor("s", 1000),), weight_bytes=100),
        Layer(name="heavy", op="op", inputs=("s",), outputs=(tensor("h", 10),), weight_bytes=100_000),
        Layer(name="light", op="op", inputs=("s",), outputs=(tensor("l", 10),), weight_bytes=100),
    )
    graph = LayerGraph(inputs=(tensor("x", 5000),), outputs=("h", "l"), layers=layers)
    edge = profile({"stem": 0.001, "heavy": 0.010, "light": 0.010})
    cloud = profile({"stem": 0.0005, "heavy": 0.009, "light": 0.020})
    now = Conditions(uplink_bps=1e6, downlink_bps=1e6, rtt_s=0.0)
    limits = Constraints(max_edge_bytes=10_000)
    free = Problem(graph=graph, edge=edge, cloud=cloud)
    assert plan(free, now).cuts == ("all-edge",)
    found = plan(Problem(graph=graph, edge=edge, cloud=cloud, constraints=limits), now)
    assert found.edge_layers == (("stem", "light"),)
    assert any("split it by --edge-layers stem,light" in warning for warning in found.warnings)


@pytest.fixture
def chain():
    def tensor(name, size):
        return TensorInfo(name=name, shape=(1, size), dtype="float32")

    layers = tuple(
        Layer(
            name=f"l{i}", op="CONV", inputs=(f"t{i}",), outputs=(tensor(f"t{i + 1}", 1000 - 300 * i),), weight_bytes=100
        )
        for i in range(3)
    )
    graph = LayerGraph(inputs=(tensor("t0", 1000),), outputs=("t3",), layers=layers)
    times = {"l0": 0.01, "l1": 0.02, "l2": 0.03}
    return Problem(graph=graph, edge=profile(times), cloud=profile({n: s / 10 for n, s in times.items()}))


NOW = Conditions(uplink_bps=1e6, downlink_bps=1e6, rtt_s=0.01)


def test_a_plan_says_why_and_what_else_was_considered(chain):
    found = plan(chain, NOW)
    assert found.why == "all-edge takes 61.0 ms, all-cloud 61.8 ms; least latency of 4 cuts"
    assert len(found.considered) == 4
    seconds = [item.cost.total_s for item in found.considered]
    assert seconds == sorted(seconds)
    assert found.considered[0].cut == found.cuts[0]
    assert found.considered[0].cost.total_s == pytest.approx(found.cost.total_s)


def test_when_nothing_is_feasible_each_constraint_says_what_it_rules_out(chain):
    limits = Constraints(max_bytes=100, max_edge_bytes=4050, keep_on_edge=("l0",))
    with pytest.raises(NoFeasiblePlan) as caught:
        plan(Problem(graph=chain.graph, edge=chain.edge, cloud=chain.cloud, constraints=limits), NOW)
    said = str(caught.value)
    assert "keep on edge rules out 1: all-cloud (l0 would run in the cloud)" in said
    assert "edge memory rules out 3" in said
    assert "at most 4.05 kB" in said


def test_while_the_link_is_down_the_edge_does_everything(chain):
    down = Conditions(uplink_bps=0, downlink_bps=1e6, rtt_s=0.01)
    assert plan(chain, down).cuts == ("all-edge",)
    limits = Constraints(keep_off_edge=("l2",))
    with pytest.raises(NoFeasiblePlan, match="link rules out"):
        plan(Problem(graph=chain.graph, edge=chain.edge, cloud=chain.cloud, constraints=limits), down)


def test_a_constraint_on_an_unknown_layer_suggests_a_close_name(chain):
    limits = Constraints(keep_on_edge=("l_0",))
    with pytest.raises(BadInput, match="no layer named l_0 in the model; did you mean l0"):
        plan(Problem(graph=chain.graph, edge=chain.edge, cloud=chain.cloud, constraints=limits), NOW)


def test_energy_without_power_figures_is_refused(chain):
    problem = Problem(graph=chain.graph, edge=chain.edge, cloud=chain.cloud, objective=parse_objective("energy"))
    with pytest.raises(BadInput, match="power figures"):
        plan(problem, NOW)


@pytest.mark.parametrize(
    "text", ["speed", "latency,energy", "latency=x", "latency=1,latency=2", "latency=-1", "latency=0"]
)
def test_what_is_no_objective_is_refused(text):
    with pytest.raises(BadInput, match="objective"):
        parse_objective(text)


def test_conditions_outside_the_sweep_are_flagged(chain):
    busy = Conditions(uplink_bps=1e6, downlink_bps=1e6, rtt_s=0.01, edge_load=0.5)
    assert any("edge load 0.5" in warning and "--under-load" in warning for warning in plan(chain, busy).warnings)
    assert plan(chain, NOW).warnings == ()


def test_min_cut_refuses_early_exits_and_the_plan_then_enumerates(chain):
    problem = Problem(graph=chain.graph, edge=chain.edge, cloud=chain.cloud, exits={"l0": 0.5})
    with pytest.raises(Unsupported, match="early exits"):
        plan(problem, NOW, solver="min-cut")
    assert len(plan(problem, NOW).considered) == 4


def test_a_lossy_codec_needs_its_accuracy_measured_where_a_limit_is_set(chain):
    limits = Constraints(max_accuracy_drop=0.01, keep_off_edge=("l2",))
    problem = Problem(
        graph=chain.graph, edge=chain.edge, cloud=chain.cloud, codec="requantize:int8", constraints=limits
    )
    with pytest.raises(NoFeasiblePlan, match="not measured with this codec"):
        plan(problem, NOW)
    cut = legal_cuts(chain.graph)[1].id
    limits = Constraints(max_accuracy_drop=0.01, keep_off_edge=("l2",), accuracy_drop={cut: 0.005})
    problem = Problem(
        graph=chain.graph, edge=chain.edge, cloud=chain.cloud, codec="requantize:int8", constraints=limits
    )
    assert plan(problem, NOW).cuts == (cut,)
    assert plan(problem, NOW).provenance == "estimated"
    assert any("lossy" in warning for warning in plan(problem, NOW).warnings)


def test_the_best_of_many_conditions_is_the_best_of_each():
    rng = np.random.default_rng(3)
    layers = tuple(
        Layer(
            name=f"l{i}",
            op="op",
            inputs=(f"t{i}",),
            outputs=(TensorInfo(name=f"t{i + 1}", shape=(1, int(rng.integers(1, 9999))), dtype="int8"),),
        )
        for i in range(40)
    )
    graph = LayerGraph(inputs=(TensorInfo(name="t0", shape=(1, 5000), dtype="int8"),), outputs=("t40",), layers=layers)
    edge = profile({layer.name: float(rng.uniform(0, 0.01)) for layer in layers}, power=POWER)
    cloud = profile({layer.name: float(rng.uniform(0, 0.002)) for layer in layers})
    table = build_cut_table(graph, legal_cuts(graph), edge=edge, cloud=cloud)
    count = 20_000
    many = {
        "uplink_bps": 10 ** rng.uniform(4, 8, count),
        "downlink_bps": np.full(count, 1e6),
        "rtt_s": rng.uniform(0, 0.05, count),
    }
    many["uplink_bps"][::97] = 0.0
    for objective in (Objective(), parse_objective("throughput"), parse_objective("energy")):
        found = best_cuts(table, many, objective=objective, threads=2)
        expected = score(cost(table, many), objective)
        np.testing.assert_allclose(found.value, expected.min(axis=1), rtol=1e-9)
        np.testing.assert_allclose(expected[np.arange(count), found.index], expected.min(axis=1), rtol=1e-9)
    allowed = np.zeros(len(table.cuts), dtype=bool)
    allowed[0] = True
    found = best_cuts(table, many, allowed=allowed, max_latency_s=0.2)
    latency = cost(table, many).total_s[:, 0]
    np.testing.assert_array_equal(found.index, np.where(latency <= 0.2, 0, -1))
