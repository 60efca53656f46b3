"""The cause that is named: ranges of other data before anything else, then one layer, else all of them."""

import numpy as np
import pytest

from converters.debugger.cause import name_cause
from converters.debugger.contracts import Grid
from converters.debugger.experiments import in_scale_of
from converters.debugger.finding import LayerDiagnosis


def layer(name, share, *, kind="layer", clipped=0.0, values=(0.0, 1.0), stored=(0.0, 1.0)):
    return LayerDiagnosis(
        layer=name,
        op="CONV_2D",
        kind=kind,
        dtype="int8",
        own_snr_db=30.0,
        low=values[0],
        high=values[1],
        stored_low=stored[0],
        stored_high=stored[1],
        clipped=clipped,
        noise_share=share,
    )


def test_clipped_values_name_the_first_place_where_they_leave_the_range():
    found = name_cause(
        (
            layer("image", 0.5, kind="input", clipped=0.9, values=(0, 255)),
            layer("stem", 0.4, clipped=0.5),
            layer("head", 0.1),
        )
    )
    assert found.kind == "ranges"
    assert found.layers == ("image", "stem")
    assert "input image" in found.text and "0 to 1" in found.text and "255" in found.text


def test_a_few_clipped_values_that_cost_nothing_are_no_cause():
    found = name_cause((layer("stem", 0.05, clipped=0.02), layer("middle", 0.9), layer("head", 0.05)))
    assert (found.kind, found.layers) == ("layer", ("middle",))


def test_an_input_that_uses_few_steps_was_calibrated_on_larger_values():
    found = name_cause((layer("image", 0.9, kind="input", stored=(0, 255)), layer("stem", 0.1)))
    assert found.kind == "ranges"
    assert "1 of 256 steps" in found.text


def test_where_no_layer_stands_out_the_largest_three_are_told():
    found = name_cause(tuple(layer(name, 0.2) for name in "abcde"))
    assert found.kind == "spread"
    assert len(found.layers) == 3


def test_a_grid_rounds_clips_and_counts():
    grid = Grid.of(0.5, -128)  # 0 to 127.5
    values = np.array([-3.0, -0.2, 0.6, 200.0])
    assert grid.rounded(values).tolist() == [0.0, 0.0, 0.5, 127.5]
    assert grid.clipped(values) == 2


@pytest.mark.parametrize("axis", [1, 3])
def test_an_error_under_other_factors_of_channels_is_scaled_like_the_values(axis):
    rng = np.random.default_rng(0)
    have = np.maximum(rng.normal(size=(1, 4, 5, 4)), 0)
    factors = np.array([1.0, 3.0, 0.5, 7.0]).reshape([4 if i == axis else 1 for i in range(4)])
    error = rng.normal(size=have.shape) * 0.01
    assert np.allclose(in_scale_of(error, have, have * factors), error * factors)
    assert np.array_equal(in_scale_of(error, have, have), error)
    assert np.array_equal(in_scale_of(error, have, rng.normal(size=have.shape)), error)
