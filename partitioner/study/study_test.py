import lzma

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from partitioner.study.findings import analyse
from partitioner.study.held_out import captured_by_key
from partitioner.study.sweep_table import make_sweep, read_sweeps

PUBLISHED = {  # model: conditions whose best cut moved, mean seconds of static and oracle
    "lenet": (178, 0.0151, 0.0121),
    "alexnet": (161, 0.391, 0.285),
    "mobilenet": (199, 0.465, 0.374),
    "vgg16": (113, 3.373, 2.487),
}


def synthetic(*, noise, structure, seed=0, conditions=5):
    """Two factors by `conditions` levels, and three cuts; with structure the best cut follows the network."""
    rng = np.random.default_rng(seed)
    rows = {}
    for network in np.linspace(10, 50, conditions):
        for stress in np.linspace(0, 100, conditions):
            base = {"1": 1.0, "2": 1.0, "3": 1.0}
            if structure:
                base = {"1": 30 / network, "2": 1.0, "3": 0.02 * network + stress * 1e-4}
            cells = {}
            for cut, seconds in base.items():
                total = seconds * np.exp(noise * rng.standard_normal())
                cells[cut] = [(total, 0.3 * total, 0.2 * total)]
            rows[network, stress] = cells
    return make_sweep("synthetic", ("network_mbit_s", "edge_cpu_stress_pct"), rows)


@pytest.fixture(scope="module")
def published(data):
    return {sweep.name: analyse(sweep) for sweep in read_sweeps(data / "tables/adaptive_dnn_qub_dev")}


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_sweep_gives_the_known_figures(published, model):
    moved, static, oracle = PUBLISHED[model]
    found = published[model]
    assert (found.conditions, found.moved) == (243, moved)
    assert found.static_s == pytest.approx(static, abs=0.5 * 10 ** -(4 if static < 0.1 else 3))
    assert found.oracle_s == pytest.approx(oracle, abs=0.5 * 10 ** -(4 if oracle < 0.1 else 3))


def test_look_ups_scored_leave_one_out_capture_the_known_shares(published):
    known = {
        ("alexnet", 1): 0.05,
        ("lenet", 1): -0.11,
        ("mobilenet", 1): 0.09,
        ("alexnet", 3): -0.03,
        ("lenet", 3): -0.30,
        ("mobilenet", 3): 0.00,
    }
    net, cloud, edge = "network_mbit_s", "cloud_cpu_stress_pct", "edge_cpu_stress_pct"
    for (model, size), share in known.items():
        key = (net,) if size == 1 else (net, cloud, edge)
        found = next(each for each in published[model].captured if each.policy == "look-up" and each.key == key)
        assert found.share == pytest.approx(share, abs=0.006)


def test_held_out_scores_are_far_below_those_of_the_same_sample(published):
    for found in published.values():
        fine = [each for each in found.captured if each.policy == "look-up" and len(each.key) == 4]
        assert all(each.same_sample_share > 0.5 for each in fine)
        assert all(each.share < each.same_sample_share for each in fine)
    assert not published["lenet"].resolved
    assert published["vgg16"].resolved
    assert "not shown to pay" in published["lenet"].verdict


def test_edge_time_of_a_large_model_is_driven_by_the_edge_cpu_and_transfer_by_the_network(published):
    shares = {each.part: each.shares for each in published["vgg16"].variance}
    assert shares["edge"]["edge_cpu_stress_pct"] > 0.9
    assert shares["transfer"]["network_mbit_s"] > 0.9
    assert shares["cloud"]["cloud_cpu_stress_pct"] > 0.6


def test_pure_noise_has_an_oracle_gain_and_nothing_that_survives():
    for seed in range(5):
        found = analyse(synthetic(noise=0.2, structure=False, seed=seed, conditions=8))
        assert found.oracle_gain > 0.1
        assert found.chosen.share < 0.3
        assert found.chosen.gain < 0.05


def test_structure_without_noise_is_captured_whole_by_the_key_that_makes_it():
    found = analyse(synthetic(noise=0.0, structure=True))
    by_key = {each.key: each for each in found.captured if each.policy == "look-up"}
    assert by_key["network_mbit_s",].share == pytest.approx(1.0)
    assert by_key["edge_cpu_stress_pct",].share <= 0
    assert found.chosen.share == pytest.approx(1.0)
    assert found.resolved
    assert found.unstressed == {"network_mbit_s": 50.0, "edge_cpu_stress_pct": 0.0}


def test_main_effects_of_additive_logarithms_are_exact():
    rows = {
        (a, b): {"1": [(np.exp(3 * a + b), 1.0, 1.0)], "2": [(2 * np.exp(3 * a + b), 1.0, 1.0)]}
        for a in (0.0, 1.0)
        for b in (0.0, 1.0)
    }
    total = analyse(make_sweep("additive", ("a", "b"), rows)).variance[-1]
    assert total.shares["a"] == pytest.approx(0.9)
    assert total.shares["b"] == pytest.approx(0.1)
    assert total.single["a"] == pytest.approx(0.9)
    assert total.rest == pytest.approx(0.0)


