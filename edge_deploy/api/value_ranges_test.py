import numpy as np
import pytest

from edge_deploy.api.value_ranges import refuse_unusable_ranges
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

IMAGE = TensorInfo(name="image", shape=(1, 4, 4, 3), dtype="float32")
IDS = TensorInfo(name="ids", shape=(1, 2), dtype="int64")


def sets(folder, calibration, evaluation):
    for name, scale in (("calibration", calibration), ("evaluation", evaluation)):
        image = np.random.default_rng(len(name)).random((50, 4, 4, 3), dtype=np.float32) * np.float32(scale)
        np.savez(folder / f"{name}.npz", image=image, ids=np.full((50, 2), 3))
    return folder / "calibration.npz", folder / "evaluation.npz"


@pytest.mark.parametrize(("calibration", "evaluation"), [(255, 1), (1, 255)])
def test_pixels_in_other_units_are_refused_with_both_ranges(tmp_path, calibration, evaluation):
    with pytest.raises(BadInput, match=r"input image: calibration values lie in .* evaluation values in .*alike"):
        refuse_unusable_ranges(*sets(tmp_path, calibration, evaluation), (IMAGE, IDS))


@pytest.mark.parametrize("scale", [0.25, 1, 4])
def test_ordinary_differences_pass(tmp_path, scale):
    refuse_unusable_ranges(*sets(tmp_path, 1, scale), (IMAGE, IDS))


def test_samples_that_are_all_alike_are_refused(tmp_path):
    calibration, _ = sets(tmp_path, 0, 1)
    with pytest.raises(BadInput, match="every value of image is the same"):
        refuse_unusable_ranges(calibration, None, (IMAGE,))
    refuse_unusable_ranges(calibration, None, (IMAGE, IDS))


def test_rare_outliers_and_mostly_zero_counts_do_not_count(tmp_path):
    calibration, evaluation = sets(tmp_path, 1, 1)
    with np.load(calibration) as archive:
        image = archive["image"].copy()
    image[0, 0, 0, 0] = 1e4
    np.savez(calibration, image=image)
    refuse_unusable_ranges(calibration, evaluation, (IMAGE,))
    for path in (calibration, evaluation):
        np.savez(path, image=np.eye(50, 48, dtype=np.float32).reshape(50, 4, 4, 3) * 5)
    refuse_unusable_ranges(calibration, evaluation, (IMAGE,))
