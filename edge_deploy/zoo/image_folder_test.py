import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.datasets import open_dataset

PIL = pytest.importorskip("PIL.Image")
NHWC = (TensorInfo(name="image", shape=(1, 8, 8, 3), dtype="float32", layout="NHWC"),)
NCHW = (TensorInfo(name="image", shape=(1, 3, 8, 8), dtype="float32", layout="NCHW"),)
BYTES = (TensorInfo(name="image", shape=(1, 8, 8, 3), dtype="uint8", layout="NHWC"),)


@pytest.fixture
def folder(tmp_path):
    """Two classes of plain colours, three images each, of several sizes."""
    for kind, level in (("cat", 0), ("dog", 200)):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for index in range(3):
            pixels = np.full((10 + index, 12, 3), level + index, np.uint8)
            PIL.fromarray(pixels).save(tmp_path / "set" / kind / f"{index}.PNG")
    (tmp_path / "set" / "notes.txt").write_text("no image")
    (tmp_path / "set" / "preprocess.toml").write_text("divide = 255.0\n")
    return tmp_path / "set"


@pytest.mark.parametrize("inputs", [NHWC, NCHW])
def test_sub_folders_are_classes_and_images_get_the_size_and_layout_of_the_input(folder, inputs):
    samples = list(open_dataset(folder, inputs=inputs))
    assert sorted(sample.label for sample in samples) == [0, 0, 0, 1, 1, 1]
    for sample in samples:
        values = sample.inputs["image"]
        assert values.shape == inputs[0].shape[1:] and values.dtype == np.float32
        assert (values.max() > 0.7) == (sample.label == 1.0) and values.max() <= 1.0


def test_numbered_sub_folders_keep_their_numbers(folder):
    (folder / "cat").rename(folder / "7")
    (folder / "dog").rename(folder / "10")
    assert {sample.label for sample in open_dataset(folder, inputs=NHWC)} == {7.0, 10.0}


def test_a_label_file_wins_over_sub_folders(folder):
    lines = [f"{kind}/{index}.PNG,{index}" for kind in ("cat", "dog") for index in range(3)]
    (folder / "labels.csv").write_text("\n".join(lines))
    assert sorted(sample.label for sample in open_dataset(folder, inputs=NHWC)) == [0, 0, 1, 1, 2, 2]


def test_a_flat_folder_has_no_labels_and_a_mixed_one_is_refused(folder):
    for image in (folder / "cat").iterdir():
        image.rename(folder / image.name)
    with pytest.raises(BadInput, match="3 images lie beside"):
        open_dataset(folder, inputs=NHWC)
    for image in (folder / "dog").iterdir():
        image.unlink()
    assert [sample.label for sample in open_dataset(folder, inputs=NHWC)] == [None] * 3


def test_preprocessing_must_be_said_for_real_inputs_and_only_for_these(folder):
    (folder / "preprocess.toml").unlink()
    with pytest.raises(BadInput, match=r"divide = 255\.0"):
        open_dataset(folder, inputs=NHWC)
    assert max(sample.inputs["image"].max() for sample in open_dataset(folder, inputs=BYTES)) == 202


def test_preprocessing_with_a_misspelt_key_or_no_images_is_refused(folder, tmp_path):
    (folder / "preprocess.toml").write_text("devide = 255.0\n")
    with pytest.raises(BadInput, match="divide"):
        open_dataset(folder, inputs=NHWC)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "preprocess.toml").write_text("divide = 255.0\n")
    with pytest.raises(BadInput, match="no image"):
        open_dataset(tmp_path / "none", inputs=NHWC)


def test_mean_and_std_are_known_to_the_manifest(folder):
    (folder / "preprocess.toml").write_text("divide = 255.0\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n")
    found = open_dataset(folder, inputs=NHWC)
    assert found.pixel_mean == (127.5, 127.5, 127.5) and found.pixel_std == (127.5, 127.5, 127.5)
