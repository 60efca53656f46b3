"""The eight configurations have the authors' sizes, build, and can be trained, in float and for INT4."""

import math

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.deep_rec_infra import MODELS, OtherConfig, build, shrunk

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", MODELS)
def test_a_small_copy_of_each_model_learns(name):
    config = shrunk(MODELS[name], rows=20, tables=6)
    model, generator = build(config), np.random.default_rng(0)
    count = len(config.table_rows) * config.lookups
    dense = torch.from_numpy(generator.normal(size=(64, max(1, config.dense_features))).astype(np.float32))
    ids = torch.from_numpy(generator.integers(0, min(config.table_rows), (64, count)))
    labels = ((ids % 2).float().mean(dim=1, keepdim=True) > 0.5).float()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        logits = model(dense, ids)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.expand_as(logits))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert logits.shape == (64, 2 if "multi" in name else 1)
    assert losses[-1] < 0.7 * losses[0]


def test_tables_are_as_large_as_published():
    gigabytes = {name: sum(config.table_rows) * config.dim * 4 / 1e9 for name, config in MODELS.items()}
    assert math.isclose(gigabytes["dlrm-rmc1"], 4.096)
    assert math.isclose(gigabytes["dlrm-rmc2"], 4.096)
    assert math.isclose(gigabytes["dlrm-rmc3"], 2.56)
    assert len(MODELS["din"].table_rows) == 253
    with pytest.raises(BadInput, match="3 tables"):
        OtherConfig(kind="ncf", table_rows=(1, 2, 3), dim=4, top=(4,))
