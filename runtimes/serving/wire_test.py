import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_deploy.core.errors import BadInput
from runtimes.serving.hostile_peers import mutated
from runtimes.serving.wire import check_fields

pytest.importorskip("google.protobuf")
from google.protobuf.message import DecodeError

from runtimes.serving.messages import message

names = st.text(max_size=5)


@st.composite
def requests(draw):
    request = message("ModelInferRequest")(model_name=draw(names), model_version=draw(names), id=draw(names))
    for key in draw(st.lists(names, max_size=3)):
        request.parameters[key].int64_param = draw(st.integers(-5, 5))
    for name in draw(st.lists(names, max_size=3)):
        tensor = request.inputs.add(name=name, datatype="FP32", shape=draw(st.lists(st.integers(0, 9), max_size=3)))
        tensor.contents.fp32_contents.extend(draw(st.lists(st.just(0.5), max_size=3)))
        tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=2), max_size=3)))
        tensor.parameters["k"].string_param = "v"
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
    return request


@settings(max_examples=150, deadline=None)
@given(requests())
def test_every_request_is_taken_with_as_many_fields_as_it_has_and_refused_with_one_less(request):
    raw = request.SerializeToString()
    fields = next(most for most in range(200) if passes(raw, most))
    assert fields <= 4 + 20 * (len(request.inputs) + len(request.parameters) + len(request.raw_input_contents))
    assert fields >= len(request.inputs) + len(request.parameters) + len(request.raw_input_contents)
    if fields:
        with pytest.raises(BadInput, match=f"more than {fields - 1} fields"):
            check_fields(raw, most=fields - 1)


def passes(raw: bytes, most: int) -> bool:
    try:
        check_fields(raw, most=most)
    except BadInput:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(requests(), st.integers(0, 10_000))
def test_what_is_let_through_costs_protobuf_no_more_objects_than_were_allowed(request, seed):
    raw = mutated(np.random.default_rng(seed), request.SerializeToString() + b"\x0a\x01x")
    if not passes(raw, 100):
        return
    try:
        parsed = message("ModelInferRequest").FromString(raw)
    except DecodeError:
        return
    assert len(parsed.inputs) + len(parsed.outputs) + len(parsed.parameters) + len(parsed.raw_input_contents) <= 100


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\x2a\x00" * 500, "more than 100 fields"),
        (b"\x2a\xff\xff\xff\x7f", "longer than the message"),
        (b"\xff" * 30, "number without an end"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "a field of number 0"),
        (b"\xaa\x80\x80\x80\x10\x00", "a field of number 536870917"),
        (b"\x09\x00", "ends in the middle"),
    ],
)
def test_messages_that_no_client_sends_are_refused_before_they_are_parsed(raw, said):
    with pytest.raises(BadInput, match=said):
        check_fields(raw, most=100)
