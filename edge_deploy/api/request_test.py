import pytest

from edge_deploy.api.request import convert_request, folder_name, one_source, parse_input, parse_shape
from edge_deploy.core.errors import BadInput
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.zoo.description import find_description


def test_an_input_is_declared_in_one_word():
    image, ids = parse_input("image:1,3,32,32"), parse_input("ids:1x26:int64")
    assert (image.name, image.shape, image.dtype, image.layout) == ("image", (1, 3, 32, 32), "float32", "NCHW")
    assert (ids.shape, ids.dtype, ids.layout) == ((1, 26), "int64", None)


@pytest.mark.parametrize("text", ["image", ":1,3", "image:1,a", "image:1,0", "image:1,3:float8", "image:1,-5"])
def test_a_wrong_declaration_says_what_would_be_right(text):
    with pytest.raises(BadInput, match=f"--input {text}"):
        parse_input(text)


@pytest.mark.parametrize("text", ["image", "image:", "image:1,-1", "image:0,2"])
def test_a_wrong_shape_says_what_would_be_right(text):
    with pytest.raises(BadInput, match="must be NAME:SHAPE"):
        parse_shape(text)


def test_all_problems_of_a_request_come_at_once_with_close_names(tmp_path):
    with pytest.raises(BadInput) as error:
        convert_request("net.h5", to=["tflit"], precision=["int9"], inputs=["x"], out=tmp_path / "out")
    text = str(error.value)
    assert "did you mean tflite?" in text
    assert "--precision int9: must be one of float32, float16, int8, int4" in text
    assert "--input x:" in text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"fallback": "int7"}, "--fallback int7: must be one of int8, float32"),
        ({"io": "uint8"}, "--io uint8: must be one of float, int8"),
        ({"table_scale": "column"}, "--table-scale column: must be one of row, table"),
        ({"max_drop": 0.1}, "pass --eval"),
        ({"strict": True}, "--strict: judges --max-drop"),
        ({"calibrate": "nowhere.npz"}, "--calibrate nowhere.npz: no such file"),
        ({"batches": (0,)}, "--batch"),
        ({"percentile": 20.0}, "percentile = 20.0"),
        ({"to": []}, "--to: name at least one target"),
        ({"plain_pte": True}, "--plain-pte: is about INT4 on ExecuTorch"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(tmp_path, options, problem):
    with pytest.raises(BadInput, match=problem):
        convert_request("net.h5", **{"to": ["tflite"], "precision": ["int8"], "out": tmp_path / "out", **options})


def test_repeated_targets_and_precisions_give_each_pair_once(tmp_path):
    request = convert_request("n.h5", to=["tflite", "tflite"], precision=["int8", "int4", "int8"], out=tmp_path / "out")
    names = [folder_name(target, spec) for target, spec in request.pairs]
    assert names == ["tflite-int8", "tflite-int4"]
    assert folder_name("tflite", spec_for_recipe("int8", for_device="mcu")) == "tflite-int8-mcu"


def test_exactly_one_model_is_named():
    assert one_source("net.h5", None) == "net.h5"
    assert one_source(None, "package.module:factory") == "package.module:factory"
    for model, source in ((None, None), ("net.h5", "p:f")):
        with pytest.raises(BadInput, match="name one model"):
            one_source(model, source)


def test_a_data_set_that_comes_with_the_tool_is_named(tmp_path):
    planned = convert_request(
        "net.h5", to=["tflite"], precision=["int8"], out=tmp_path / "out", calibrate="cifar10_train4k"
    )
    assert planned.calibrate == find_description("cifar10_train4k")
    assert planned.calibrate.is_file()
