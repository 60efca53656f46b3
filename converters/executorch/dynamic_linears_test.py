"""Programs with tables that are no recommender of ours: quantized rows, linears that quantize on the fly."""

from __future__ import annotations

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.executorch.embeddings import NEEDS_KERNELS
from converters.targets.executorch import lower
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo
from runtimes.backends.executorch import open_session

IDS = np.random.default_rng(0).integers(0, (300, 200), (64, 2))


@pytest.fixture(scope="module")
def factorisation(tmp_path_factory):
    """A product of two look-ups beside an MLP over two others (NeuMF), captured; and its scores."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.users, self.items = nn.Embedding(300, 8), nn.Embedding(200, 8)
            self.deep_users, self.deep_items = nn.Embedding(300, 16), nn.Embedding(200, 16)
            self.hidden, self.last = nn.Linear(32, 15), nn.Linear(23, 1)

        def forward(self, ids):
            user, item = ids[:, 0], ids[:, 1]
            deep = torch.relu(self.hidden(torch.cat([self.deep_users(user), self.deep_items(item)], 1)))
            return self.last(torch.cat([self.users(user) * self.items(item), deep], 1))

    torch.manual_seed(0)
    net, folder = Net().eval(), tmp_path_factory.mktemp("factorisation")
    program = folder / "program.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros((1, 2), dtype=torch.int64),)), program)
    captured = Captured(
        name="factorisation",
        framework="torch",
        kind="recommender",
        folder=folder,
        inputs=(TensorInfo(name="ids", shape=(1, 2), dtype="int64"),),
        outputs=(TensorInfo(name="score", shape=(1, 1), dtype="float32"),),
        batches=(1,),
        program=program,
    )
    with torch.no_grad():
        return captured, net(torch.from_numpy(IDS)).numpy()


@pytest.mark.parametrize(("recipe", "least_db"), [("int8", 35.0), ("int4", 15.0)])
def test_products_of_look_ups_keep_their_precision_without_calibration(factorisation, tmp_path, snr, recipe, least_db):
    captured, wanted = factorisation
    lowered = lower(LowerRequest(captured=captured, spec=spec_for_recipe(recipe), folder=tmp_path, calibration=None))
    session = open_session(tmp_path / "model.pte", signature=lowered.signatures[0], threads=1)
    scores = np.concatenate([session.run({"ids": row[None]})["score"] for row in IDS])
    session.close()
    assert snr(wanted, scores) > least_db
    by_layer = {outcome.layer: outcome for outcome in lowered.outcomes}
    assert by_layer["hidden"].got == by_layer["last"].got == "int8, dynamic int8 activations"
    assert (by_layer["users"].got, by_layer["users"].runs_on) == (recipe, "quantized kernels")
    assert lowered.warnings == (NEEDS_KERNELS,)


def test_microcontrollers_have_no_kernels_for_quantized_tables(factorisation, tmp_path):
    spec = spec_for_recipe("int8", for_device="mcu")
    with pytest.raises(Unsupported, match="take --to tflite --for mcu"):
        lower(LowerRequest(captured=factorisation[0], spec=spec, folder=tmp_path, calibration=None))
