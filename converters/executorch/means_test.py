"""Means over images do not inherit the coarse scale of their pixels."""

import numpy as np

from converters.executorch.calibration import Samples
from converters.executorch.program import export, name_layers
from converters.executorch.quantize import quantize
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo


def test_a_mean_of_values_of_both_signs_keeps_its_precision(snr, tmp_path):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(torch.flatten(self.features(x).mean((-1, -2), True), 1))

    torch.manual_seed(0)
    net, samples = Net().eval(), torch.randn(32, 3, 16, 16)
    info = TensorInfo(name="x", shape=(1, 3, 16, 16), dtype="float32")
    graph = export(net, (info,), (1,)).module(check_guards=False)
    name_layers(graph)
    np.savez(tmp_path / "c.npz", x=samples.numpy())
    calibration = Samples(path=tmp_path / "c.npz", inputs=(info,), batch=1)
    quantized = quantize(graph, {"features": "int8", "head": "int8"}, calibration, spec_for_recipe("int8"))
    with torch.no_grad():
        wanted = np.concatenate([net(*batch).numpy() for batch in calibration.batches()])
        found = np.concatenate([quantized(*batch).numpy() for batch in calibration.batches()])
    # The head's bias hides much of the error; what is left of the images is what counts.
    bias = net.head.bias.detach().numpy()
    assert snr(wanted - bias, found - bias) > 34
