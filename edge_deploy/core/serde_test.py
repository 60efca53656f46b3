import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.core.artifact import Artifact, FileEntry, Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.quant_spec import LayerRule, QuantSpec, spec_for_recipe
from edge_deploy.core.serde import dumps, from_json, loads, read_json, to_json, write_json
from edge_deploy.core.tensor import TensorInfo

IMAGE = TensorInfo(name="image", shape=(1, 8, 8, 1), dtype="float32", layout="NHWC")
SCORES = TensorInfo(name="scores", shape=(1, 10), dtype="int8", scale=(1 / 256,), zero_point=(-128,))


def an_artifact() -> Artifact:
    conv = TensorInfo(name="conv", shape=(1, 8, 8, 4), dtype="float32")
    graph = LayerGraph(
        inputs=(IMAGE,),
        outputs=("scores",),
        layers=(
            Layer(name="conv", op="CONV_2D", inputs=("image",), outputs=(conv,), weight_bytes=36, macs=2304),
            Layer(name="fc", op="FULLY_CONNECTED", inputs=("conv",), outputs=(SCORES,), weight_bytes=2560, macs=2560),
        ),
    )
    return Artifact(
        name="net",
        format="tflite",
        spec=spec_for_recipe("int8"),
        source="net.h5",
        kind="cnn",
        files=(FileEntry(path="model.tflite", role="model", bytes=4, sha256="0" * 64),),
        source_inputs=(IMAGE,),
        source_outputs=(SCORES,),
        signatures=(Signature(name="serving_default", inputs=(IMAGE,), outputs=(SCORES,)),),
        graph=graph,
        outcomes=(),
        toolchain={"numpy": "2"},
    )


def test_an_artifact_survives_the_round_trip_through_a_file(tmp_path):
    write_json(an_artifact(), tmp_path / "manifest.json")
    assert read_json(Artifact, tmp_path / "manifest.json") == an_artifact()
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


@given(
    st.builds(
        QuantSpec,
        recipe=st.sampled_from(["float32", "int8", "int4"]),
        weight_bits=st.sampled_from([4, 8, 32]),
        fallback_bits=st.sampled_from([None, 8, 32]),
        percentile=st.floats(51, 100),
        rules=st.lists(st.builds(LayerRule, pattern=st.text(max_size=8), weight_bits=st.just(8))).map(tuple),
    )
)
def test_every_quant_spec_survives_the_round_trip(spec):
    assert loads(QuantSpec, dumps(spec), where="spec") == spec


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_floats_that_json_cannot_hold_survive(value):
    back = from_json(float, json.loads(json.dumps(to_json(value), allow_nan=False)))
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_all_problems_come_at_once_and_close_names_are_suggested():
    data = to_json(IMAGE)
    data["shap"] = data.pop("shape")
    data["dtype"] = "float33"
    with pytest.raises(BadInput) as error:
        from_json(TensorInfo, data, where="manifest.inputs[0]")
    text = str(error.value)
    assert "manifest.inputs[0].shap: unknown key; did you mean shape?" in text
    assert "manifest.inputs[0].shape: missing." in text
    assert "manifest.inputs[0].dtype: 'float33': must be one of 'float32'" in text


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema_version": 99}', "null"])
def test_what_is_not_our_json_is_refused_with_its_place(text):
    with pytest.raises(BadInput, match=r"manifest\.json"):
        loads(Artifact, text, where="manifest.json")


def test_a_graph_that_reads_a_tensor_before_it_is_made_does_not_exist():
    layer = Layer(name="fc", op="FULLY_CONNECTED", inputs=("ghost",), outputs=(SCORES,))
    with pytest.raises(BadInput, match="layer fc: reads ghost before any layer makes it"):
        LayerGraph(inputs=(IMAGE,), outputs=("scores",), layers=(layer,))


def test_the_last_matching_rule_decides_the_width():
    rules = (LayerRule(pattern="block*", weight_bits=4), LayerRule(pattern="block1.*", weight_bits=32))
    spec = spec_for_recipe("int8", rules=rules)
    assert [spec.bits_for(name) for name in ("stem", "block2.conv", "block1.conv")] == [8, 4, 32]
