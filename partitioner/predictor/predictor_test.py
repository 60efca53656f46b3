"""The predictor finds the coefficients that made the times, never pays for less work, and says what it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile
from edge_deploy.core.serde import read_json, write_json
from edge_deploy.core.tensor import TensorInfo
from partitioner.predictor.coefficients import Coefficients, estimate_profile, fit_profiles, predict
from partitioner.predictor.features import FEATURES, feature_row, graph_work, layer_class
from partitioner.predictor.nonnegative import nonnegative_least_squares
from partitioner.predictor.score import cut_regret, spearman


def net(seed: int, layers: int = 30) -> LayerGraph:
    generator = np.random.default_rng(seed)
    before = TensorInfo(name="x", shape=(1, 32, 32, 3), dtype="int8")
    first, made = before, []
    for number in range(layers):
        size, channels = int(generator.integers(4, 33)), int(generator.integers(8, 129))
        out = TensorInfo(name=f"t{number}", shape=(1, size, size, channels), dtype="int8")
        is_conv = number % 3 != 0
        reads = before.shape[-1]
        made.append(
            Layer(
                name=f"l{number}",
                op="CONV_2D" if is_conv else "ADD",
                inputs=(before.name,),
                outputs=(out,),
                weight_bytes=9 * reads * channels if is_conv else 0,
                macs=9 * reads * channels * size * size if is_conv else 0,
            )
        )
        before = out
    return LayerGraph(inputs=(first,), outputs=(before.name,), layers=tuple(made))


TRUE = {
    "conv": np.array([2e-6, 5e-6, 4e-5, 1e-5, 0.0, 1e-6, 1e-6]),
    "elementwise": np.array([1e-6, 0.0, 8e-5, 0.0, 0.0, 0.0, 0.0]),
}


def made_of_truth(graph: LayerGraph, name: str) -> ModelProfile:
    layer_s = {
        layer.name: float(feature_row(work) @ TRUE[work.name])
        for layer, work in zip(graph.layers, graph_work(graph), strict=True)
    }
    return ModelProfile(
        artifact=name,
        sha256="",
        device="truth",
        kernels="none",
        provenance="measured",
        source="by hand",
        layer_s=layer_s,
        overhead_s=1e-5,
        whole_s=sum(layer_s.values()) + 1e-5,
    )


@pytest.fixture(scope="module")
def fitted() -> Coefficients:
    return fit_profiles([(net(seed), made_of_truth(net(seed), f"net{seed}")) for seed in range(4)])


def test_times_that_follow_the_features_are_found_again_on_another_model(fitted: Coefficients) -> None:
    graph = net(99)
    truth = made_of_truth(graph, "new")
    guess = estimate_profile(fitted, graph, artifact="new")
    np.testing.assert_allclose(list(guess.layer_s.values()), list(truth.layer_s.values()), rtol=0.02)
    assert guess.overhead_s == pytest.approx(1e-5, rel=0.1)
    assert fitted.median_error < 0.01


def test_an_estimate_says_that_it_is_one_and_from_what(fitted: Coefficients) -> None:
    guess = estimate_profile(fitted, net(0), artifact="net0")
    assert guess.provenance == "estimated"
    assert "net1" in guess.source
    assert guess.device == "truth"
    assert any("measured profile" in note for note in guess.notes)


def test_a_class_that_was_never_measured_takes_the_pooled_coefficients_and_says_so(fitted: Coefficients) -> None:
    graph = net(5, layers=2)
    strange = dataclasses.replace(graph.layers[0], op="EMBEDDING_LOOKUP")
    guess = estimate_profile(fitted, dataclasses.replace(graph, layers=(strange, graph.layers[1])), artifact="new")
    assert guess.layer_s["l0"] > 0
    assert any("lookup" in note for note in guess.notes)


@given(st.integers(0, 5), st.floats(1.0, 10.0))
def test_more_work_never_takes_less_time(column: int, times: float) -> None:
    fit = fit_profiles([(net(seed), made_of_truth(net(seed), f"net{seed}")) for seed in range(2)])
    (work, *_) = (work for work in graph_work(net(7)) if work.kind == "conv")
    for name in ("macs", "moved_bytes", "weight_bytes"):
        more = dataclasses.replace(work, **{name: getattr(work, name) * times})
        assert predict(fit, [more])[0] >= predict(fit, [work])[0] - 1e-15


def test_coefficients_survive_a_file_and_wrong_ones_are_refused(fitted: Coefficients, tmp_path) -> None:
    write_json(fitted, tmp_path / "c.json")
    assert read_json(Coefficients, tmp_path / "c.json") == fitted
    with pytest.raises(BadInput, match="must be finite and not negative"):
        dataclasses.replace(fitted, classes={"any": (-1.0,) * len(FEATURES)})
    with pytest.raises(BadInput, match="class 'any' is missing"):
        dataclasses.replace(fitted, classes={})


def test_what_cannot_be_fitted_is_refused_all_at_once() -> None:
    graph = net(0)
    here = made_of_truth(graph, "a")
    there = dataclasses.replace(here, device="elsewhere", provenance="estimated", layer_s={})
    with pytest.raises(BadInput) as caught:
        fit_profiles([(graph, here), (graph, there)])
    text = str(caught.value)
    assert "different device (elsewhere, truth)" in text
    assert "is an estimate" in text
    assert "has no layer l0" in text
    with pytest.raises(BadInput, match="no profile given"):
        fit_profiles([])


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(6, 30))
def test_least_squares_is_optimal_under_the_sign(seed: int, columns: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    rows, values = generator.standard_normal((count, columns)), generator.standard_normal(count)
    found = nonnegative_least_squares(rows, values)
    assert (found >= 0).all()
    # Karush, Kuhn and Tucker: no coefficient wants to grow, and those above zero do not want to shrink either.
    pull = rows.T @ (values - rows @ found)
    assert (pull <= 1e-6).all()
    assert np.abs(pull[found > 0]).max(initial=0.0) <= 1e-6


@pytest.mark.parametrize(
    ("op", "macs", "expected"),
    [
        ("CONV_2D", 9 * 8 * 4 * 4 * 16, "conv"),
        ("DEPTHWISE_CONV_2D", 9 * 4 * 4 * 16, "depthwise"),
        ("aten.conv2d", 9 * 4 * 4 * 16, "depthwise"),
        ("FULLY_CONNECTED", 100, "dense"),
        ("aten.linear", 100, "dense"),
        ("aten.max_pool2d", 0, "pool"),
        ("EMBEDDING_LOOKUP", 0, "lookup"),
        ("aten.embedding_bag", 0, "lookup"),
        ("RESHAPE", 0, "move"),
        ("aten.add.Tensor", 0, "elementwise"),
        ("QUANTIZE", 0, "elementwise"),
        ("CUSTOM", 0, "other"),
    ],
)
def test_operators_of_both_formats_find_their_class(op: str, macs: int, expected: str) -> None:
    is_aten = op.startswith("aten.")
    read = TensorInfo(name="x", shape=(1, 8, 4, 4) if is_aten else (1, 4, 4, 8), dtype="int8")
    made = TensorInfo(name="y", shape=(1, 16, 4, 4) if is_aten else (1, 4, 4, 16), dtype="int8")
    layer = Layer(name="l", op=op, inputs=("x",), outputs=(made,), macs=macs)
    assert layer_class(layer, [read]) == expected


def test_rank_correlation_sees_order_and_nothing_else() -> None:
    values = np.array([3.0, 1.0, 2.0, 10.0])
    assert spearman(values, np.exp(values)) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(np.sqrt(0.75))
    assert np.isnan(spearman(np.ones(3), np.arange(3)))


def test_regret_is_what_the_wrong_cut_costs_and_none_for_the_right_one() -> None:
    edge, cloud = np.array([0.0, 2.0, 4.0]), np.array([1.0, 0.5, 0.0])
    wire = np.array([[10.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(cut_regret(edge, cloud, edge, cloud, wire), 0.0)
    np.testing.assert_allclose(cut_regret(edge, cloud, -edge, cloud, wire), [4.0 / 3.5 - 1, 3.0])
