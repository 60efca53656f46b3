import pytest

from converters.support import RECIPE_KINDS, entries, lookup, targets
from edge_deploy.core.errors import BadInput
from edge_deploy.core.precision import PRECISIONS


@pytest.fixture(params=targets())
def target(request):
    return request.param


def test_every_table_can_be_read_and_covers_every_recipe(target):
    assert {entry.recipe for entry in entries(target)} <= set(RECIPE_KINDS)
    for recipe in PRECISIONS:
        assert any(entry.recipe == recipe for entry in entries(target))


def test_an_operator_that_is_not_listed_falls_under_all_others():
    assert lookup("tflite", "int8", "WHILE").status == "refused"
    assert lookup("tflite", "float32", "WHILE").status == "native"


def test_a_target_without_a_table_is_named_with_those_that_have_one():
    with pytest.raises(BadInput, match="tflite"):
        entries("onnx")
