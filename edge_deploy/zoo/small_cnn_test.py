import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.small_cnn import digits, train_digits, write_npz


@pytest.fixture(scope="module")
def trained():
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    return train_digits(seed=0, epochs=8)


def test_a_short_training_learns_the_digits(trained):
    import torch

    model, _, (images, labels) = trained
    with torch.no_grad():
        found = model(torch.from_numpy(images)).argmax(1).numpy()
    assert not model.training
    assert (found == labels).mean() >= 0.95


def test_training_and_test_images_do_not_overlap(trained):
    _, (train, _), (test, _) = trained
    seen = {image.tobytes() for image in train}
    assert sum(image.tobytes() in seen for image in test) == 0


def test_the_same_seed_gives_the_same_network():
    torch = pytest.importorskip("torch")
    first, second = train_digits(seed=3, epochs=1)[0], train_digits(seed=3, epochs=1)[0]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_training_leaves_the_callers_random_numbers_alone():
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_digits(seed=1, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_no_epochs_are_refused():
    with pytest.raises(BadInput, match="epochs = 0"):
        train_digits(epochs=0)


def test_the_written_set_is_read_back_without_pickles(tmp_path):
    pytest.importorskip("sklearn")
    _, test = digits()
    write_npz(test, tmp_path / "test.npz")
    with np.load(tmp_path / "test.npz", allow_pickle=False) as read:
        assert np.array_equal(read["x"], test[0]) and np.array_equal(read["y"], test[1])
