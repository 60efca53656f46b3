from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("runtimes.serving.nets_test")

from edge_deploy.core.errors import BadInput, MissingExtra
from runtimes.serving import mlserver_runtime
from runtimes.serving import nets_test as nets
from runtimes.serving.offers import read_offer


def payload(**arrays):
    """As MLServer hands a request over: flat lists."""
    kinds = {"float32": "FP32", "float64": "FP64"}
    return SimpleNamespace(
        inputs=[
            SimpleNamespace(
                name=name,
                datatype=SimpleNamespace(value=kinds[array.dtype.name]),
                shape=list(array.shape),
                data=SimpleNamespace(root=array.reshape(-1).tolist()),
            )
            for name, array in arrays.items()
        ]
    )


@pytest.fixture(scope="module")
def offer(halves):
    return read_offer(halves[0] / "all-cloud" / "tail")


def test_what_mlserver_hands_over_becomes_arrays_of_the_model(offer):
    arrays, rows = mlserver_runtime.read_payload(payload(**nets.inputs(3)), offer)
    assert rows == 3
    for name, array in nets.inputs(3).items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"c": np.zeros((1, 4), np.float32)}, "input c: net has none of this name"),
        ({"a": np.zeros((1, 4))}, "input a: must be there, as FP32"),
        ({"a": np.zeros((1, 5), np.float32)}, r"input a: 5 values, shape \[1, 5\], must be \[-1, 4\]"),
        ({"a": np.zeros((2, 4), np.float32)}, "have 1, 2 rows"),
    ],
)
def test_what_the_model_does_not_take_is_refused(offer, changed, said):
    with pytest.raises(BadInput, match=said):
        mlserver_runtime.read_payload(payload(**{**nets.inputs(), **changed}), offer)


def test_without_mlserver_the_runtime_class_says_what_is_missing():
    try:
        import mlserver  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match="mlserver is not installed"):
            mlserver_runtime.EdgeDeployModel
    with pytest.raises(AttributeError, match="Nothing"):
        mlserver_runtime.Nothing
