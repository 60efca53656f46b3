import numpy as np
import pytest

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import make_cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile, Power, Slowdown
from edge_deploy.core.tensor import TensorInfo
from partitioner.cost import as_arrays, cost
from partitioner.cut_table import build_cut_table

POWER = Power(compute_w=2.0, send_w=3.0, receive_w=1.0, wait_w=0.5)


def tensor(name, size, dtype="int8"):
    return TensorInfo(name=name, shape=(1, size), dtype=dtype)


@pytest.fixture
def graph():
    layers = (
        Layer(name="a", op="CONV", inputs=("x",), outputs=(tensor("ta", 4000),), weight_bytes=10),
        Layer(name="b", op="CONV", inputs=("ta",), outputs=(tensor("tb", 1000, "float32"),), weight_bytes=20),
        Layer(name="c", op="CONV", inputs=("tb",), outputs=(tensor("y", 10),), weight_bytes=30),
    )
    return LayerGraph(inputs=(tensor("x", 2000),), outputs=("y",), layers=layers)


def profile(layer_s, **changes):
    values = {"artifact": "net", "sha256": "", "device": "d", "kernels": "k", "provenance": "measured"}
    values |= {"source": "test", "layer_s": layer_s, "overhead_s": 0.01, "whole_s": 1.0}
    return ModelProfile(**(values | changes))


@pytest.fixture
def table(graph):
    cuts = [make_cut(graph, names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])]
    edge = profile({"a": 0.1, "b": 0.2, "c": 0.3}, cpu=Slowdown(at=(0.0, 1.0), factor=(1.0, 3.0)), power=POWER)
    cloud = profile({"a": 0.01, "b": 0.02, "c": 0.03}, provenance="emulated")
    return build_cut_table(graph, cuts, edge=edge, cloud=cloud)


def test_each_part_of_a_request_is_what_a_reader_would_compute_by_hand(table):
    now = Conditions(uplink_bps=8000.0, downlink_bps=800.0, rtt_s=0.05, edge_load=0.5, cloud_queue_s=0.2)
    found = cost(table, as_arrays(now))
    np.testing.assert_allclose(found.edge_s[0], [0, 0.11 * 2, 0.31 * 2, 0.61 * 2])
    np.testing.assert_allclose(found.uplink_s[0], [2.0, 4.0, 4.0, 0.0])
    np.testing.assert_allclose(found.rtt_s[0], [0.05, 0.05, 0.05, 0.0])
    np.testing.assert_allclose(found.queue_s[0], [0.2, 0.2, 0.2, 0.0])
    np.testing.assert_allclose(found.cloud_s[0], [0.07, 0.06, 0.04, 0.0])
    np.testing.assert_allclose(found.downlink_s[0], [0.1, 0.1, 0.1, 0.0])
    np.testing.assert_allclose(found.total_s[0], [2.42, 4.63, 5.01, 1.22])
    np.testing.assert_allclose(found.slowest_stage_s[0], [2.0, 4.0, 4.0, 1.22])
    waits = np.array([0.32, 0.31, 0.29, 0.0])
    expected = 2 * found.edge_s[0] + 3 * found.uplink_s[0] + 1 * found.downlink_s[0] + 0.5 * waits
    np.testing.assert_allclose(found.energy_j[0], expected)
    assert table.provenance == "emulated"


def test_many_conditions_at_once_give_what_each_gives_alone(table):
    rng = np.random.default_rng(0)
    many = {"uplink_bps": rng.uniform(1e3, 1e6, 20), "downlink_bps": rng.uniform(1e3, 1e6, 20)}
    many |= {"rtt_s": rng.uniform(0, 0.1, 20), "edge_load": rng.uniform(0, 1, 20)}
    together = cost(table, many).total_s
    alone = [cost(table, {name: values[i : i + 1] for name, values in many.items()}).total_s[0] for i in range(20)]
    np.testing.assert_array_equal(together, alone)


def test_a_link_that_is_down_leaves_only_all_edge(table):
    down = cost(table, {"uplink_bps": np.array([0.0]), "downlink_bps": np.array([1e6]), "rtt_s": np.array([0.01])})
    assert np.isinf(down.total_s[0]).tolist() == [True, True, True, False]
    mute = cost(table, {"uplink_bps": np.array([1e6]), "downlink_bps": np.array([0.0]), "rtt_s": np.array([0.01])})
    assert np.isinf(mute.total_s[0]).tolist() == [True, True, True, False]
    assert not np.isnan(mute.total_s).any()


def test_requests_that_end_at_an_exit_do_not_cross_and_run_the_half_that_they_are_in(graph):
    edge, cloud = profile({"a": 0.1, "b": 0.2, "c": 0.3}), profile({"a": 0.01, "b": 0.02, "c": 0.03})
    cuts = [make_cut(graph, []), make_cut(graph, ["a", "b"]), make_cut(graph, ["a", "b", "c"])]
    table = build_cut_table(graph, cuts, edge=edge, cloud=cloud, exits={"a": 0.4})
    found = cost(table, {"uplink_bps": np.array([8000.0]), "downlink_bps": np.array([1e9]), "rtt_s": np.array([0.1])})
    np.testing.assert_allclose(found.edge_s[0], [0.0, 0.3 + 0.01, 0.6 + 0.01])
    np.testing.assert_allclose(found.rtt_s[0], [0.1, 0.06, 0.0])
    np.testing.assert_allclose(found.uplink_s[0], [2.0, 0.6 * 4.0, 0.0])
    np.testing.assert_allclose(found.cloud_s[0], [0.06 + 0.01, 0.6 * (0.03 + 0.01), 0.0])


def test_the_edge_holds_its_weights_and_the_largest_activations_alive_at_once(table):
    assert table.edge_bytes.tolist() == [2000, 10 + 6000, 30 + 8000, 60 + 8000]


def test_a_profile_of_another_model_is_refused_by_layer_name(graph):
    edge = profile({"a": 0.1, "b": 0.2, "z": 0.3})
    with pytest.raises(BadInput, match=r"no time for layer c.*\n.*lacks: z"):
        build_cut_table(graph, [make_cut(graph, [])], edge=edge, cloud=edge)


def test_misspelt_conditions_are_refused(table):
    with pytest.raises(BadInput, match=r"unknown \['uplink'\], missing \['uplink_bps'\]"):
        cost(table, {"uplink": np.array([1.0]), "downlink_bps": np.array([1.0]), "rtt_s": np.array([0.0])})


def test_columns_of_a_table_can_be_picked(table):
    part = table.only(np.array([False, True, False, True]))
    assert part.cuts == (table.cuts[1], table.cuts[3])
    assert part.up_bytes.tolist() == [4000, 0]
    assert table.index("all-edge") == 3
    with pytest.raises(BadInput, match="not in the table"):
        part.index("all-cloud")
