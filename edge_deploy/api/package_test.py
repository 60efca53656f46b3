"""Phone projects of small artifacts. Their C part is compiled by the real compiler and held against Python."""

import hashlib
import re
import shutil
from dataclasses import replace

import pytest

from edge_deploy.api.package import _InFile, package
from edge_deploy.core.artifact import MANIFEST, Artifact, FileEntry, Signature
from edge_deploy.core.errors import BadInput, ToolchainError, Unsupported
from edge_deploy.core.features import Categorical, Dense, FeatureSpec, GoldenRow, HashedIds, Vocabulary, encode_rows
from edge_deploy.core.features import write_features as write
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.serde import read_json, write_json
from edge_deploy.core.tensor import TensorInfo
from runtimes.formats.nibble_ptd import MAGIC

WORDS = ("plain", "naïve", 'quo"te', "back\\slash", "%d 12", "漢字", "", "twice", "twice", "z" * 300)
FEATURES = FeatureSpec(
    fields=("n", "s", "i", "h", "x", "v", "d"),
    dense=(
        Dense(field="n", transform="log1p", mean=1.25, std=0.5),
        Dense(field="s", transform="signed-log1p", missing=-3.0),
        Dense(field="i", mean=-2.0, std=3.0),
    ),
    categorical=(
        Categorical(field="h", rows=1000, hashed=HashedIds(modulus=997, seed=(1 << 63) + 12345)),
        Categorical(field="x", rows=5003, hashed=HashedIds(modulus=5001, algorithm="hex-integer", seed=77)),
        Categorical(field="v", rows=20, vocabulary=Vocabulary(values=WORDS), missing_id=0, unseen_id=1),
        Categorical(field="d", rows=40, direct=True, missing_id=39),
    ),
)
ROWS = (
    ("11", "-4.5e1", "", "", "", "", ""),
    ("", "", "3", "a", "0", "plain", "0"),
    ("-7", "2", "1e-3", "68fd1e64" * 40, "fFfFffffffffffffffffffff01", "naïve", "38"),
    ("0", "0", "-0.5", "ü" * 61, "80000000", 'quo"te', "7"),
    ("1.5", "1e3", "9", "x" * 119, "1", "漢字", "12"),
    ("2", "3", "4", "x" * 120, "2", "back\\slash", "3"),
    ("2", "3", "4", "x" * 121, "3", "twice", "3"),
    ("2", "3", "4", "x" * 248, "4", "nobody knows it", "3"),
    ("2", "3", "4", "x" * 249, "5", "%d 12", "3"),
    ("2", "3", "4", "y", "6", "z" * 300, "3"),
)


@pytest.fixture(scope="module", autouse=True)
def compiler():
    if shutil.which("cc") is None:
        pytest.skip("cc: not installed; apt-get install gcc")


