import numpy as np
import pytest

from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.decoding import decode
from edge_deploy.zoo.description import Description, Items, Preprocess
from edge_deploy.zoo.pixels import pixel_mean_and_std

NHWC = TensorInfo(name="x", shape=(1, 4, 6, 3), dtype="float32", layout="NHWC")
NCHW = TensorInfo(name="x", shape=(1, 3, 4, 6), dtype="float32", layout="NCHW")
PROCESSES = [
    Preprocess(),
    Preprocess(divide=255.0),
    Preprocess(divide=255.0, mean=(0.5,), std=(0.5,)),
    Preprocess(divide=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    Preprocess(zero=83.0, scale=0.5847),
    Preprocess(mean=(103.9, 116.8, 123.7)),
    Preprocess(divide=127.5, mean=(1.0,), zero=3.0, scale=2.0, std=(0.5, 0.4, 0.3)),
]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("wanted", [NHWC, NCHW])
def test_mean_and_std_of_pixels_give_what_decoding_gives(process, wanted):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    description = Description(items=Items(path="x", decode="raw", shape=(4, 6, 3)), preprocess=process)
    decoded = decode(pixels.tobytes(), description, wanted, where="item")
    mean, std = pixel_mean_and_std(process, wanted)
    assert len(mean) == len(std) == 3
    expected = (pixels - np.asarray(mean)) / np.asarray(std)
    if wanted is NCHW:
        expected = expected.transpose(2, 0, 1)
    assert np.allclose(decoded, expected, rtol=1e-5, atol=1e-5)


def test_without_a_layout_one_value_stands_for_all_channels():
    unknown = TensorInfo(name="x", shape=(1, 4, 6, 3), dtype="float32")
    assert pixel_mean_and_std(Preprocess(divide=255.0), unknown) == ((0.0,), (255.0,))


@pytest.mark.parametrize("shape", [(1, 72), (-1,)])
def test_what_is_no_image_has_no_pixels(shape):
    rows = TensorInfo(name="x", shape=shape, dtype="float32")
    assert pixel_mean_and_std(Preprocess(divide=255.0), rows) == ((), ())
