import numpy as np
import pytest

from edge_deploy.core import registry
from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from edge_deploy.core.errors import BadInput
from partitioner.traces.fill import GENERATORS
from partitioner.traces.generate import generate, generator_parameters
from partitioner.traces.merge import merge
from partitioner.traces.recorded import Recorded


@pytest.mark.parametrize("name", registry.names(GENERATORS))
def test_every_generator_is_seeded_and_makes_what_it_says(name):
    text = "markov-link" if name == "markov-link" else f"markov-link+{name}"
    one, same, other = (generate(text, seed=seed, seconds=300) for seed in (7, 7, 8))
    fields = registry.load(GENERATORS, name).FIELDS
    for field in fields:
        np.testing.assert_array_equal(one.values[field], same.values[field])
        assert field not in one.filled
    assert any((one.values[field] != other.values[field]).any() for field in fields)


def test_a_link_has_the_rates_that_were_asked_for():
    trace = generate("markov-link:low_mbit_s=2,high_mbit_s=8,scatter=0", seed=0, seconds=5000)
    assert trace.values["uplink_bps"].min() == pytest.approx(2e6)
    assert trace.values["uplink_bps"].max() == pytest.approx(8e6)


def test_outages_take_the_share_of_time_that_was_asked_for():
    trace = generate("markov-link+outages:up_s=60,down_s=20", seed=0, seconds=200_000)
    assert (trace.values["uplink_bps"] == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert ((trace.values["uplink_bps"] == 0) == (trace.values["downlink_bps"] == 0)).all()


def test_slow_links_answer_late():
    trace = generate("markov-link+rtt-process", seed=0, seconds=20_000)
    slow = trace.values["uplink_bps"] < np.median(trace.values["uplink_bps"])
    assert trace.values["rtt_s"][slow].mean() > trace.values["rtt_s"][~slow].mean()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("markov", "did you mean markov-link?"),
        ("markov-link:dwel_s=3", "did you mean dwell_s?"),
        ("markov-link:dwell_s=long", "must be PARAMETER=NUMBER"),
        ("markov-link:dwell_s=-1", "must be finite and not negative"),
        ("markov-link:low_mbit_s=0", "out of range"),
        ("outages", "interrupt a link"),
        ("bursts", "tells nothing about the link"),
    ],
)
def test_wrong_generators_are_refused(text, message):
    with pytest.raises(BadInput, match="(?s)" + message.replace("?", "[?]")):
        generate(text, seed=0, seconds=10)


@pytest.mark.parametrize(("seconds", "step_s"), [(0, 1), (-5, 1), (10, 0), (10, 20), (float("inf"), 1), (1e12, 1)])
def test_durations_must_make_sense(seconds, step_s):
    with pytest.raises(BadInput, match="must be positive"):
        generate("markov-link", seed=0, seconds=seconds, step_s=step_s)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        ({"uplink": "20 Mbit/s"}, "tells it already"),
        ({"rtt": "fast"}, "must be a duration"),
        ({"loss": "2"}, "between 0 and 1"),
        ({"loss": "much"}, "must be a share"),
        ({"edge_load": "outages"}, "makes uplink_bps, downlink_bps only"),
        ({"weather": "1"}, "unknown field"),
    ],
)
def test_wrong_fills_are_refused(fill, message):
    with pytest.raises(BadInput, match=message):
        generate("markov-link", seed=0, seconds=10, fill=fill)


def test_parameters_are_listed_with_their_defaults():
    assert generator_parameters()["outages"] == {"up_s": 120.0, "down_s": 5.0}


def test_a_load_is_put_on_a_link_and_starts_again_where_it_is_shorter():
    link = generate("markov-link", seed=0, seconds=10, fill={"edge_memory": "0.3"})
    load = Recorded(time_s=np.array([0.0, 1.5]), end_s=4.0, values={"edge_load": np.array([0.2, 0.8])}, source="load")
    both = merge(link, load)
    assert isinstance(both, Trace)
    assert both.end_s == 10
    for now in np.arange(0, 10, 0.25):
        expected = 0.2 if now % 4 < 1.5 else 0.8
        assert both.at(now).edge_load == expected
        assert both.at(now).uplink_bps == link.at(now).uplink_bps
    assert both.filled["edge_load"] == "load, 3 times over"
    assert both.at(5).edge_memory == 0.3
    assert set(both.values) == set(CONDITION_FIELDS)


def test_merging_what_tells_no_load_is_refused():
    link = generate("markov-link", seed=0, seconds=10)
    with pytest.raises(BadInput, match="tells none of"):
        merge(link, link)