def artifact(folder, *, inputs, outputs, sources=None, source_outputs=None, features=None, kind="generic", outcomes=()):
    folder.mkdir()
    (folder / "model.tflite").write_bytes(b"\x08\0\0\0TFL3 not looked into")
    paths = [("model.tflite", "model")]
    if features is not None:
        paths += [
            (path.name, "features" if path.name == "features.json" else "vocabulary")
            for path in write(features, folder)
        ]
    files = []
    for name, role in paths:
        data = (folder / name).read_bytes()
        files.append(FileEntry(path=name, role=role, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    made = Artifact(
        name="two words-int8",
        format="tflite",
        spec=QuantSpec(recipe="int8"),
        source="a test",
        kind=kind,
        files=tuple(files),
        source_inputs=sources or inputs,
        source_outputs=source_outputs or outputs,
        signatures=(Signature(name="serving_default", inputs=inputs, outputs=outputs),),
        graph=LayerGraph(inputs=(), outputs=(), layers=()),
        outcomes=tuple(outcomes),
        toolchain={},
    )
    write_json(made, folder / MANIFEST)
    return folder


@pytest.fixture(autouse=True)
def tflite_files_are_not_read(monkeypatch):
    # The model's bytes are none; where its tensors stand in the file is not what is tested here.
    called = _InFile(name="serving_default", inputs=(0, 1), outputs=(0,))
    monkeypatch.setattr("edge_deploy.api.package._in_file", lambda *_: called)


def recommender(folder, *, dtype="int32", features=FEATURES):
    dense, ids = encode_rows(features, ROWS)
    golden = tuple(
        GoldenRow(raw=raw, dense=tuple(map(float, d)), ids=tuple(map(int, i)), score=0.5)
        for raw, d, i in zip(ROWS, dense, ids, strict=True)
    )
    inputs = (
        TensorInfo(name="dense", shape=(-1, 3), dtype="float32"),
        TensorInfo(name="sparse", shape=(-1, 4), dtype=dtype),
    )
    output = TensorInfo(name="y", shape=(-1, 1), dtype="float32", meaning="logit")
    return artifact(
        folder,
        inputs=inputs,
        outputs=(output,),
        source_outputs=(replace(output, meaning="probability"),),
        features=replace(features, golden=golden),
        kind="recommender",
    )


def image(folder, *, layout, dtype="int8", source_layout="NCHW"):
    sizes = {"NHWC": (1, 6, 5, 3), "NCHW": (1, 3, 6, 5)}
    scale = {"scale": (0.037,), "zero_point": (-3,)} if dtype != "float32" else {}
    source = TensorInfo(
        name="x",
        shape=sizes[source_layout],
        dtype="float32",
        layout=source_layout,
        mean=(123.7, 116.3, 103.5),
        std=(58.4, 57.1, 57.4),
    )
    target = TensorInfo(name="x", shape=sizes[layout], dtype=dtype, layout=layout, **scale)
    output = TensorInfo(name="y", shape=(1, 2), dtype="int8", scale=(0.25,), zero_point=(4,), labels=("$a", 'b"'))
    return artifact(folder, inputs=(target,), outputs=(output,), sources=(source,), kind="cnn")


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_every_way_to_encode_a_field_is_the_same_in_c(tmp_path, dtype):
    report = package(recommender(tmp_path / "a", dtype=dtype), platform="android", out=tmp_path / "out")
    assert "selftest: 10 rows, 0 pixels, 0 failures" in report.built[0].outcome
    assert "fun score(fields: Array<String>): FloatArray" in next((tmp_path / "out").rglob("EdgeModel.kt")).read_text()


def test_the_self_test_notices_a_wrong_encoding(tmp_path, monkeypatch):
    from edge_deploy.api import package as module

    changed = replace(FEATURES, dense=(replace(FEATURES.dense[0], std=0.51), *FEATURES.dense[1:]))
    right = module.spec_source
    monkeypatch.setattr(module, "spec_source", lambda a, s, f: right(a, s, replace(changed, golden=f.golden)))
    with pytest.raises(ToolchainError, match=r"self-test of the C part failed: .*dense of row 0 differs"):
        package(recommender(tmp_path / "a"), platform="android", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_pixels_become_the_bytes_that_python_makes_of_them(tmp_path, layout, dtype):
    report = package(image(tmp_path / "a", layout=layout, dtype=dtype), platform="ios", out=tmp_path / "out")
    assert re.search(r"selftest: 0 rows, \d\d+ pixels, 0 failures", report.built[0].outcome)


def test_what_cannot_be_built_here_is_labelled_and_never_called_built(tmp_path):
    made = image(tmp_path / "a", layout="NHWC")
    outcomes = {}
    for platform in ("android", "ios"):
        report = package(made, platform=platform, out=tmp_path / platform)
        outcomes[platform] = report.built[-1]
        assert report.built[-1].outcome in (tmp_path / platform / "DELIVERY.md").read_text()
    assert outcomes["android"].part == "Kotlin, JNI"
    assert outcomes["android"].outcome.startswith("not built: no Android SDK here")
    assert outcomes["ios"].outcome.startswith("not built: no Swift for iOS here")


def test_the_model_is_an_uncompressed_asset_beside_the_official_runtime(tmp_path):
    made = image(tmp_path / "a", layout="NHWC")
    report = package(made, platform="android", out=tmp_path / "android")
    text = (tmp_path / "android/model/build.gradle.kts").read_text()
    assert 'noCompress += listOf("tflite", "pte")' in text
    assert f'implementation("{report.dependency}")' in text
    assert report.dependency.startswith("com.google.ai.edge.litert:litert:")
    asset = tmp_path / "android/model/src/main/assets/model.tflite"
    assert asset.read_bytes() == (made / "model.tflite").read_bytes()
    assert 'listOf("\\$a", "b\\"")' in next((tmp_path / "android").rglob("EdgeModel.kt")).read_text()
    package(made, platform="ios", out=tmp_path / "ios")
    assert "s.dependency 'TensorFlowLiteSwift'" in next((tmp_path / "ios").glob("*.podspec")).read_text()


def test_no_place_of_a_template_stays_empty(tmp_path):
    for number, made in enumerate((recommender(tmp_path / "a"), image(tmp_path / "b", layout="NCHW"))):
        for platform in ("android", "ios"):
            out = tmp_path / f"{platform}{number}"
            package(made, platform=platform, out=out)
            for path in out.rglob("*"):
                if path.is_file() and path.suffix not in (".tflite", ".h", ".c"):
                    assert not re.search(r"@[A-Z_]{2,}@", path.read_text()), path


def test_large_tables_get_a_note_on_their_delivery(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_deploy.api.phone.delivery.LARGE_BYTES", 10)
    made = recommender(tmp_path / "a")
    package(made, platform="android", out=tmp_path / "android")
    assert "Play Asset Delivery" in (tmp_path / "android/DELIVERY.md").read_text()
    package(made, platform="ios", out=tmp_path / "ios")
    assert "Background Assets" in (tmp_path / "ios/DELIVERY.md").read_text()


def test_what_phones_cannot_load_is_refused(tmp_path):
    odd = TensorInfo(name="x", shape=(1, -1), dtype="float32")
    out = TensorInfo(name="y", shape=(1, 2), dtype="float32")
    with pytest.raises(Unsupported, match="no other dynamic dimension than the batch"):
        package(artifact(tmp_path / "a", inputs=(odd,), outputs=(out,)), platform="ios", out=tmp_path / "out")
    half = TensorInfo(name="x", shape=(1, 4), dtype="float16")
    with pytest.raises(Unsupported, match="type float16: must be one of"):
        package(artifact(tmp_path / "b", inputs=(half,), outputs=(out,)), platform="ios", out=tmp_path / "out")
    made = recommender(tmp_path / "c")
    (tmp_path / "taken").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        package(made, platform="ios", out=tmp_path / "taken")
    (made / "model.tflite").write_bytes(b"damaged")
    with pytest.raises(BadInput, match="damaged or replaced"):
        package(made, platform="ios", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_beside_an_executorch_program_go_to_ios_and_are_refused_where_no_runtime_takes_them(tmp_path):
    made = recommender(tmp_path / "a")
    (made / "model.tflite").unlink()
    (made / "model.pte").write_bytes(b"a program")

    def described(tables: bytes) -> None:
        (made / "model.ptd").write_bytes(tables)
        found = read_json(Artifact, made / MANIFEST)
        kept = [entry for entry in found.files if entry.role not in ("model", "data")]
        entries = [
            FileEntry(path=name, role=role, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, role, data in (("model.pte", "model", b"a program"), ("model.ptd", "data", tables))
        ]
        write_json(replace(found, format="executorch", files=(*entries, *kept)), made / MANIFEST)

    described(b"tables")
    package(made, platform="ios", out=tmp_path / "ios")
    resources = tmp_path / "ios/Sources/EdgeModel/Resources"
    assert (resources / "model.pte").read_bytes() == b"a program"
    assert (resources / "model.ptd").read_bytes() == b"tables"
    swift = (tmp_path / "ios/Sources/EdgeModel/EdgeModel.swift").read_text()
    assert 'Module(filePath: path, dataFilePaths: [try resource("model", "ptd")], loadMode: .mmap)' in swift
    assert (
        '[.copy("Resources/model.pte"), .copy("Resources/model.ptd")]' in (tmp_path / "ios/Package.swift").read_text()
    )
    assert (
        f"- data: model.ptd, 6 B, sha256 {hashlib.sha256(b'tables').hexdigest()}"
        in (tmp_path / "ios/DELIVERY.md").read_text()
    )
    with pytest.raises(Unsupported, match=r"Module\.load takes one path; on iOS it takes both"):
        package(made, platform="android", out=tmp_path / "android")
    described(MAGIC + b"packed")
    for platform in ("android", "ios"):
        with pytest.raises(Unsupported, match="packed beside the program, which our own runner alone inflates"):
            package(made, platform=platform, out=tmp_path / platform, force=True)
