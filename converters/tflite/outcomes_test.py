import pytest

from converters.tflite.choice import Choice
from converters.tflite.outcomes import layer_outcomes, precision_warnings
from edge_deploy.core.artifact import LayerFacts
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.tensor import TensorInfo


def _fact(op, **changes):
    return LayerFacts(layer=f"a_{op.lower()}", op=op, **changes)


EMPTY = LayerGraph(inputs=(), outputs=(), layers=())
CONV4 = _fact(
    "CONV_2D",
    weight_dtype="int4",
    weight_bits=4.0,
    weight_count=8,
    weight_bytes=4,
    granularity="per-channel",
    activation_dtype="int8",
    runs_on="builtin",
)


def test_an_outcome_says_what_was_asked_what_the_bytes_say_and_why_they_differ():
    choices = {"a_conv_2d": Choice(bits=8, asked=4, reason="no kernel; INT8 as permitted")}
    (outcome,) = layer_outcomes((CONV4, _fact("ADD", activation_dtype="int8")), choices)
    assert (outcome.asked, outcome.got) == ("int4", "int4 per-channel, int8 activations")
    assert outcome.reason == "no kernel; INT8 as permitted"
    assert (outcome.weight_bits, outcome.weight_bytes, outcome.runs_on) == (4.0, 4, "builtin")


def test_a_layer_without_a_choice_was_asked_to_stay_float():
    (outcome,) = layer_outcomes((_fact("CONV_2D", weight_dtype="float32", weight_bits=32.0, weight_count=8),), {})
    assert (outcome.asked, outcome.got) == ("float32", "float32")


def test_packed_convolutions_warn_of_their_speed():
    (warning,) = precision_warnings((CONV4,), EMPTY)
    assert "a_conv_2d" in warning and "2.5x slower" in warning


@pytest.mark.parametrize("is_last", [True, False])
def test_an_int8_probability_warns_of_its_resolution_where_it_is_an_output(is_last):
    def layer(name, op, source, result):
        info = TensorInfo(name=result, shape=(1, 4), dtype="float32")
        return Layer(name=name, op=op, inputs=(source,), outputs=(info,))

    layers = (
        layer("a_softmax", "SOFTMAX", "x", "p"),
        layer("last", "DEQUANTIZE" if is_last else "MUL", "p", "y"),
    )
    x = TensorInfo(name="x", shape=(1, 4), dtype="float32")
    graph = LayerGraph(inputs=(x,), outputs=("y",), layers=layers)
    assert precision_warnings((_fact("SOFTMAX"),), graph) == ()
    warnings = precision_warnings((_fact("SOFTMAX", activation_dtype="int8"),), graph)
    assert [("1/256" in warning, "a_softmax" in warning) for warning in warnings] == ([(True, True)] if is_last else [])


def test_an_int8_sum_warns_of_the_reference_kernels():
    (warning,) = precision_warnings((_fact("SUM", activation_dtype="int8"),), EMPTY)
    assert "BUILTIN_REF" in warning
