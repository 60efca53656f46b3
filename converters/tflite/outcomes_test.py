from converters.tflite.outcomes import layer_outcomes, precision_warnings
from converters.tflite.plan import Choice
from edge_deploy.core.artifact import LayerFacts


def _fact(op, **changes):
    return LayerFacts(layer=f"a_{op.lower()}", op=op, **changes)


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
    (warning,) = precision_warnings((CONV4,))
    assert "a_conv_2d" in warning and "2.5x slower" in warning


def test_an_int8_probability_warns_of_its_resolution():
    assert precision_warnings((_fact("SOFTMAX"),)) == ()
    (warning,) = precision_warnings((_fact("SOFTMAX", activation_dtype="int8"),))
    assert "1/256" in warning and "a_softmax" in warning


def test_an_int8_sum_warns_of_the_reference_kernels():
    (warning,) = precision_warnings((_fact("SUM", activation_dtype="int8"),))
    assert "BUILTIN_REF" in warning
