"""INT8 inputs and outputs where images are moved about before the first layer, as imported Keras nets do."""

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo, dequantize_output, encode_input
from runtimes.backends.executorch import open_session

torch = pytest.importorskip("torch")
pytest.importorskip("executorch")


class _ChannelsLast(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.dense = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 5)

    def forward(self, image):
        x = torch.relu(self.conv(image.permute(0, 3, 1, 2).contiguous()))
        return torch.softmax(self.dense(x.mean((2, 3))), 1)


def test_the_border_is_int8_behind_moves_and_a_coarse_probability_is_told(tmp_path):
    from converters.targets.executorch import lower

    torch.manual_seed(0)
    module = _ChannelsLast().eval()
    images = np.random.default_rng(0).random((16, 8, 8, 3), dtype=np.float32)
    torch.export.save(torch.export.export(module, (torch.from_numpy(images[:1]),)), tmp_path / "program.pt2")
    np.savez(tmp_path / "data.npz", image=images)
    captured = Captured(
        name="net",
        framework="torch",
        kind="cnn",
        folder=tmp_path,
        inputs=(TensorInfo(name="image", shape=(1, 8, 8, 3), dtype="float32"),),
        outputs=(TensorInfo(name="y", shape=(1, 5), dtype="float32", meaning="probability"),),
        program=tmp_path / "program.pt2",
    )
    folder = tmp_path / "out"
    folder.mkdir()
    spec = spec_for_recipe("int8", io="int8")
    lowered = lower(LowerRequest(captured=captured, spec=spec, folder=folder, calibration=tmp_path / "data.npz"))
    (signature,) = lowered.signatures
    (given,), (gotten,) = signature.inputs, signature.outputs
    assert (given.dtype, gotten.dtype) == ("int8", "int8") and given.scale and gotten.scale
    assert any("resolves only 1/256: y" in warning for warning in lowered.warnings)
    session = open_session(folder / "model.pte", signature=signature)
    with torch.no_grad():
        wanted = module(torch.from_numpy(images)).numpy()
    found = np.concatenate(
        [
            session.run({"image": encode_input(image[None], source=captured.inputs[0], target=given)})[gotten.name]
            for image in images
        ]
    )
    session.close()
    assert np.abs(dequantize_output(found, gotten) - wanted).max() < 4 * gotten.scale[0]
