import numpy as np
import pytest

from edge_deploy.api.codec_loss import codec_loss
from edge_deploy.api.cuts import list_cuts
from edge_deploy.api.split import split
from edge_deploy.core.errors import BadInput


@pytest.fixture(scope="module")
def halves(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    model = data / "models" / "mlperf_tiny_ic_resnet8" / "pretrainedResnet.tflite"
    widest = next(
        item.cut
        for item in list_cuts(model).cuts[1:-1]
        if not item.refused and len(item.cut.up) == 1 and item.cut.up[0].dtype == "float32"
    )
    split(model, cuts=[widest.id], out=folder / "out", check=False)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (24, 32, 32, 3)).astype(np.float32)
    np.savez(folder / "plain.npz", x=images)
    np.savez(folder / "labelled.npz", x=images, y=rng.integers(0, 10, 24))
    return folder / "out" / widest.id, folder


def test_a_lossless_codec_changes_nothing(halves):
    cut, folder = halves
    found = codec_loss(cut, "raw", folder / "plain.npz", limit=6)
    assert (found.agreement, found.drop, found.samples) == (1.0, 0.0, 6)
    assert found.bytes_raw == found.bytes_coded > 0


def test_fewer_bits_are_fewer_bytes_and_what_they_cost_is_measured(halves):
    cut, folder = halves
    eight = codec_loss(cut, "requantize:int8", folder / "labelled.npz")
    four = codec_loss(cut, "requantize:int4", folder / "labelled.npz")
    assert eight.bytes_raw == 4 * (eight.bytes_coded - 8) == 8 * (four.bytes_coded - 8)
    assert eight.agreement >= four.agreement
    assert eight.difference.metric == "accuracy"
    assert eight.drop == pytest.approx(eight.difference.source - eight.difference.artifact)


def test_a_folder_without_halves_is_refused(halves):
    _, folder = halves
    with pytest.raises(BadInput, match="has no head and no tail"):
        codec_loss(folder, "raw", folder / "plain.npz")
