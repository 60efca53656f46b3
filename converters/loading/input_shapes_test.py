import pytest

from converters.contracts import CaptureRequest
from converters.loading.input_shapes import settle
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

IMAGE = TensorInfo(name="image", shape=(-1, -1, -1, 3), dtype="float32")
FLAT = TensorInfo(name="flat", shape=(-1, 5), dtype="float32")


def _settle(*inputs, **request):
    return tuple(info.shape for info in settle(inputs, CaptureRequest(source="m.keras", **request)))


def test_a_dynamic_batch_becomes_one():
    assert _settle(FLAT) == ((1, 5),)


def test_one_batch_size_is_taken_and_several_stay_dynamic():
    assert _settle(FLAT, batches=(7,)) == ((7, 5),)
    assert _settle(FLAT, batches=(1, 7)) == ((-1, 5),)


@pytest.mark.parametrize("given", [(1, 8, 9, 3), (-1, 8, 9, 3), (8, 9, 3)])
def test_sizes_are_taken_with_the_batch_or_without(given):
    assert _settle(IMAGE, shapes={"image": given}) == ((1, 8, 9, 3),)


def test_open_dimensions_are_refused_by_name_with_the_option_to_pass():
    with pytest.raises(BadInput, match=r"input image: dimension 1, 2 is dynamic.*--shape image:\?x\?x3"):
        _settle(IMAGE)


def test_all_problems_come_at_once():
    with pytest.raises(BadInput) as caught:
        _settle(IMAGE, FLAT, shapes={"imag": (1, 2, 2, 3), "flat": (1, 6)})
    text = str(caught.value)
    assert "did you mean image?" in text
    assert "dimension 1 was given as 6; the model says 5" in text
    assert "dimension 1, 2 is dynamic" in text


def test_another_batch_than_a_fixed_one_is_refused():
    fixed = TensorInfo(name="x", shape=(4, 5), dtype="float32")
    assert _settle(fixed) == ((4, 5),)
    assert _settle(fixed, batches=(4,)) == ((4, 5),)
    with pytest.raises(BadInput, match="batch is fixed at 4; --batch 1, 8 cannot be had"):
        _settle(fixed, batches=(1, 8))


def test_scalars_and_wrong_ranks_are_refused():
    with pytest.raises(BadInput, match="scalar"):
        _settle(TensorInfo(name="x", shape=(), dtype="float32"))
    with pytest.raises(BadInput, match="5 sizes were given"):
        _settle(FLAT, shapes={"flat": (1, 2, 3, 4, 5)})


def test_inputs_whose_first_dimensions_are_no_common_batch_are_refused_by_name():
    found = (
        TensorInfo(name="x", shape=(1, 5), dtype="float32"),
        TensorInfo(name="offsets", shape=(3, 1), dtype="int64"),
    )
    with pytest.raises(BadInput, match=r"x 1, offsets 3"):
        settle(found, CaptureRequest(source="model.onnx"))
