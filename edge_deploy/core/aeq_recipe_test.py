"""Recipes of ai-edge-quantizer, as that tool writes them: read as rules, or refused with the entry's place."""

import json

import pytest

from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.layer_rule import LayerTraits
from edge_deploy.core.recipe_file import read_recipe

LAYERS = (
    LayerTraits(name="net/conv;a", op="CONV_2D", family="conv", weights=1000),
    LayerTraits(name="net/deep", op="DEPTHWISE_CONV_2D", family="depthwise", weights=90),
    LayerTraits(name="net/dense", op="FULLY_CONNECTED", family="linear", weights=640),
    LayerTraits(name="net/table", op="EMBEDDING_LOOKUP", family="embedding", weights=6400),
)


def weights(bits=8, **changes):
    return {"num_bits": bits, "symmetric": True, "granularity": "CHANNELWISE", "dtype": "INT", **changes}


def entry(regex=".*", operation="*", key="min_max_uniform_quantize", **config):
    return {"regex": regex, "operation": operation, "algorithm_key": key, "op_config": config}


def static(bits=8, activation_bits=8, **changes):
    activation = {"num_bits": activation_bits, "symmetric": activation_bits == 16}
    return {
        "weight_tensor_config": weights(bits),
        "activation_tensor_config": activation,
        "compute_precision": "INTEGER",
        **changes,
    }


@pytest.fixture
def read(tmp_path):
    def make(*entries):
        (tmp_path / "theirs.json").write_text(json.dumps(entries))
        return read_recipe(tmp_path / "theirs.json")

    return make


def settings(spec):
    bound, _ = spec.bound(LAYERS)
    found = {layer.name: bound.settings_for(layer.name) for layer in LAYERS}
    return {name: (each.weight_bits, each.activations) for name, each in found.items()}


def test_one_entry_for_everything_is_a_precision(read):
    weight_only = {"weight_tensor_config": weights(), "explicit_dequantize": True}
    dynamic = {"weight_tensor_config": weights(), "compute_precision": "INTEGER"}
    for config, recipe in (
        (static(), "int8"),
        (static(8, 16), "int16x8"),
        (weight_only, "int8-weight"),
        (dynamic, "int8-dynamic"),
    ):
        spec = read(entry(**config))
        assert (spec.recipe, spec.name, spec.rules) == (recipe, "theirs", ())
    half = read(entry(key="float_casting", weight_tensor_config=weights(16, dtype="FLOAT")))
    assert half.recipe == "float16"


def test_the_last_entry_that_fits_decides_and_what_none_fits_stays_in_float(read):
    spec = read(
        entry(operation="CONV_2D", **static(4)),
        entry(regex="deep|dense", **static()),
        entry(regex="se$", key="no_quantize"),
        entry(operation="EMBEDDING_LOOKUP", weight_tensor_config=weights(4), min_weight_elements=9),
    )
    assert settings(spec) == {
        "net/conv;a": (4, "int8"),
        "net/deep": (8, "int8"),
        "net/dense": (32, "float"),
        "net/table": (4, "float"),
    }
    assert settings(read(entry(operation="CONV_2D", **static())))["net/dense"] == (32, "float")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (entry(key="GPTQ", **static()), r"theirs\.json\[0\]: algorithm_key GPTQ has no form here"),
        (entry(weight_tensor_config=weights(granularity="BLOCKWISE_32")), "blocks of scales"),
        (entry(weight_tensor_config=weights(block_size=32)), "blocks of scales"),
        (entry(weight_tensor_config=weights(2)), "weights of 2 bits"),
        (entry(weight_tensor_config=weights(symmetric=False)), "asymmetric weights"),
        (entry(**static(), skip_checks=True), "skip_checks"),
        (entry(operation="INPUT", **static()), "--io"),
        (entry(), "activations without weights"),
    ],
)
def test_what_has_no_form_here_is_refused_with_its_place(read, wrong, message):
    with pytest.raises(Unsupported, match=message):
        read(wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({**entry(**static()), "regx": "a"}, r"theirs\.json\[0\]\.regx: unknown key; did you mean regex\?"),
        (entry(regex="(", **static()), "not a regular expression"),
        ({"regex": "a"}, r"theirs\.json\[0\]\.operation: missing"),
    ],
)
def test_what_is_no_such_recipe_is_refused_with_its_place(read, wrong, message):
    with pytest.raises(BadInput, match=message):
        read(wrong)


def test_what_that_tool_writes_itself_can_be_read(read):
    recipe = pytest.importorskip("ai_edge_quantizer.recipe")
    assert read(*recipe.static_wi8_ai8()).recipe == "int8"
    assert read(*recipe.dynamic_wi8_afp32()).recipe == "int8-dynamic"
    assert read(*recipe.weight_only_wi8_afp32()).recipe == "int8-weight"
