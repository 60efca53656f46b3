import numpy as np
import pytest

from converters.tflite.emit import Emitter
from converters.tflite.flatbuffer import set_affine
from converters.tflite.signatures import describe, ensure_signatures, match_inputs
from converters.tflite.structure import make_names_unique
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo


def _model():
    emitter = Emitter("test")
    graph = emitter.graph("main")
    first, second = graph.tensor("a", (1, 4, 4, 3)), graph.tensor("b", (1, 2))
    out = graph.tensor("a", (1, 4, 4, 3))
    graph.op("RELU", [first], [out])
    graph.sign("serve", {"image": first, "extra": second}, {"answer": out})
    return emitter.model


def _info(name, shape, **changes):
    return TensorInfo(name=name, shape=shape, dtype="float32", **changes)


def test_a_file_without_signatures_gets_one_named_as_its_tensors():
    model = _model()
    model.signatureDefs = None
    make_names_unique(model)
    ensure_signatures(model)
    (signature,) = describe(model, (), ())
    assert [info.name for info in signature.inputs] == ["a", "b"]
    assert [info.name for info in signature.outputs] == ["a#2"]


def test_what_the_file_does_not_know_comes_from_the_source():
    sources = (_info("extra", (1, 2)), _info("image", (1, 3, 4, 4), layout="NCHW", mean=(1.0, 2.0, 3.0)))
    outputs = (_info("answer", (1, 4, 4, 3), meaning="logit", labels=("x", "y")),)
    (signature,) = describe(_model(), sources, outputs)
    image = next(info for info in signature.inputs if info.name == "image")
    assert image.layout == "NHWC" and image.mean == (1.0, 2.0, 3.0)
    assert signature.outputs[0].meaning == "logit" and signature.outputs[0].labels == ("x", "y")


def test_inputs_are_matched_by_name_and_else_by_position():
    signature = Signature(name="s", inputs=(_info("x", (1,)), _info("y", (1,))), outputs=())
    by_name = match_inputs(signature, (_info("y", (1,)), _info("x", (1,))))
    assert {name: info.name for name, info in by_name.items()} == {"x": "x", "y": "y"}
    by_position = match_inputs(signature, (_info("p", (1,)), _info("q", (1,))))
    assert {name: info.name for name, info in by_position.items()} == {"x": "p", "y": "q"}


def test_another_number_of_inputs_is_refused():
    signature = Signature(name="s", inputs=(_info("x", (1,)),), outputs=())
    with pytest.raises(BadInput, match="1 inputs"):
        match_inputs(signature, (_info("p", (1,)), _info("q", (1,))))


def test_quantization_of_a_border_tensor_is_told():
    model = _model()
    set_affine(model.subgraphs[0].tensors[0], np.array([0.5]), np.array([3]))
    (signature,) = describe(model, (), ())
    assert signature.inputs[0].scale == (0.5,) and signature.inputs[0].zero_point == (3,)
