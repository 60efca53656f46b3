"""Metadata written and read back by fields of the published schema, beside a model that still runs."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tensorflow")

from converters.tflite.flatbuffer import read_model, schema, write_model
from converters.tflite.metadata import with_metadata
from edge_deploy.core.artifact import Artifact, FileEntry
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.quant_spec import spec_for_recipe
from runtimes.folder import check_files
from runtimes.formats.flat_table import root_table
from runtimes.formats.tflite import read_signatures
from runtimes.formats.tflite_file import read_tflite
from runtimes.formats.tflite_lint import file_warnings, lint
from runtimes.session import open_session

LABELS = ("cat", "dog", "élan")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A small image classifier as an artifact without metadata."""
    import tensorflow as tf

    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 4, 6, 3), tf.float32, name="image")])
        def __call__(self, image):
            kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32)
            return {"scores": tf.reduce_mean(tf.nn.conv2d(image, kernel, 1, "SAME"), [1, 2])}

    net = Net()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([net.__call__.get_concrete_function()], net)
    folder = tmp_path_factory.mktemp("plain")
    (folder / "model.tflite").write_bytes(converter.convert())
    return folder / "model.tflite"


@pytest.fixture
def described(plain, tmp_path):
    """The artifact with layout, mean, std and labels in its file, and its folder."""
    from converters.tflite.signatures import ensure_signatures

    path = tmp_path / "model.tflite"
    model = read_model(plain)
    ensure_signatures(model)
    write_model(model, path)
    (signature,) = read_signatures(path)
    image = replace(signature.inputs[0], layout="NHWC", mean=(123.5, 116.25, 103.0), std=(58.5, 57.0, 57.25))
    scores = replace(signature.outputs[0], labels=LABELS, meaning="logit")
    artifact = Artifact(
        name="net",
        format="tflite",
        spec=spec_for_recipe("float32"),
        source="net",
        kind="cnn",
        files=(FileEntry(path=path.name, role="model", bytes=path.stat().st_size, sha256=file_sha256(path)),),
        source_inputs=(image,),
        source_outputs=(scores,),
        signatures=(replace(signature, inputs=(image,), outputs=(scores,)),),
        graph=LayerGraph(inputs=(), outputs=(), layers=()),
        outcomes=(),
        toolchain={},
    )
    return with_metadata(artifact, tmp_path), tmp_path


def test_what_was_written_is_read_with_the_bare_file(described):
    _, folder = described
    (signature,) = read_signatures(folder / "model.tflite")
    assert signature.inputs[0].layout == "NHWC"
    assert signature.inputs[0].mean == (123.5, 116.25, 103.0) and signature.inputs[0].std == (58.5, 57.0, 57.25)
    assert signature.outputs[0].labels == LABELS and signature.outputs[0].layout is None
    assert lint(folder / "model.tflite") == () and file_warnings(read_tflite(folder / "model.tflite")) == ()


def test_the_model_runs_as_before_and_its_digest_is_the_new_files(described, plain):
    artifact, folder = described
    check_files(folder, artifact)
    image = np.random.default_rng(1).random((1, 4, 6, 3), dtype=np.float32)
    sessions = [open_session(path, trusted=True) for path in (plain, folder / "model.tflite")]
    before, after = (next(iter(each.run({each.signature.inputs[0].name: image}).values())) for each in sessions)
    np.testing.assert_array_equal(before, after)
    assert sessions[1].signature.outputs[0].labels == LABELS


def test_the_bytes_are_those_of_the_published_schema(described):
    _, folder = described
    model = schema().Model.GetRootAs((folder / "model.tflite").read_bytes(), 0)
    (entry,) = [
        model.Metadata(k) for k in range(model.MetadataLength()) if model.Metadata(k).Name() == b"TFLITE_METADATA"
    ]
    content = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert content[4:8] == b"M001"
    root = root_table(content, where="metadata")
    assert root.text(0) == "net" and root.text(7) == "1.0.0"
    (graph,) = root.tables(3)
    (image,), (scores,) = graph.tables(2), graph.tables(3)
    assert image.text(0) == "image" and scores.text(0) == "scores"
    content_of_image = image.table(3)
    assert content_of_image.number(0, "u8") == 2  # ImageProperties
    properties = content_of_image.table(1)
    assert properties.number(0, "i8") == 1  # RGB
    assert [properties.table(1).number(slot, "u32") for slot in (0, 1)] == [6, 4]  # width, height
    (unit,) = image.tables(4)
    assert unit.number(0, "u8") == 1  # NormalizationOptions
    assert scores.table(3).number(0, "u8") == 1  # FeatureProperties
    (labels,) = scores.tables(6)
    assert labels.number(2, "i8") == 2  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(folder / "model.tflite") as archive:
        assert archive.read(labels.text(0)).decode() == "cat\ndog\nélan\n"


def test_the_same_artifact_gives_the_same_bytes_and_nothing_is_added_twice(described):
    artifact, folder = described
    first = (folder / "model.tflite").read_bytes()
    again = with_metadata(artifact, folder)
    assert (folder / "model.tflite").read_bytes() == first and again == artifact


def test_a_file_with_nothing_to_say_is_left_alone(described, plain):
    artifact, folder = described
    bare = replace(artifact.signatures[0], inputs=(), outputs=())
    before = (folder / "model.tflite").read_bytes()
    silent = replace(artifact, signatures=(bare,))
    assert with_metadata(silent, folder) is silent
    assert (folder / "model.tflite").read_bytes() == before


@pytest.mark.parametrize("damage", ["identifier", "archive", "offset"])
def test_damaged_metadata_are_told_and_do_not_keep_the_model_from_running(described, damage):
    _, folder = described
    path = folder / "model.tflite"
    content = bytearray(path.read_bytes())
    if damage == "archive":
        del content[-60:]
    else:
        start = content.index(b"M001") - 4
        content[start : start + 8] = b"\xff\xff\xff\x7fM001" if damage == "offset" else b"\x10\0\0\0M002"
    path.write_bytes(content)
    assert any("TFLite Metadata are not read" in text for text in file_warnings(read_tflite(path)))
    (signature,) = read_signatures(path)
    assert signature.outputs[0].labels == () and signature.inputs[0].mean == ()
    assert open_session(path, trusted=True).signature.inputs[0].name == "image"
