"""SqueezeNet from arrays computes what its reference outputs say."""

from pathlib import Path

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput


def test_the_network_of_arrays_gives_the_reference_outputs(data: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from edge_deploy.zoo.squeezenet import checkpoint_of_arrays, squeezenet11

    home = data / "models" / "imagenet_squeezenet11_nchw_npy"
    net = squeezenet11().eval()
    net.load_state_dict(torch.load(checkpoint_of_arrays(home / "weights", tmp_path / "net.pt"), weights_only=True))
    for case in sorted((home / "test_data_set").iterdir()):
        want = np.load(case / "output_0.npy").reshape(-1)
        with torch.no_grad():
            got = net(torch.from_numpy(np.load(case / "input_0.npy"))).numpy().reshape(-1)
        assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from edge_deploy.zoo.squeezenet import checkpoint_of_arrays

    with pytest.raises(BadInput, match=r"conv25_bias\.npy: must be one file of 1000 values"):
        checkpoint_of_arrays(tmp_path, tmp_path / "net.pt")
