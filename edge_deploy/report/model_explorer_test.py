"""Overlays are of the documented form and name nodes as the artifact's layers are called."""

import json

import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.report import write_overlays
from edge_deploy.report.report_test import CNN_LAYERS, write_example


def test_each_artifact_gets_an_overlay_for_what_is_known_of_its_layers(tmp_path):
    write_example(tmp_path / "example")
    written = write_overlays(tmp_path / "example", tmp_path / "overlays")
    names = {path.name for path in written}
    assert "tflite-int8.snr-db.json" in names and "tflite-int4.weight-bits.json" in names
    assert "tflite-float32.snr-db.json" not in names, "a float artifact has no errors"
    assert not any(name.startswith("executorch") for name in names), "Model Explorer opens no .pte"
    overlay = json.loads((tmp_path / "overlays/tflite-int8.snr-db.json").read_text())
    assert set(overlay) == {"results", "gradient"}
    assert set(overlay["results"]) == set(CNN_LAYERS)
    assert all(set(entry) == {"value"} and isinstance(entry["value"], float) for entry in overlay["results"].values())
    assert [stop["stop"] for stop in overlay["gradient"]] == [0, 1]
    assert all(stop["bgColor"].startswith("#") for stop in overlay["gradient"])


def test_bits_are_those_of_the_manifest(tmp_path):
    write_example(tmp_path / "example")
    write_overlays(tmp_path / "example", tmp_path / "overlays")
    bits = json.loads((tmp_path / "overlays/tflite-int4.weight-bits.json").read_text())["results"]
    assert bits["dense"]["value"] == 8.0 and bits[CNN_LAYERS[0]]["value"] == 4.0


def test_a_folder_without_tflite_says_what_model_explorer_opens(tmp_path):
    write_example(tmp_path / "example")
    for folder in (tmp_path / "example").glob("**/tflite-*"):
        for file in folder.iterdir():
            file.unlink()
    with pytest.raises(BadInput, match="Model Explorer opens neither"):
        write_overlays(tmp_path / "example", tmp_path / "overlays")