def test_a_cut_that_is_not_measured_everywhere_is_no_static_cut():
    rows = {(float(n),): {"1": [(2.0, 1.0, 0.5)], "2": [(1.0, 0.5, 0.2)]} for n in range(5)}
    del rows[3.0,]["2"]
    found = analyse(make_sweep("gaps", ("stress",), rows))
    assert found.static_cut == "1"
    assert found.oracle_s == pytest.approx((4 * 1 + 2) / 5)


def test_without_a_common_cut_there_is_nothing_to_compare_with():
    rows = {(float(n),): {str(n): [(1.0, 0.5, 0.2)]} for n in range(5)}
    sweep = make_sweep("disjoint", ("stress",), rows)
    assert captured_by_key(sweep) == ()
    assert "no cut was measured under all conditions" in analyse(sweep).verdict


GOOD = "net_mbit,load,cut,total_ms,edge_ms,cloud_ms\n50,0,a,10,4,3\n50,0,b,12,4,3\n10,0,a,20,4,3\n10,0,b,15,4,3\n"


def test_other_names_units_and_repeats_are_read(tmp_path):
    (tmp_path / "net.csv.xz").write_bytes(lzma.compress((GOOD + "50,0,a,14,4,3\n").encode()))
    (sweep,) = read_sweeps(tmp_path)
    assert (sweep.name, sweep.cuts, sweep.factors, sweep.repeats) == ("net", ("a", "b"), ("net_mbit", "load"), 2)
    assert sweep.total_s[0, 0] == pytest.approx(0.012)


def test_a_column_of_models_parts_a_file(tmp_path):
    lines = GOOD.splitlines()
    text = "\n".join([f"model,{lines[0]}", *(f"{net},{line}" for net in ("one", "two") for line in lines[1:])])
    (tmp_path / "nets.csv").write_text(text)
    one, two = read_sweeps(tmp_path / "nets.csv")
    assert (one.name, two.name, one.factors) == ("one", "two", ("net_mbit", "load"))
    np.testing.assert_array_equal(one.total_s, two.total_s)


def test_files_as_they_were_published_are_read(tmp_path):
    folder = tmp_path / "outputs_tiny"
    folder.mkdir()
    (folder / "weights_00000.txt").write_text("0.4 0.1 0.2 1\n0.3 0.1 0.1 2\n")
    (folder / "weights_20001.txt").write_text("0.8, 0.1, 0.2, 1\n0.9, 0.1, 0.1, 2\n")
    (sweep,) = read_sweeps(tmp_path)
    assert sweep.name == "tiny"
    np.testing.assert_allclose(sweep.levels, [[50, 0, 0, 0, 0], [10, 0, 0, 0, 50]])
    np.testing.assert_allclose(sweep.total_s, [[0.4, 0.3], [0.8, 0.9]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("cut,", "place,"), "no column of the cut"),
        (GOOD.replace("total_ms", "whole"), "no column of the total time"),
        ("cut,total_s\n1,2\n", "no column of a factor"),
        (GOOD.replace("20,4,3", "many,4,3"), "line 4: total_ms = 'many' is not a number"),
        (GOOD.replace("20,4,3", "-20,4,3"), "line 4: total_ms = -20 is negative"),
        (GOOD.replace("20,4,3", "nan,4,3"), "line 4: total_ms = nan is not finite"),
        (GOOD.replace("20,4,3", "20,4"), "line 4: 5 cells, the header has 6"),
        (GOOD.splitlines()[0] + "\n", "holds no rows"),
    ],
)
def test_bad_sweeps_are_refused_with_their_line(tmp_path, text, message):
    (tmp_path / "net.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_sweeps(tmp_path / "net.csv")


def test_folders_without_a_sweep_and_missing_ones_are_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no sweep"):
        read_sweeps(tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        read_sweeps(tmp_path / "nowhere")
    (tmp_path / "weights_00300.txt").write_text("1 1 1 1\n")
    with pytest.raises(BadInput, match="five digits from 0 to 2"):
        read_sweeps(tmp_path / "weights_00300.txt")


def test_a_sweep_without_its_calm_condition_is_refused():
    rows = {(50.0, 100.0): {"1": [(1.0, 0.5, 0.2)]}, (10.0, 0.0): {"1": [(1.0, 0.5, 0.2)]}}
    with pytest.raises(BadInput, match="network_mbit_s 50, edge_cpu 0"):
        analyse(make_sweep("odd", ("network_mbit_s", "edge_cpu"), rows))
