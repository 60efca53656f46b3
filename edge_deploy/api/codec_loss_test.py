import numpy as np
import pytest

from edge_deploy.api.codec_loss import CodecLosses, codec_loss, codec_losses, cut_folders
from edge_deploy.api.cuts import list_cuts
from edge_deploy.api.split import split
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import read_json, write_json


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


def test_sizes_that_values_decide_are_means_and_reach_the_plan(halves, tmp_path):
    cut, folder = halves
    found = CodecLosses(
        losses=codec_losses(cut, ["raw", "zstd", "requantize:int8+zstd"], folder / "plain.npz", limit=6)
    )
    raw, squeezed, both = found.losses
    assert raw.bytes_most == raw.bytes_coded > squeezed.bytes_most >= squeezed.bytes_coded > both.bytes_coded
    assert squeezed.agreement == 1.0 and squeezed.encode_s > 0
    write_json(found, tmp_path / "codecs.json")
    again = read_json(CodecLosses, tmp_path / "codecs.json")
    assert again.bytes_of("requantize:int8+zstd") == {cut.name: both.bytes_coded}
    assert again.drops_of("zstd") == {cut.name: 0.0}


def test_the_folder_of_all_cuts_is_taken_too(halves, tmp_path):
    cut, _ = halves
    assert cut_folders(cut.parent) == (cut,) == cut_folders(cut)
    with pytest.raises(BadInput, match="holds no cut"):
        cut_folders(tmp_path)
