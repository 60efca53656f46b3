from pathlib import Path

import pytest

from converters.loading.keras_file import check_safe, layers_of_class
from edge_deploy.core.errors import Unsupported


def _config(kind, **config):
    inner = {"class_name": "Functional", "config": {"layers": [{"class_name": kind, "config": config}]}}
    return {"class_name": "Sequential", "config": {"layers": [inner]}}


def test_lambda_layers_are_refused_by_name_also_inside_nested_models():
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAA=="}}
    with pytest.raises(Unsupported) as caught:
        check_safe(Path("m.h5"), _config("Lambda", name="double", function=code))
    assert [refusal.layer for refusal in caught.value.refusals] == ["double"]


def test_a_lambda_as_an_activation_is_refused():
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAA=="}}
    with pytest.raises(Unsupported, match="Python code"):
        check_safe(Path("m.h5"), _config("Dense", name="head", activation=code))


@pytest.mark.parametrize("function", ["io.write_file", "py_function", "raw_ops.WriteFile", "load_op_library", "data.x"])
def test_functions_of_tensorflow_that_do_more_than_compute_are_refused(function):
    with pytest.raises(Unsupported, match="layer op"):
        check_safe(Path("m.h5"), _config("TFOpLambda", name="op", function=function))


@pytest.mark.parametrize("function", ["__operators__.add", "math.multiply", "nn.relu", "concat", "compat.v1.nn.conv2d"])
def test_computing_functions_of_tensorflow_pass(function):
    check_safe(Path("m.h5"), _config("TFOpLambda", name="op", function=function))


def test_layers_of_a_class_are_found_with_and_without_their_package():
    assert layers_of_class(_config("mine>Foo", name="foo_3"), "Foo") == ("foo_3",)
