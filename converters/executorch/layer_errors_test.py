"""The error of every layer of an ExecuTorch artifact: of which layers, how large, and where it cannot be had."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("executorch")

from converters.contracts import Captured, LowerRequest
from converters.executorch.layer_errors import OutputErrors, weight_error
from converters.targets.executorch import layer_errors, lower
from edge_deploy.core.layer_errors import IDENTICAL_DB
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

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


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    """A generic program with a table of odd width, on ids."""
    import torch

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(50, 7)
            self.head = torch.nn.Linear(21, 4)

        def forward(self, ids):
            return self.head(self.words(ids).flatten(1))

    folder = tmp_path_factory.mktemp("tagger")
    torch.manual_seed(0)
    torch.export.save(torch.export.export(Tagger().eval(), (torch.zeros(1, 3, dtype=torch.int64),)), folder / "p.pt2")
    np.savez(folder / "samples.npz", ids=np.random.default_rng(0).integers(0, 50, (20, 3)))
    return Captured(
        name="tagger",
        framework="torch",
        kind="generic",
        folder=folder,
        inputs=(TensorInfo(name="ids", shape=(1, 3), dtype="int64", id_bounds=(50,)),),
        outputs=(TensorInfo(name="scores", shape=(1, 4), dtype="float32"),),
        program=folder / "p.pt2",
    )


@pytest.mark.parametrize(("recipe", "low", "high"), [("int8", 40, 60), ("int4", 15, 35)])
def test_tables_of_a_generic_program_are_compared_row_by_row(tagger, tmp_path, recipe, low, high):
    request = LowerRequest(
        captured=tagger,
        spec=spec_for_recipe(recipe, fallback_bits=8),
        folder=tmp_path,
        calibration=tagger.folder / "samples.npz",
    )
    names = [outcome.layer for outcome in lower(request).outcomes]
    errors = {error.layer: error for error in layer_errors(request).layers}
    assert set(names) <= set(errors)
    assert low < errors["words"].weight_snr_db < high
    assert low < errors["words"].snr_db < high
    assert sum(errors["words"].weights.float_counts) == 50 * 7
