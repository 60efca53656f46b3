from dataclasses import dataclass

import numpy as np
import pytest

from edge_deploy.core.dataset import Sample, batches, check_samples, dataset_digest, refuse_overlap
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

IMAGE = TensorInfo(name="image", shape=(1, 4, 4, 1), dtype="float32")
IDS = TensorInfo(name="ids", shape=(1, 2), dtype="int64", id_bounds=(10, 3))


@dataclass
class Listed:
    samples: list
    name: str = "data.npz"

    def __len__(self):
        return len(self.samples)

    def __iter__(self):
        return iter(self.samples)


def images(seed, count=5):
    generator = np.random.default_rng(seed)
    return Listed([Sample(inputs={"image": generator.random((4, 4, 1), np.float32)}) for _ in range(count)])


def test_batches_keep_order_and_every_sample():
    data = images(0, 5)
    sizes = [len(batch["image"]) for batch in batches(data, 2)]
    assert sizes == [2, 2, 1]
    whole = np.concatenate([batch["image"] for batch in batches(data, 2)])
    assert np.array_equal(whole, np.stack([sample.inputs["image"] for sample in data]))


def test_the_digest_ignores_order_and_sees_every_change():
    data = images(0)
    assert dataset_digest(data) == dataset_digest(Listed(data.samples[::-1]))
    assert dataset_digest(data) != dataset_digest(images(1))


def test_one_shared_sample_is_refused():
    calibration, evaluation = images(0), images(1)
    refuse_overlap(calibration, evaluation)
    evaluation.samples.append(calibration.samples[3])
    with pytest.raises(BadInput, match="1 of 6 evaluation samples also stand in"):
        refuse_overlap(calibration, evaluation)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"image": np.zeros((4, 4, 3), np.float32)}, r"shape \(4, 4, 3\): must be \(4, 4, 1\)"),
        ({"image": np.full((4, 4, 1), np.nan, np.float32)}, "holds NaN or infinity"),
        ({"image": np.zeros((4, 4, 1), "U3")}, "must be numbers"),
        ({"picture": np.zeros((4, 4, 1), np.float32)}, "the model has no such input; its inputs are image"),
        ({}, "input 'image' is missing"),
    ],
)
def test_samples_the_model_cannot_take_are_refused(inputs, problem):
    with pytest.raises(BadInput, match=problem):
        check_samples(Listed([Sample(inputs=inputs)]), (IMAGE,))


def test_ids_are_checked_against_the_rows_of_each_table():
    good = Sample(inputs={"ids": np.array([9, 2])})
    check_samples(Listed([good]), (IDS,))
    for wrong in ([9, 3], [10, 0], [-1, 0]):
        with pytest.raises(BadInput, match="ids outside its tables"):
            check_samples(Listed([good, Sample(inputs={"ids": np.array(wrong)})]), (IDS,))
    with pytest.raises(BadInput, match="must be integers"):
        check_samples(Listed([Sample(inputs={"ids": np.array([0.5, 1.0])})]), (IDS,))


def test_an_empty_data_set_is_refused():
    with pytest.raises(BadInput, match="holds no sample"):
        check_samples(Listed([]), (IMAGE,))
