"""The preprocessing of described data travels in the manifest, and what apps do with it is what the model takes."""

import numpy as np
import pytest

import edge_deploy
from edge_deploy.api.preprocessing import known_pixels
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo, encode_input
from edge_deploy.zoo.datasets import open_dataset

DESCRIPTION = """
[items]
path = "{folder}"
decode = "raw"
shape = [8, 8, 1]
dtype = "uint8"

[labels]
path = "labels.csv"
header = true
key = "file"
label = "digit"

[preprocess]
divide = {divide}
"""
INPUT = (TensorInfo(name="image", shape=(1, 1, 8, 8), dtype="float32", layout="NCHW"),)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Pixels 0 to 16 of scikit-learn's digits as raw files, described twice; a network trained on pixels / 16."""
    import torch
    from sklearn.datasets import load_digits

    from edge_deploy.zoo.small_cnn import train_digits

    folder = tmp_path_factory.mktemp("digits")
    data = load_digits()
    lines = ["file,digit"]
    for part, start in (("train", 0), ("test", 200)):
        (folder / part).mkdir()
        for index in range(start, start + 60):
            (folder / part / f"{index}.bin").write_bytes(data.images[index].astype(np.uint8).tobytes())
            lines.append(f"{index}.bin,{data.target[index]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    for name, part, divide in (("train", "train", 16.0), ("test", "test", 16.0), ("test255", "test", 255.0)):
        (folder / f"{name}.toml").write_text(DESCRIPTION.format(folder=part, divide=divide))
    (folder / "names.txt").write_text("\n".join(f"digit {index}" for index in range(10)))
    network, _, _ = train_digits(seed=1, epochs=1)
    torch.save(network.state_dict(), folder / "digits.pt")
    return folder


def request(digits, out, **changes):
    options = {
        "to": ["tflite"],
        "precision": ["int8"],
        "weights": digits / "digits.pt",
        "inputs": ["image:1,1,8,8"],
        "calibrate": digits / "train.toml",
        "evaluate": digits / "test.toml",
        "labels": digits / "names.txt",
        "out": out,
        **changes,
    }
    return edge_deploy.convert_request("edge_deploy.zoo.small_cnn:small_cnn", **options)


@pytest.fixture(scope="module")
def converted(digits, tmp_path_factory):
    return edge_deploy.convert(request(digits, tmp_path_factory.mktemp("converted") / "out", io="int8"))


def test_source_and_signature_inputs_carry_mean_and_std_of_pixels(converted):
    for artifact in converted.artifacts:
        for info in (artifact.source_inputs[0], artifact.signatures[0].inputs[0]):
            assert (info.mean, info.std) == ((0.0,), (16.0,))
        assert artifact.signatures[0].outputs[0].labels[3] == "digit 3"


def test_an_app_that_follows_the_manifest_classifies_raw_pixels(converted, digits):
    """From stored bytes to the session's input with nothing but the manifest."""
    artifact = converted.artifacts[0]
    session = edge_deploy.open_session(converted.folder / "tflite-int8")
    source, target = artifact.source_inputs[0], session.signature.inputs[0]
    said = artifact.signatures[0].inputs[0]
    want = open_dataset(digits / "test.toml", inputs=artifact.source_inputs)
    pixels = {path.read_bytes(): path for path in (digits / "test").iterdir()}
    for sample in list(want)[:5]:
        stored = np.rint(sample.inputs["image"] * 16).astype(np.uint8)
        assert stored.tobytes() in pixels
        prepared = (stored - np.asarray(said.mean)) / np.asarray(said.std)
        fed = encode_input(prepared[None].astype(np.float32), source=source, target=said)
        expected = encode_input(sample.inputs["image"][None], source=source, target=said)
        assert np.array_equal(fed, expected)
        assert session.run({target.name: fed})


def test_data_sets_that_contradict_each_other_are_refused_with_both_names(digits, tmp_path):
    with pytest.raises(BadInput, match=r"test255\.toml .*255.*train\.toml .*16"):
        edge_deploy.convert(request(digits, tmp_path / "out", evaluate=digits / "test255.toml"))
    assert not (tmp_path / "out").exists()


def test_one_name_too_few_is_refused_before_anything_is_lowered(digits, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join("abcdefghi"))
    with pytest.raises(BadInput, match=r"9 class names, output .* has 10 classes"):
        edge_deploy.convert(request(digits, tmp_path / "out", labels=tmp_path / "names.txt"))
    assert not (tmp_path / "out").exists()


def test_the_calibration_sets_preprocessing_counts_where_there_is_no_other(digits, tmp_path):
    np.savez(tmp_path / "eval.npz", image=np.zeros((3, 1, 8, 8), np.float32))
    described, plain = (open_dataset(path, inputs=INPUT) for path in (digits / "train.toml", tmp_path / "eval.npz"))
    assert known_pixels(plain, described).std == (16.0,)
    assert known_pixels(None, described).std == (16.0,)
    assert known_pixels(described, None).std == (16.0,)
    assert known_pixels(plain, None) is None
