import io
import struct
import zipfile

import numpy as np
import pytest

from converters.loading.file_kind import describe, file_kind


def _zip(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"something")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "hdf5"),
        (_zip("metadata.json", "config.json", "model.weights.h5"), "keras"),
        (_zip("archive/archive_format", "archive/models/model.json"), "pt2"),
        (_zip("net/data.pkl", "net/version"), "torch-checkpoint"),
        (_zip("net/data.pkl", "net/constants.pkl", "net/code/x.py"), "torchscript"),
        (_zip("x.npy", "y.npy"), "npz"),
        (_zip("readme.txt"), "zip"),
        (_zip("config.json")[:30], "damaged-zip"),
        (bytes(4) + b"TFL3" + bytes(8), "tflite"),
        (bytes(4) + b"ET12" + bytes(8), "pte"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02", "torch-checkpoint"),
        (struct.pack("<Q", 40) + b'{"a":{}}' + bytes(40), "torch-checkpoint"),
        (b"\x08\x07\x12\x07pytorch", "onnx"),
        (b"", "empty"),
        (b"hello", "unknown"),
        (b"P", "unknown"),
        (b"\x08", "unknown"),
    ],
)
def test_the_bytes_tell_the_kind_whatever_the_name_says(tmp_path, content, expected):
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    assert file_kind(path) == expected
    assert describe(expected)


def test_folders_and_missing_files_are_told_apart(tmp_path):
    assert file_kind(tmp_path) == "folder"
    assert file_kind(tmp_path / "no") == "missing"
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    assert file_kind(tmp_path) == "saved-model"


def test_any_beginning_of_a_file_has_a_kind(tmp_path):
    path = tmp_path / "noise"
    generator = np.random.default_rng(0)
    starts = [b"PK", b"\x08\x01", b"\x89HDF", b""]
    for case in range(200):
        path.write_bytes(starts[case % 4] + generator.bytes(int(generator.integers(0, 80))))
        assert describe(file_kind(path))
