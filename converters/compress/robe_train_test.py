"""A DLRM whose tables share one array is described, trained, kept and loaded like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from converters.compress.batches import ArrayBatches  # noqa: E402
from converters.compress.train import TrainPlan, train  # noqa: E402
from edge_deploy.core.errors import BadInput  # noqa: E402
from edge_deploy.core.robe import make_hash  # noqa: E402
from edge_deploy.core.serde import write_json  # noqa: E402
from edge_deploy.zoo.dlrm import DlrmConfig, build, read_config  # noqa: E402

ROWS = (300, 50, 7)


def config() -> DlrmConfig:
    return DlrmConfig(
        dense_features=2,
        table_rows=ROWS,
        dim=8,
        bottom=(8,),
        top=(16,),
        bags=True,
        robe=make_hash(size=300, dim=8, block=4),
    )


def clicks(rows: int, seed: int) -> ArrayBatches:
    """Clicks that a weight for each id explains."""
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, count, rows) for count in ROWS], axis=1)
    planted = np.random.default_rng(0)
    logit = sum(planted.standard_normal(count)[ids[:, k]] for k, count in enumerate(ROWS)) * 2
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    dense = rng.standard_normal((rows, 2)).astype(np.float32)
    return ArrayBatches(dense=dense, ids=ids, labels=labels, batch=64, shuffle=seed == 1)


def test_it_learns_and_its_checkpoint_fits_what_its_description_builds(tmp_path: Path) -> None:
    module = build(config())
    done = train(module, clicks(6000, 1), clicks(1000, 2), TrainPlan(epochs=4, rate=0.1))
    assert done.validation_auc > 0.75
    assert len({id(table.array) for table in module.tables}) == 1
    write_json(config(), tmp_path / "config.json")
    again = build(read_config(tmp_path / "config.json"))
    again.load_state_dict(module.state_dict())
    dense, ids, _ = next(iter(clicks(64, 3).epoch(0)))
    with torch.no_grad():
        assert torch.equal(again.eval()(dense, ids), module(dense, ids))


def test_a_hash_for_other_rows_is_refused() -> None:
    with pytest.raises(BadInput, match="rows of 16"):
        DlrmConfig(dense_features=2, table_rows=ROWS, dim=8, robe=make_hash(size=300, dim=16, block=4))
