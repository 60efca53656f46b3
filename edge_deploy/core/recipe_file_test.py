"""Recipes: what their rules ask of layers, and what is said of those that are wrong or fit nothing."""

import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_rule import LayerTraits
from edge_deploy.core.precision import PRECISIONS
from edge_deploy.core.quant_spec import RECIPES, QuantSpec, spec_for_recipe
from edge_deploy.core.recipe_file import read_recipe
from edge_deploy.core.serde import dumps, loads

LAYERS = (
    LayerTraits(name="table", op="EMBEDDING_LOOKUP", family="embedding", weights=10**6),
    LayerTraits(name="stem[0]", op="CONV_2D", family="conv", weights=400),
    LayerTraits(name="relu", op="RELU"),
    LayerTraits(name="deep", op="DEPTHWISE_CONV_2D", family="depthwise", weights=90),
    LayerTraits(name="wide", op="aten.conv2d", family="conv", weights=40_000),
    LayerTraits(name="head", op="FULLY_CONNECTED", family="linear", weights=640),
)


@pytest.fixture
def read(tmp_path):
    def make(text: str, **options) -> QuantSpec:
        path = tmp_path / "mixed.toml"
        path.write_text(text)
        return read_recipe(path, **options)

    return make


def bits(spec):
    bound, idle = spec.bound(LAYERS)
    assert not idle
    return {layer.name: bound.bits_for(layer.name) for layer in LAYERS if layer.weights}


@pytest.mark.parametrize(
    ("conditions", "layers"),
    [
        ('layer = "*e*"', {"table", "stem[0]", "deep", "wide", "head"}),
        ('operator = "conv"', {"stem[0]", "wide"}),
        ('operator = ["DEPTHWISE_CONV_2D", "conv2d"]', {"deep", "wide"}),
        ('position = "first"', {"stem[0]"}),
        ('position = "last"', {"head"}),
        ("min_weights = 641", {"table", "wide"}),
        ("max_weights = 640", {"stem[0]", "deep", "head"}),
        ('operator = "conv"\nmin_weights = 1000', {"wide"}),
        ("", {"table", "stem[0]", "deep", "wide", "head"}),
    ],
)
def test_a_rule_meets_the_layers_that_fit_all_its_conditions(read, conditions, layers):
    found = bits(read(f"[[rule]]\n{conditions}\nweight_bits = 4\n"))
    assert {name for name, width in found.items() if width == 4} == layers
    assert set(found.values()) <= {4, 8}


def test_later_rules_win_setting_by_setting(read):
    spec, _ = read(
        'precision = "int8"\nranges = "kl"\n'
        '[[rule]]\noperator = "conv"\nweight_bits = 4\nweight_scale = "tensor"\n'
        '[[rule]]\nposition = "first"\nactivations = "dynamic"\n'
        '[[rule]]\nlayer = "wide"\nprecision = "float16"\n'
    ).bound(LAYERS)
    stem, wide, head = (spec.settings_for(name) for name in ("stem[0]", "wide", "head"))
    assert (stem.weight_bits, stem.activations, stem.weight_scale) == (4, "dynamic", "tensor")
    assert (wide.weight_bits, wide.activations) == (16, "float")
    assert (head.weight_bits, head.activations, head.weight_scale, spec.range_method) == (8, "int8", "channel", "kl")
    assert spec.name == "mixed" and spec.needs_ranges and not spec.is_float


def test_a_rule_that_fits_no_layer_is_reported_with_a_close_name(read):
    rules = '[[rule]]\nlayer = "hed"\nweight_bits = 4\n[[rule]]\noperator = "depthwize"\nweight_bits = 4\n'
    _, idle = read(rules).bound(LAYERS)
    assert idle == (
        "mixed.toml.rule[0] (layer 'hed'): matches no layer; did you mean head?",
        "mixed.toml.rule[1] (operator depthwize): matches no layer; did you mean depthwise?",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("precison = 'int8'", r"mixed\.toml\.precison: unknown key; did you mean precision\?"),
        ("[[rule]]\nweight_bit = 4", r"mixed\.toml\.rule\[0\]\.weight_bit: unknown key; did you mean weight_bits\?"),
        ("[[rule]]\nweight_bits = 5", r"mixed\.toml\.rule\[0\]: weight_bits = 5: must be 4, 8, 16 or 32"),
        ("[[rule]]\nactivations = 'int9'", r"rule\[0\]\.activations: 'int9': must be one of 'float'"),
        ("[[rule]]\nprecision = 'int9'", r"rule\[0\]: precision = int9: must be one of float32"),
        ("[[rule]]\nprecision = 'int8'\nweight_bits = 4", "sets weight_bits and activations; leave them out"),
        ("[[rule]]\nweight_bits = 32\nactivations = 'int8'", "float weights are computed on floats"),
        ("precision = 'float32'\n[[rule]]\nactivations = 'int8'", "give weight_bits = 8 or 4"),
        ("[[rule]]\nlayer = 'x'", "sets nothing"),
        ("[[rule]]\nranges = 'mse'", r"rule\[0\]\.ranges: unknown key"),
        ("[[rule]]\nweight_bits = 4\nmin_weights = -1", "must not be negative"),
        ("percentile = 20", r"percentile = 20(\.0)?: must lie in"),
        ("[[rule]", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(read, text, message):
    with pytest.raises(BadInput, match=message):
        read(text)


def test_all_problems_come_at_once(read):
    with pytest.raises(BadInput) as error:
        read("precision = 'int9'\n[[rule]]\nweight_bits = 5\n[[rule]]\nweight_bits = 6")
    assert len(error.value.problems) == 3


def test_a_spec_with_rules_survives_the_round_trip(read):
    spec = read('[[rule]]\noperator = "conv"\nmin_weights = 3\nactivations = "float"\n', fallback_bits=32)
    assert loads(QuantSpec, dumps(spec), where="spec") == spec


def test_every_precision_has_a_spec_of_its_name():
    assert tuple(PRECISIONS) == RECIPES
    for name, precision in PRECISIONS.items():
        spec = spec_for_recipe(name)
        assert (spec.name, spec.weight_bits, spec.activations) == (name, precision.weight_bits, precision.activations)
        assert spec.needs_ranges == precision.needs_ranges
