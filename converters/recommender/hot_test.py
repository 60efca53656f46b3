"""Tables with hot rows go through both formats: hot rows wide, cold ones with few bits, all found where they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.quantize.row_ranges import widest_scales
from converters.quantize.uniform import quantize_symmetric
from converters.recommender.hot_rows import hot_bytes
from converters.recommender.model import Dense, HotRows, Interaction, Lookup, Recommender, Table, load, save
from converters.recommender.reference import run_reference
from converters.recommender.trained import BITS, SCALE, save_trained
from edge_deploy.core import registry
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

BACKENDS = {
    "tflite": ("litert", "model.tflite", "ai_edge_litert"),
    "executorch": ("executorch", "model.pte", "executorch"),
}
ROWS = {"big": (3000, 300), "small": (40, 1), "all": (5, 5), "other": (700, 70)}
BATCH = 64


def model_with(bits: int, hot_bits: int) -> tuple[Recommender, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Four tables, one of them hot as a whole, the others' cold rows exactly on the grid of their scales."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    scales: dict[str, np.ndarray] = {}
    tables = []
    for name, (rows, hot) in ROWS.items():
        weight = (rng.standard_normal((rows, 6)) * 10.0 ** rng.uniform(-1, 1, (rows, 1))).astype(np.float32)
        ids = np.sort(rng.choice(rows, hot, replace=False))
        own = widest_scales(weight, bits=bits, dtype=np.float16).astype(np.float32)
        grid = quantize_symmetric(weight, own, axis=0, bits=bits) * own[:, None]
        grid[ids] = weight[ids].astype(np.float16 if hot_bits == 16 else np.float32)
        arrays[f"{name} weight"], arrays[f"{name} hot"] = grid.astype(np.float32), ids
        scales |= {name + SCALE: own, name + BITS: np.array(bits)}
        hot_rows = HotRows(ids=f"{name} hot", count=hot, bits=hot_bits)
        tables.append(Table(name=name, rows=rows, dim=6, weight=f"{name} weight", hot=hot_rows))
    arrays["top weight"] = rng.standard_normal((1, 24)).astype(np.float32) / 50
    model = Recommender(
        inputs=(TensorInfo(name="ids", shape=(BATCH, 4), dtype="int64"),),
        output=TensorInfo(name="score", shape=(BATCH, 1), dtype="float32", meaning="logit"),
        tables=tuple(tables),
        lookups=tuple(Lookup(table=k, input="ids", column=k) for k in range(4)),
        interaction=Interaction(kind="concat", top_inputs=tuple(f"lookup:{k}" for k in range(4))),
        top=(Dense(name="top", weight="top weight", in_features=24, out_features=1),),
    )
    return model, arrays, scales


@pytest.mark.parametrize("target", ["tflite", "executorch"])
@pytest.mark.parametrize(("recipe", "bits", "hot_bits"), [("int4", 4, 16), ("int8", 8, 32)])
def test_every_row_is_read_from_where_it_stands(
    tmp_path: Path, target: str, recipe: str, bits: int, hot_bits: int
) -> None:
    backend, file, package = BACKENDS[target]
    pytest.importorskip(package)
    model, arrays, scales = model_with(bits, hot_bits)
    place = tmp_path / "recommender"
    save(model, arrays, place)
    save_trained(scales, model, place)
    (tmp_path / "out").mkdir()
    captured = Captured(
        name="hot",
        framework="torch",
        kind="recommender",
        folder=tmp_path,
        inputs=model.inputs,
        outputs=(model.output,),
        batches=(BATCH,),
        recommender=place,
    )
    spec = spec_for_recipe(recipe, mlp_bits=32, fallback_bits=32)
    lowered = registry.load("converters.targets", target).lower(
        LowerRequest(captured=captured, spec=spec, folder=tmp_path / "out")
    )
    session = registry.load("runtimes.backends", backend).open_model(
        tmp_path / "out" / file, data_files=(), known=lowered.signatures, signature=None, threads=1, kernels="default"
    )
    kept, held = load(place)
    rng = np.random.default_rng(1)
    for start in range(0, 3000, BATCH * 8):  # rows of the big table in stretches, others at random and outside
        ids = np.stack([rng.integers(-1, rows + 1, BATCH) for rows, _ in ROWS.values()], axis=1)
        ids[:, 0] = np.arange(start, start + BATCH)
        info = session.signature.inputs[0]
        got = session.run({info.name: ids.astype(info.dtype)})[session.signature.outputs[0].name]
        np.testing.assert_allclose(got, run_reference(kept, held, {"ids": ids}, batch=BATCH), rtol=1e-5, atol=1e-6)
    session.close()
    outcomes = {outcome.layer: outcome for outcome in lowered.outcomes}
    cold = ROWS["big"][0] - ROWS["big"][1]
    assert outcomes["big"].weight_bytes == cold * 6 * bits // 8
    scale_bytes = 4 if (target, bits) == ("tflite", 8) else 2
    assert outcomes["big"].beside_bytes == cold * scale_bytes + hot_bytes(kept.tables[0])
    assert f"300 hot rows stay float{hot_bits}" in outcomes["big"].reason
    assert "all of its rows are hot" in outcomes["all"].reason


def test_without_integers_there_is_nothing_hot() -> None:
    pytest.importorskip("ai_edge_litert")
    from converters.tflite.recommender_tables import plan_tables

    model, _, _ = model_with(4, 16)
    plan = plan_tables(model, spec_for_recipe("float32"), [1.0] * 4)
    assert [entry.hot_bits for entry in plan] == [0]
