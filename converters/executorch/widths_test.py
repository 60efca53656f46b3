"""What each layer of an ExecuTorch program becomes under every precision and rule, before anything slow is done."""

import pytest

from converters.executorch.layers import Weighted, layer_traits
from converters.executorch.widths import choose_widths
from converters.support import lookup
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.precision import PRECISIONS
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe

CONV = Weighted(name="conv", op="aten.conv2d", kind="conv", shape=(8, 3, 3, 3))
DEEP = Weighted(name="deep", op="aten.conv2d", kind="conv", shape=(8, 1, 3, 3), groups=8)
DENSE = Weighted(name="dense", op="aten.linear", kind="linear", shape=(10, 8))
TABLE = Weighted(name="table", op="aten.embedding", kind="embedding", shape=(100, 8))
LAYERS = (TABLE, CONV, DEEP, DENSE)


def widths(layers, recipe, *rules, **changes):
    spec, _ = spec_for_recipe(recipe, rules=rules, **changes).bound(layer_traits(layers))
    return {choice.layer.name: choice.width for choice in choose_widths(layers, spec)}


@pytest.mark.parametrize("recipe", PRECISIONS)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_every_precision_is_had_or_refused_as_the_support_table_says(recipe, layer):
    entry = lookup("executorch", recipe, layer.op)
    # Rows of a table are looked up alike, whatever the other layers compute on.
    expects_refusal = entry.status == "refused" and not (layer is TABLE and recipe == "int16x8")
    if not expects_refusal:
        assert set(widths((layer,), recipe)) == {layer.name}
        return
    with pytest.raises(Unsupported) as caught:
        widths((layer,), recipe)
    (refusal,) = caught.value.refusals
    assert (refusal.layer, refusal.reason) == (layer.name, entry.reason)
    assert widths((layer,), recipe, fallback_bits=32) == {layer.name: "float32"}


def test_rules_know_families_and_positions():
    rules = (LayerRule(operators=("depthwise",), weight_bits=32), LayerRule(position="last", weight_bits=4))
    found = widths(LAYERS, "int8", *rules)
    assert found == {"table": "int8", "conv": "int8", "deep": "float32", "dense": "int4 packed"}


def test_dynamic_layers_do_not_stand_beside_calibrated_ones():
    with pytest.raises(Unsupported, match=r"dense.*calibrated activations or dynamic ones"):
        widths(LAYERS, "int8", LayerRule(pattern="dense", activations="dynamic"))
    assert widths((DENSE,), "int8-dynamic") == {"dense": "int8"}


def test_one_scale_for_all_channels_is_refused_by_layer():
    with pytest.raises(Unsupported, match=r"conv .*one scale for each output channel"):
        widths(LAYERS, "int8", LayerRule(pattern="conv", weight_scale="tensor"))
    with pytest.raises(Unsupported) as caught:
        widths(LAYERS, "int8", weight_scale="tensor")
    assert [refusal.layer for refusal in caught.value.refusals] == ["conv", "deep", "dense"]


def test_a_program_is_float16_as_a_whole():
    assert widths((CONV, DEEP, DENSE), "float16") == {"conv": "float16", "deep": "float16", "dense": "float16"}
    with pytest.raises(Unsupported, match="float16 as a whole"):
        widths((CONV, DENSE), "int8", LayerRule(pattern="dense", weight_bits=16))
    assert widths((CONV, DENSE, TABLE), "float16", fallback_bits=32) == dict.fromkeys(
        ("conv", "dense", "table"), "float32"
    )


def test_layers_beyond_float16_are_refused_by_name():
    spec = spec_for_recipe("float16")
    with pytest.raises(Unsupported, match=r"dense.*beyond float16"):
        choose_widths((CONV, DENSE), spec, beyond_half={"dense": "its largest weight 1e+06 is beyond float16"})
