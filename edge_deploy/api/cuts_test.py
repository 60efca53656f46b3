"""Cuts of model files that we did not write."""

import pytest

from edge_deploy.api.cuts import list_cuts
from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput


def test_foreign_tflite_files_are_cut_at_every_position_of_their_graphs(data):
    files = sorted((data / "models").rglob("*.tflite"))
    assert files
    for path in files:
        found = list_cuts(path)
        first, last = found.cuts[0], found.cuts[-1]
        assert (first.cut.id, last.cut.id) == ("all-cloud", "all-edge")
        assert first.cut.up_bytes == sum(tensor_bytes(tensor) for tensor in first.cut.up)
        assert last.cut.up_bytes == last.cut.down_bytes == 0
        assert last.edge_macs == found.macs > 0
        assert [len(item.cut.edge_layers) for item in found.cuts] == list(range(len(found.cuts)))
        assert len({item.cut.id for item in found.cuts}) == len(found.cuts)
        assert any(not item.refused for item in found.cuts[1:-1])


def test_an_int8_boundary_is_one_byte_an_element(data):
    path = next((data / "models" / "imagenet_coral_int8_tflite").rglob("*.tflite"))
    inside = [item.cut.up for item in list_cuts(path).cuts[1:-1]]
    crossing = [tensor for up in inside for tensor in up if tensor.dtype in ("int8", "uint8")]
    assert crossing
    for tensor in crossing:
        size = 1
        for length in tensor.shape:
            size *= length
        assert tensor_bytes(tensor) == size


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"must be an artifact's folder or a \.tflite file"):
        list_cuts(tmp_path / "net.onnx")
    (tmp_path / "net.tflite").write_bytes(b"not a flatbuffer")
    with pytest.raises(BadInput, match=r"net\.tflite"):
        list_cuts(tmp_path / "net.tflite")
    with pytest.raises(BadInput, match="batch = 0"):
        list_cuts(tmp_path, batch=0)
