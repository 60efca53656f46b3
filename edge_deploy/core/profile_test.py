import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.profile import ModelProfile, Slowdown
from edge_deploy.core.serde import from_json, to_json


def profile(**changes) -> ModelProfile:
    given = {"artifact": "net", "sha256": "", "device": "board", "kernels": "litert", "provenance": "measured"}
    given |= {"source": "runtime profiler", "layer_s": {"a": 0.6, "b": 0.3}, "overhead_s": 0.05, "whole_s": 1.0}
    return ModelProfile(**given | changes)


def test_a_profile_says_whether_it_adds_up():
    assert profile().adds_up
    assert not profile(whole_s=1.2).adds_up


def test_slowdown_is_linear_between_knots_and_flags_what_lies_outside():
    slowdown = Slowdown(at=(0.0, 0.5), factor=(1.0, 3.0))
    assert slowdown(0.25) == 2.0
    assert slowdown(0.9) == 3.0
    assert list(slowdown.covers([0.0, 0.5, 0.51])) == [True, True, False]


def test_a_profile_survives_json():
    given = profile(cpu=Slowdown(at=(0.0, 1.0), factor=(1.0, 2.5)))
    assert from_json(ModelProfile, to_json(given)) == given


@pytest.mark.parametrize("changes", [{"overhead_s": -1.0}, {"layer_s": {"a": float("nan")}}])
def test_durations_must_be_durations(changes):
    with pytest.raises(BadInput, match="negative or not finite"):
        profile(**changes)
