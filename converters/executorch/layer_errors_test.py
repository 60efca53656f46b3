"""The error of every layer of an ExecuTorch artifact: of which layers, how large, and where it cannot be had."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("executorch")

from converters.contracts import LowerRequest
from converters.executorch.layer_errors import OutputErrors, weight_error
from converters.targets.executorch import layer_errors
from edge_deploy.core.layer_errors import IDENTICAL_DB
from edge_deploy.core.quant_spec import spec_for_recipe

pytestmark = pytest.mark.slow


def request_of(conversion, recipe, **changes):
    net = conversion.net
    spec = spec_for_recipe(recipe, **changes)
    return LowerRequest(captured=net.captured, spec=spec, folder=conversion.folder, calibration=net.calibration)


def errors_of(conversion, recipe, **changes):
    return {error.layer: error for error in layer_errors(request_of(conversion, recipe, **changes)).layers}


@pytest.mark.parametrize(
    ("name", "recipe", "changes"),
    [("residual", "int8", {}), ("residual", "int4", {}), ("odd", "int4", {}), ("mixed", "int8", {"io": "int8"})],
)
def test_every_outcome_has_the_errors_of_its_output_and_weights(convert, name, recipe, changes):
    conversion = convert(name, recipe, **changes)
    errors = errors_of(conversion, recipe, **changes)
    for outcome in conversion.lowered.outcomes:
        error = errors[outcome.layer]
        assert 10 < error.snr_db < 70
        assert error.weight_snr_db > (40 if recipe == "int8" else 15)
        assert sum(error.weights.float_counts) == sum(error.weights.quantized_counts) > 0


def test_four_bits_are_further_from_the_float_weights_than_eight(convert):
    wide, narrow = (errors_of(convert("residual", recipe), recipe) for recipe in ("int8", "int4"))
    assert all(wide[name].weight_snr_db > narrow[name].weight_snr_db + 15 for name in ("stem", "project", "head"))
    assert len(set(np.nonzero(narrow["head"].weights.quantized_counts)[0])) > 1


def test_the_last_layers_error_is_that_of_the_program_that_runs(convert, snr):
    """What is simulated is what the runtime computes, up to its rounding."""
    conversion = convert("residual", "int8")
    simulated = errors_of(conversion, "int8")["head"].snr_db
    assert abs(simulated - snr(conversion.net.reference[:16], conversion.outputs()[:16])) < 2


def test_layers_without_weights_are_told_too(convert):
    errors = errors_of(convert("residual", "int8"), "int8")
    assert errors["add"].snr_db > 20
    assert errors["add"].weights is None


def test_several_batch_sizes_are_compared(convert):
    conversion = convert("residual", "int8", (1, 4))
    assert errors_of(conversion, "int8")["head"].snr_db > 20


def test_without_samples_weights_are_compared(convert):
    conversion = convert("residual", "int8")
    found = layer_errors(dataclasses.replace(request_of(conversion, "int8"), calibration=None))
    assert found.method == "weights"
    assert [error.layer for error in found.layers] == [outcome.layer for outcome in conversion.lowered.outcomes]
    assert all(error.snr_db is None and error.weight_snr_db > 40 for error in found.layers)


def test_what_cannot_be_compared_ends_in_a_reason(convert, tmp_path):
    request = request_of(convert("residual", "int8"), "int8")
    missing = layer_errors(dataclasses.replace(request, folder=tmp_path))
    assert missing.layers == () and "quantized.pt2" in missing.method
    np.savez(tmp_path / "other.npz", x=np.zeros((4, 7, 7, 7), np.float32))
    strange = layer_errors(dataclasses.replace(request, calibration=tmp_path / "other.npz"))
    assert "outputs could not be compared" in strange.method
    assert strange.layers[0].weight_snr_db > 40


def test_outputs_of_other_shapes_and_infinite_ones_do_not_count():
    errors = OutputErrors()
    want = {"a": np.ones((1, 4)), "b": np.ones((1, 4)), "c": np.array([[np.inf]]), "d": np.array([[3.0, 0.0]])}
    got = {"a": np.ones((1, 4)), "b": np.ones((1, 9)), "c": np.array([[1.0]]), "d": np.array([[3.3, 0.0, 0.0]])}
    errors.compare(iter([(1, want, got), (1, want, got)]))
    assert errors.samples == 2
    assert errors.snr_db() == {"a": IDENTICAL_DB, "d": pytest.approx(20.0)}


def test_weights_of_other_shapes_are_not_compared():
    assert weight_error(np.ones((3, 4)), np.ones((3, 6))) is None
    assert weight_error(np.ones((3, 5)), np.pad(np.ones((3, 5)), ((0, 0), (0, 1))))[0] == IDENTICAL_DB
