"""Profiles from events and from prefixes give back the times that a model was made of, and say when they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import LoadPoint
from edge_deploy.core.tensor import TensorInfo
from partitioner.profiles.events import Subject, profile_from_events, tells_layers_apart
from partitioner.profiles.isotonic import isotonic_means
from partitioner.profiles.layer_names import under_layer_names
from partitioner.profiles.prefixes import TimedPrefix, choose_prefixes, profile_from_prefixes
from partitioner.profiles.slowdown import fit_slowdown, with_slowdowns

SUBJECT = Subject(artifact="net", sha256="", device="host", kernels="none")


def chain(ops: list[str], macs: list[int] | None = None) -> LayerGraph:
    before, layers = "x", []
    for number, op in enumerate(ops):
        output = TensorInfo(name=f"t{number}", shape=(1, 4), dtype="float32")
        work = macs[number] if macs else 1000
        layers.append(Layer(name=f"l{number}", op=op, inputs=(before,), outputs=(output,), macs=work))
        before = output.name
    return LayerGraph(
        inputs=(TensorInfo(name="x", shape=(1, 4), dtype="float32"),), outputs=(before,), layers=tuple(layers)
    )


def test_events_and_the_call_around_them_add_up() -> None:
    graph = chain(["CONV_2D"] * 3)
    events = {"l0": 1e-3, "Convert (NC) #1": 2e-4, "l1": 3e-3, "l2": 0.0}
    profile = profile_from_events(graph, events, [4.23e-3, 4.2e-3, 9.0e-3], SUBJECT)
    assert profile.layer_s == {"l0": 1e-3, "l1": 3e-3, "l2": 0.0}
    assert profile.whole_s == 4.23e-3
    assert profile.overhead_s == pytest.approx(2.3e-4)
    assert profile.adds_up


@pytest.mark.parametrize(("whole", "word"), [(2e-3, "less"), (5e-4, "more")])
def test_time_that_no_layer_and_no_call_explains_is_said_and_not_hidden_in_the_overhead(
    whole: float, word: str
) -> None:
    profile = profile_from_events(chain(["CONV_2D"]), {"l0": 1e-3}, [whole], SUBJECT)
    assert not profile.adds_up
    assert any(word in note and "does not add up" in note for note in profile.notes)


def test_a_delegate_that_is_one_event_tells_no_layers_apart() -> None:
    graph = chain(["CONV_2D"] * 4)
    assert not tells_layers_apart(graph, {"XnnpackDelegate": 1.0})
    assert not tells_layers_apart(graph, {"l0": 1.0})
    assert tells_layers_apart(graph, {f"l{number}": 1.0 for number in range(4)})


def test_events_between_named_ones_go_to_the_layers_that_lie_there() -> None:
    graph = chain(["aten.permute", "aten.conv2d", "aten.add.Tensor", "aten.relu", "aten.linear", "aten.softmax.int"])
    events = {
        "Convert (NC) #1": 1.0,
        "Transpose (ND, X8) #1": 2.0,
        "l1": 3.0,
        "Add (ND) #1": 4.0,
        "Clamp (NC) #1": 5.0,
        "l4": 6.0,
        "Softmax (NC, F32) #1": 7.0,
        "Strange #1": 8.0,
    }
    assert under_layer_names(graph, events) == {"l0": 3.0, "l1": 3.0, "l2": 4.0, "l3": 5.0, "l4": 6.0, "l5": 15.0}


def test_events_with_no_layer_between_keep_their_names() -> None:
    graph = chain(["aten.conv2d", "aten.conv2d"])
    assert under_layer_names(graph, {"l0": 1.0, "Copy #1": 2.0, "l1": 3.0}) == {"l0": 1.0, "Copy #1": 2.0, "l1": 3.0}


@given(st.lists(st.integers(1, 50), min_size=2, max_size=10), st.integers(0, 20), st.data())
def test_prefixes_without_noise_give_back_layers_and_overhead(times: list[int], overhead: int, data) -> None:
    graph = chain(["CONV_2D"] * len(times))
    ends = np.cumsum(times)
    prefixes = [
        TimedPrefix(
            layers=count,
            seconds=(float(ends[count - 1] + overhead),),
            rest_s=(float(ends[-1] - ends[count - 1] + overhead),),
        )
        for count in range(1, len(times))
    ]
    profile = profile_from_prefixes(graph, data.draw(st.permutations(prefixes)), [float(ends[-1] + overhead)], SUBJECT)
    assert list(profile.layer_s.values()) == pytest.approx(times)
    assert profile.overhead_s == pytest.approx(overhead)
    assert profile.adds_up


def test_layers_timed_together_share_by_work_and_the_profile_says_so() -> None:
    graph = chain(["CONV_2D"] * 4, macs=[1000, 3000, 1000, 1000])
    profile = profile_from_prefixes(graph, [TimedPrefix(layers=2, seconds=(4.0,))], [6.0], SUBJECT)
    assert sum(profile.layer_s.values()) == pytest.approx(6.0)
    assert profile.layer_s["l1"] > 2.5 * profile.layer_s["l0"]
    assert any("4 of 4 layers were timed together" in note for note in profile.notes)


def test_noise_never_gives_a_layer_negative_time() -> None:
    graph = chain(["CONV_2D"] * 3)
    prefixes = [TimedPrefix(layers=1, seconds=(2.0,)), TimedPrefix(layers=2, seconds=(1.0,))]
    profile = profile_from_prefixes(graph, prefixes, [3.0], SUBJECT)
    assert min(profile.layer_s.values()) >= 0
    assert profile.sum_s == pytest.approx(3.0)


def test_prefixes_that_took_longer_than_the_whole_do_not_add_up_and_the_profile_says_so() -> None:
    prefixes = [TimedPrefix(layers=count, seconds=(9.0,)) for count in (1, 2)]
    profile = profile_from_prefixes(chain(["CONV_2D"] * 3), prefixes, [6.0], SUBJECT)
    assert not profile.adds_up
    assert any("does not add up: layers and overhead are 33% more" in note for note in profile.notes)


def test_prefixes_that_the_graph_does_not_have_are_refused() -> None:
    with pytest.raises(BadInput, match="needs prefixes of 1 to 2 layers"):
        profile_from_prefixes(chain(["A"] * 3), [TimedPrefix(layers=3, seconds=(1.0,))], [1.0], SUBJECT)


def test_chosen_prefixes_are_legal_few_and_spread_over_the_work() -> None:
    graph = chain(["A"] * 100)
    legal = [count for count in range(100) if count % 3]
    chosen = choose_prefixes(graph, legal, 8)
    assert set(chosen) <= set(legal)
    assert len(chosen) == 8
    assert max(np.diff([0, *chosen, 100])) <= 20
    assert choose_prefixes(chain(["A"] * 4), [0, 1, 3, 4], 8) == (1, 3)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30))
def test_isotonic_means_grow_keep_the_sum_and_are_nearest(values: list[float]) -> None:
    fitted = isotonic_means(values)
    assert (np.diff(fitted) >= -1e-9).all()
    assert fitted.sum() == pytest.approx(sum(values), abs=1e-6)
    # The projection on a convex cone: no non-decreasing sequence is nearer, not the sorted one nor a constant.
    distance = ((fitted - values) ** 2).sum()
    for other in (np.sort(values), np.full(len(values), np.mean(values))):
        assert distance <= ((other - np.array(values)) ** 2).sum() + 1e-6


def load_points(what: str, factors: dict[float, list[float]]) -> list[LoadPoint]:
    return [
        LoadPoint(what=what, at=at, round=number, seconds=2.0 * factor, idle_s=2.0)  # type: ignore[arg-type]
        for at, each in factors.items()
        for number, factor in enumerate(each)
    ]


def test_a_slowdown_is_the_median_of_its_rounds_grows_and_is_one_when_idle() -> None:
    points = load_points("cpu", {1.0: [2.0, 2.2, 9.0], 0.25: [0.9, 0.8, 1.0], 0.5: [1.6], 0.75: [1.4]})
    curve = fit_slowdown(points, "cpu")
    assert curve.at == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert curve.factor == pytest.approx((1.0, 1.0, 1.5, 1.5, 2.2))
    assert fit_slowdown(points, "memory").at == (0.0,)
    assert not fit_slowdown(points[:3], "cpu").covers(1.01)


def test_a_profile_under_load_keeps_its_points_and_says_where_busy_cores_differ() -> None:
    idle = profile_from_events(chain(["CONV_2D"]), {"l0": 1e-3}, [1e-3], SUBJECT)
    points = load_points("cpu", {0.5: [1.5], 1.0: [2.0]}) + load_points("cores", {0.5: [1.05]})
    loaded = with_slowdowns(idle, points, notes=("load by hand",))
    assert loaded.cpu(0.75) == pytest.approx(1.75)
    assert loaded.load_points == tuple(points)
    assert loaded.layer_s == idle.layer_s
    assert any("50% of the cores fully busy slow down 1.05-fold" in note for note in loaded.notes)
    assert "load by hand" in loaded.notes
