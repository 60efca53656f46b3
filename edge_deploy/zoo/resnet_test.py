import subprocess
import sys
import tarfile

import numpy as np
import pytest

from edge_deploy.zoo.resnet import resnet20, resnet32, resnet44, resnet56

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_importing_the_zoo_does_not_import_torch():
    code = "import sys, edge_deploy.zoo.resnet, edge_deploy.zoo.small_cnn; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("factory", "depth"),
    [(resnet20, 20), (resnet32, 32), (resnet44, 44), (resnet56, 56)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_name_counts_the_weighted_layers(factory, depth):
    torch = pytest.importorskip("torch")
    layers = [m for m in factory().modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth


def test_parameter_count_is_the_papers():
    pytest.importorskip("torch")
    assert round(sum(p.numel() for p in resnet20().parameters()) / 1e6, 2) == 0.27  # table 6
    assert round(sum(p.numel() for p in resnet56().parameters()) / 1e6, 2) == 0.85


def test_option_a_shortcut_subsamples_and_pads_with_zeros():
    torch = pytest.importorskip("torch")
    block = resnet20().layer2[0]
    x = torch.arange(2 * 16 * 4 * 4, dtype=torch.float32).reshape(2, 16, 4, 4)
    y = block._shortcut(x)
    assert y.shape == (2, 32, 2, 2)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any() and not y[:, 24:].any()


def _ic01(data):
    folder = data / "eval" / "mlperf_tiny_ic01"
    labels = {line.split(",")[0]: int(line.split(",")[2]) for line in (folder / "y_labels.csv").read_text().split()}
    with tarfile.open(folder / "ic01.tar.gz") as tar:
        items = [(np.frombuffer(tar.extractfile(m).read(), np.uint8), labels[m.name]) for m in tar.getmembers()]
    images = np.stack([pixels.reshape(32, 32, 3) for pixels, _ in items]).astype(np.float32) / 255
    images = (images - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), np.array([label for _, label in items])


@pytest.mark.needs_data
@pytest.mark.parametrize(
    ("factory", "file"),
    [(resnet20, "resnet20-12fca82f.th"), (resnet44, "resnet44-014dd654.th")],
    ids=["resnet20", "resnet44"],
)
def test_published_checkpoints_load_and_reach_their_accuracy(data, factory, file):
    torch = pytest.importorskip("torch")
    path = data / "models" / "cifar10_resnet_pytorch" / file
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    model = factory().eval()
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    images, labels = _ic01(data)
    with torch.no_grad():
        found = model(torch.from_numpy(images)).argmax(1).numpy()
    assert (found == labels).mean() >= 0.88
