"""Debugging and searching as a user does it: from files to the command that mends, which works when pasted."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("executorch")

from converters.contracts import CaptureRequest
from edge_deploy.api.debug import debug
from edge_deploy.api.debug_request import DebugRequest
from edge_deploy.api.request import parse_input
from edge_deploy.api.search import search
from edge_deploy.api.search_request import SearchRequest
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import write_json
from runtimes.folder import check_files, read_artifact

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A trained CNN with calibration and evaluation data."""
    import torch

    from edge_deploy.zoo.small_cnn import train_digits, write_npz

    folder = tmp_path_factory.mktemp("digits")
    network, training, test = train_digits(seed=1, epochs=3)
    torch.save(network.state_dict(), folder / "digits.pt")
    write_npz((training[0][:100], training[1][:100]), folder / "calibrate.npz")
    write_npz((test[0][:160], test[1][:160]), folder / "eval.npz")
    return folder


def source(digits):
    return CaptureRequest(
        source="edge_deploy.zoo.small_cnn:small_cnn",
        weights=digits / "digits.pt",
        inputs=(parse_input("image:1,1,8,8"),),
    )


def search_request(digits, **changes):
    options = {
        "capture": source(digits),
        "target": "tflite",
        "spec": spec_for_recipe("int8"),
        "calibrate": digits / "calibrate.npz",
        "evaluate": digits / "eval.npz",
        "out": digits / "search",
        "max_drop": 0.05,
        "widths": (4, 8),
        "points": 1,
        "sensitivity_samples": 16,
        **changes,
    }
    return SearchRequest(**options)


@pytest.fixture(scope="module")
def searched(digits):
    return search(search_request(digits))


def test_points_of_a_search_are_whole_artifacts_with_the_widths_that_were_asked(digits, searched):
    made = [point for point in searched.points if not point.failure]
    assert {"uniform-int4", "uniform-int8"} <= {point.name for point in made}
    mixed = [point for point in made if not point.is_uniform]
    assert mixed
    for point in made:
        folder = digits / "search" / "points" / point.name
        artifact = read_artifact(folder)
        check_files(folder, artifact)
        assert artifact.device_bytes == point.device_bytes
    for point in mixed:
        outcomes = read_artifact(digits / "search" / "points" / point.name).outcomes
        assert {outcome.layer: round(outcome.weight_bits) for outcome in outcomes} == point.bits
        assert len(set(point.bits.values())) == 2


def test_the_chosen_point_is_the_smallest_within_the_limit_and_confirmed_on_other_samples(searched):
    good = [point for point in searched.points if point.drop <= 0.05]
    assert searched.chosen == min(good, key=lambda point: (point.device_bytes, point.drop)).name
    assert searched.search_samples == searched.confirm_samples == 80
    assert searched.confirmation.samples == 80
    assert searched.confirmation.low <= searched.confirmation.difference <= searched.confirmation.high
    assert searched.verdict in ("confirmed", "not resolved", "not confirmed")


def test_a_search_goes_on_where_it_ended_and_a_folder_of_another_is_refused(digits, searched):
    stages = []
    again = search(search_request(digits, max_drop=0.06), progress=stages.append)
    assert not any(stage.startswith("convert uniform") for stage in stages)
    assert {point.name for point in searched.points} <= {point.name for point in again.points}
    with pytest.raises(BadInput, match="another model, data or limits"):
        search(search_request(digits, calibrate_limit=50))


@pytest.fixture(scope="module")
def debugged(digits, searched):
    request = DebugRequest(
        folder=digits / "search" / "points" / "uniform-int4",
        source=source(digits),
        data=digits / "eval.npz",
        calibrate=digits / "calibrate.npz",
        limit=24,
        out=digits / "debug",
    )
    return debug(request)


def test_the_measured_artifact_is_what_its_layers_errors_predict(debugged):
    found = debugged.diagnosis
    assert found.metric == "accuracy"
    assert found.estimated.snr_db == pytest.approx(found.measured.snr_db, abs=3)
    assert {layer.layer for layer in found.layers} >= {"image", "stem.0", "linear"}


def test_the_printed_command_converts_with_the_change(digits, debugged):
    words = shlex.split(debugged.fix.command)
    assert words[:2] == ["edge-deploy", "convert"]
    out = digits / "fixed"
    words[words.index("--out") + 1] = str(out)
    command = [sys.executable, "-m", "edge_deploy.cli.main", *words[1:]]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    ((layer, precision),) = debugged.fix.layers
    artifact = read_artifact(out / "tflite-fix")
    bits = {outcome.layer: outcome.weight_bits for outcome in artifact.outcomes}
    assert bits[layer] == {"int8": 8, "float32": 32}[precision]
    assert min(bits.values()) == 4


def test_page_and_json_stand_in_the_folder(digits, debugged):
    page = (digits / "debug" / "debug.html").read_text()
    assert debugged.fix.command.split()[0] in page and "stem.0" in page and "<svg" in page
    told = json.loads((digits / "debug" / "debug.json").read_text())
    assert told["diagnosis"]["layers"][0]["layer"] == debugged.diagnosis.layers[0].layer
    assert "<svg" in (digits / "search" / "search.html").read_text()


def test_what_cannot_be_debugged_is_refused(digits, searched, tmp_path):
    wrong = DebugRequest(
        folder=digits / "search" / "points" / "uniform-int8",
        source=source(digits),
        data=digits / "eval.npz",
        prove=("stem.9",),
        limit=4,
    )
    with pytest.raises(BadInput, match=r"stem\.9"):
        debug(wrong)
    with pytest.raises(BadInput, match="no such file"):
        DebugRequest(folder=tmp_path, source=source(digits), data=tmp_path / "none.npz")
    np.savez(tmp_path / "few.npz", x=np.zeros((4, 1, 8, 8), np.float32), y=np.zeros(4, int))
    with pytest.raises(BadInput, match="half of them"):
        search(search_request(digits, evaluate=tmp_path / "few.npz", out=tmp_path / "search"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"format": "c"}, "cannot be looked at"), ({"spec": spec_for_recipe("float32")}, "nothing in it is quantized")],
)
def test_only_quantized_artifacts_are_looked_into(digits, searched, tmp_path, change, problem):
    artifact = read_artifact(digits / "search" / "points" / "uniform-int8")
    write_json(replace(artifact, **change), tmp_path / "manifest.json")
    with pytest.raises(Unsupported, match=problem):
        debug(DebugRequest(folder=tmp_path, source=source(digits), data=digits / "eval.npz"))
