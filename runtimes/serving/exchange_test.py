import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("google.protobuf")

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.serving.errors import CloudError, CloudGarbled, CloudOverloaded, CloudRefused, CloudTimedOut
from runtimes.serving.exchange import error_for, padded, read_answer, read_index, read_segment, write_request
from runtimes.serving.hostile_peers import mutated
from runtimes.serving.messages import message
from runtimes.serving.tensors import DATATYPES, array_bytes, array_from_raw, array_from_values, dtype_of

OUTPUTS = (TensorInfo(name="y", shape=(-1, 3), dtype="float32"), TensorInfo(name="z", shape=(2,), dtype="bool"))
ARRAYS = {"y": np.arange(6, dtype=np.float32).reshape(2, 3), "z": np.array([True, False])}


def answer(**changes) -> bytes:
    made = message("ModelInferResponse")(model_name="net", model_version="v1", id="7")
    for name, array in ARRAYS.items():
        made.outputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        made.raw_output_contents.append(array_bytes(array))
    for name, value in changes.items():
        setattr(made, name, value)
    return made.SerializeToString()


def read(raw: bytes, **changes):
    return read_answer(raw, **{"where": "s", "version": "v1", "request_id": "7", "outputs": OUTPUTS, **changes})


def test_an_answer_comes_back_as_it_was_sent():
    found = read(answer())
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_answers_to_others_of_other_versions_and_of_other_tensors_are_told_apart():
    with pytest.raises(CloudGarbled, match="answered request '8'"):
        read(answer(id="8"))
    with pytest.raises(CloudRefused, match="version 'v2' answered"):
        read(answer(model_version="v2"))
    with pytest.raises(CloudGarbled, match="output w must be float32"):
        read(answer(), outputs=(TensorInfo(name="w", shape=(1,), dtype="float32"),))
    with pytest.raises(CloudGarbled, match=r"output y must be float32 \(-1, 4\), is float32 \(2, 3\)"):
        read(answer(), outputs=(TensorInfo(name="y", shape=(-1, 4), dtype="float32"),))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 100_000))
def test_whatever_bytes_come_back_end_in_outputs_of_the_model_or_in_an_error_of_ours(seed):
    raw = mutated(np.random.default_rng(seed), answer())
    try:
        found = read(raw)
    except CloudError:
        return
    assert found["y"].dtype == np.float32 and found["y"].shape[1:] == (3,)
    assert found["z"].dtype == np.bool_ and found["z"].shape == (2,)
    assert set(np.frombuffer(found["z"].tobytes(), np.uint8)) <= {0, 1}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 100_000))
def test_garbled_metadata_ends_in_an_error_of_ours(seed):
    rng = np.random.default_rng(seed)
    made = message("ModelMetadataResponse")(name="net", versions=["v"])
    made.inputs.add(name="x", datatype="FP32", shape=[-1, 3])
    index = message("RepositoryIndexResponse")()
    index.models.add(name="net@a", version="v")
    for call, raw in (
        (read_segment, made.SerializeToString()),
        (lambda raw, where: read_index(raw, where=where, artifact="net", version=""), index.SerializeToString()),
    ):
        try:
            call(mutated(rng, raw), where="s")
        except (CloudError, BadInput):
            continue


@pytest.mark.parametrize("dtype", sorted(DATATYPES))
def test_every_type_travels_bit_by_bit(dtype):
    values = np.random.default_rng(0).integers(0, 2, (2, 3, 4)).astype(dtype)
    raw = array_bytes(values[::-1])
    found = array_from_raw(raw, dtype_of(DATATYPES[dtype]), (2, 3, 4), name="t")
    np.testing.assert_array_equal(found, values[::-1])
    with pytest.raises(BadInput, match="bytes, must be"):
        array_from_raw(raw[:-1], dtype, (2, 3, 4), name="t")


def test_booleans_that_are_neither_and_values_that_do_not_fit_are_refused():
    with pytest.raises(BadInput, match="bytes of 0 or 1"):
        array_from_raw(b"\x02", "bool", (1,), name="t")
    contents = message("InferTensorContents")(int_contents=[1, 300])
    with pytest.raises(BadInput, match="outside int8"):
        array_from_values(contents, "int8", (2,), name="t")
    with pytest.raises(BadInput, match="2 values in int_contents, must be 3"):
        array_from_values(contents, "int16", (3,), name="t")
    np.testing.assert_array_equal(array_from_values(contents, "int16", (2,), name="t"), np.array([1, 300], np.int16))
    with pytest.raises(BadInput, match="no typed contents"):
        array_from_values(contents, "float16", (2,), name="t")


def test_a_codec_needs_to_know_what_crosses():
    arrays = {"x": np.zeros((1, 4), np.float32)}
    with pytest.raises(BadInput, match="was not told what crosses"):
        write_request(arrays, model="net", version="", request_id="", codec="requantize:int8")
    with pytest.raises(BadInput, match="type complex128"):
        write_request({"x": np.zeros(1, complex)}, model="net", version="", request_id="")


def test_statuses_become_errors_that_a_caller_can_act_on():
    assert type(error_for("DEADLINE_EXCEEDED", "", where="s")) is CloudTimedOut
    assert type(error_for("RESOURCE_EXHAUSTED", "busy", where="s")) is CloudOverloaded
    assert (
        type(error_for("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 8)", where="s")) is CloudRefused
    )
    assert type(error_for("NOT_FOUND", "", where="s")) is CloudRefused
    assert type(error_for("INTERNAL", "", where="s")) is CloudGarbled
    assert error_for("SOMETHING_NEW", "", where="server x").problems == ("server x: SOMETHING_NEW: no details",)


@pytest.mark.parametrize("count", [1, 127, 128, 300, 60_000])
def test_padding_is_skipped_by_whoever_reads_the_message(count):
    raw = padded(count)
    assert count < len(raw) <= count + 5
    assert message("ServerReadyRequest").FromString(raw).ListFields() == []
    assert padded(0) == b""
