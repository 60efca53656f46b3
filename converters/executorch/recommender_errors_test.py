"""The errors of tables and linears of a recommender on ExecuTorch."""

import numpy as np
import pytest

pytest.importorskip("executorch")

from converters.contracts import Captured, LowerRequest
from converters.executorch import recommender_errors
from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table, save
from converters.targets.executorch import layer_errors, lower
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

ROWS = (40, 9, 25)
DIMS = (6, 6, 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two tables of one width, one of an odd width, looked up twice; conversions by recipe and scale."""
    folder = tmp_path_factory.mktemp("recommender")
    generator = np.random.default_rng(0)
    names = ("users", "items", "tags")
    tables = tuple(
        Table(name=name, rows=rows, dim=dim, weight=name) for name, rows, dim in zip(names, ROWS, DIMS, strict=True)
    )
    # Scales that differ much: one that was taken from the wrong table would show.
    arrays = {
        table.name: generator.normal(0, 10.0**-index, (table.rows, table.dim)) for index, table in enumerate(tables)
    }
    layers = []
    for number, (inputs, outputs) in enumerate(((6 + 6 + 5 + 5 + 3, 16), (16, 7), (7, 1))):
        arrays[f"w{number}"] = generator.normal(0, inputs**-0.5, (outputs, inputs))
        last = "none" if number == 2 else "relu"
        layers.append(
            Dense(name=f"top.{number}", weight=f"w{number}", in_features=inputs, out_features=outputs, activation=last)
        )
    inputs = (
        TensorInfo(name="numbers", shape=(-1, 3), dtype="float32"),
        TensorInfo(name="ids", shape=(-1, 4), dtype="int64"),
    )
    model = Recommender(
        inputs=inputs,
        output=TensorInfo(name="logit", shape=(-1, 1), dtype="float32", meaning="logit"),
        tables=tables,
        lookups=tuple(Lookup(table=table, input="ids", column=column) for column, table in enumerate((2, 0, 1, 2))),
        interaction=Interaction(
            kind="concat", top_inputs=("lookup:0", "dense:numbers", "lookup:1", "lookup:2", "lookup:3")
        ),
        top=tuple(layers),
    )
    save(model, arrays, folder / "recommender")
    ids = np.stack([generator.integers(0, ROWS[table], 20) for table in (2, 0, 1, 2)], axis=1)
    np.savez(folder / "samples.npz", numbers=generator.normal(size=(20, 3)).astype(np.float32), ids=ids)
    captured = Captured(
        name="model",
        framework="torch",
        kind="recommender",
        folder=folder,
        inputs=model.inputs,
        outputs=(model.output,),
        recommender=folder / "recommender",
    )
    found = {}

    def of(recipe, **changes):
        key = (recipe, *changes.items())
        if key not in found:
            out = folder / f"out-{len(found)}"
            out.mkdir()
            spec = spec_for_recipe(recipe, **changes)
            found[key] = LowerRequest(captured=captured, spec=spec, folder=out, calibration=folder / "samples.npz")
            lower(found[key])
        return found[key]

    return of


def errors_of(request):
    return {error.layer: error for error in layer_errors(request).layers}


@pytest.mark.parametrize(
    ("recipe", "changes", "low", "high"),
    [("int8", {}, 40, 60), ("int4", {}, 15, 35), ("int4", {"table_scale": "table"}, 10, 30)],
)
def test_tables_are_as_near_to_their_source_as_their_bits_allow(made, recipe, changes, low, high):
    errors = errors_of(made(recipe, **changes))
    for name, rows, dim in zip(("users", "items", "tags"), ROWS, DIMS, strict=True):
        assert low < errors[name].weight_snr_db < high
        assert sum(errors[name].weights.float_counts) == rows * dim


def test_linears_are_compared_by_weights_and_outputs(made):
    errors = errors_of(made("int8"))
    assert list(errors) == ["users", "items", "tags", "top.0", "top.1", "top.2"]
    for name in ("top.0", "top.1", "top.2"):
        assert errors[name].weight_snr_db > 35
        assert errors[name].snr_db > 25
    assert errors_of(made("int4", mlp_bits=4))["top.1"].weight_snr_db < errors["top.1"].weight_snr_db - 15


def test_of_a_large_table_evenly_spaced_rows_are_compared(made, monkeypatch):
    monkeypatch.setattr(recommender_errors, "LARGEST_WEIGHT", 60)
    errors = errors_of(made("int4", table_scale="table"))
    assert sum(errors["users"].weights.float_counts) == 40 // 4 * 6
    assert 10 < errors["users"].weight_snr_db < 30


def test_without_samples_tables_and_linears_have_the_errors_of_their_weights(made):
    import dataclasses

    found = layer_errors(dataclasses.replace(made("int8"), calibration=None))
    assert found.method == "weights"
    assert len(found.layers) == 6
    assert all(error.snr_db is None and error.weight_snr_db > 35 for error in found.layers)
