import numpy as np
import pytest

from converters.executorch.calibration import calibration_batches
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

INPUTS = (TensorInfo(name="a", shape=(2, 3), dtype="float32"), TensorInfo(name="b", shape=(2,), dtype="int64"))


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "c.npz", a=np.arange(15.0).reshape(5, 3), b=np.arange(5, dtype=np.int32))
    return tmp_path / "c.npz"


def test_every_sample_comes_and_the_last_batch_is_filled_up(path):
    found = list(calibration_batches(path, INPUTS, 2))
    assert [tuple(a.shape) for a, _ in found] == [(2, 3)] * 3
    assert np.concatenate([b.numpy() for _, b in found]).tolist() == [0, 1, 2, 3, 4, 0]
    assert str(found[0][0].dtype) == "torch.float32"
    assert str(found[0][1].dtype) == "torch.int64"


def test_a_missing_array_is_named(path):
    with pytest.raises(BadInput, match="no array c"):
        list(calibration_batches(path, (TensorInfo(name="c", shape=(1,), dtype="float32"),), 1))


def test_arrays_of_different_lengths_are_refused(tmp_path):
    np.savez(tmp_path / "c.npz", a=np.zeros((4, 3)), b=np.zeros(5))
    with pytest.raises(BadInput, match=r"\[4, 5\] samples"):
        list(calibration_batches(tmp_path / "c.npz", INPUTS, 2))
