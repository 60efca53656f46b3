import numpy as np
import pytest

from converters.samples import random_samples, save_arrays, spool
from edge_deploy.core.dataset import Sample, check_samples
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

INPUTS = (
    TensorInfo(name="file", shape=(-1, 3), dtype="float32"),
    TensorInfo(name="ids", shape=(-1, 2), dtype="int64", id_bounds=(7, 2)),
)


def test_samples_come_back_stacked_with_their_labels(tmp_path):
    samples = [Sample(inputs=sample.inputs, label=index) for index, sample in enumerate(random_samples(INPUTS, 5))]
    labels = spool(samples, 5, INPUTS, tmp_path / "feeds.npz")
    assert labels.tolist() == [0, 1, 2, 3, 4]
    with np.load(tmp_path / "feeds.npz") as archive:
        for info in INPUTS:
            assert np.array_equal(archive[info.name], np.stack([sample.inputs[info.name] for sample in samples]))
    assert [file.name for file in tmp_path.iterdir()] == ["feeds.npz"]


def test_fewer_samples_than_announced_are_refused(tmp_path):
    with pytest.raises(BadInput, match="2 samples came, 3 were announced"):
        spool(random_samples(INPUTS, 2), 3, INPUTS, tmp_path / "feeds.npz")


def test_random_samples_fit_their_inputs_and_repeat_with_their_seed():
    class Listed(list):
        name = "random"

    made = random_samples(INPUTS, 50, seed=3)
    check_samples(Listed(made), INPUTS)
    again = random_samples(INPUTS, 50, seed=3)
    assert all(np.array_equal(a.inputs["ids"], b.inputs["ids"]) for a, b in zip(made, again, strict=True))
    assert {int(sample.inputs["ids"][0]) for sample in made} == set(range(7))


def test_arrays_of_any_name_are_saved(tmp_path):
    arrays = {"file": np.arange(3), "allow_pickle": np.ones((2, 2), np.float32)}
    save_arrays(arrays, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        assert {name: archive[name].tolist() for name in archive.files} == {
            name: array.tolist() for name, array in arrays.items()
        }
