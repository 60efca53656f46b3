import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import edge_deploy
from edge_deploy.core.errors import BadInput, VerificationFailed
from edge_deploy.core.passes import DEFAULT, FOLD
from runtimes.folder import check_files

PAIRS = ("tflite-float32", "tflite-int8", "tflite-int4", "executorch-float32", "executorch-int8", "executorch-int4")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A trained CNN with calibration and evaluation data, as a user would have them."""
    import torch

    from edge_deploy.zoo.small_cnn import train_digits, write_npz

    folder = tmp_path_factory.mktemp("digits")
    network, training, test = train_digits(seed=1, epochs=4)
    torch.save(network.state_dict(), folder / "digits.pt")
    write_npz((training[0][:200], training[1][:200]), folder / "calibrate.npz")
    write_npz(test, folder / "eval.npz")
    return folder


def request(digits, out, **changes):
    options = {
        "to": ["tflite", "executorch"],
        "precision": ["float32", "int8", "int4"],
        "fallback": "int8",
        "weights": digits / "digits.pt",
        "inputs": ["image:1,1,8,8"],
        "calibrate": digits / "calibrate.npz",
        "evaluate": digits / "eval.npz",
        "out": out,
        **changes,
    }
    return edge_deploy.convert_request("edge_deploy.zoo.small_cnn:small_cnn", **options)


@pytest.fixture(scope="module")
def converted(digits, tmp_path_factory):
    return edge_deploy.convert(request(digits, tmp_path_factory.mktemp("converted") / "out"))


def test_one_folder_appears_for_each_pair_beside_one_report(converted):
    names = sorted(entry.name for entry in converted.folder.iterdir())
    assert names == sorted([*PAIRS, "report.html"])
    assert [entry.name for entry in converted.folder.parent.iterdir()] == ["out"]
    assert "small_cnn" in converted.report.read_text()


@pytest.mark.parametrize("pair", PAIRS)
def test_every_pass_is_recorded_with_its_before_and_after(converted, pair):
    artifact = edge_deploy.read_artifact(converted.folder / pair)
    if artifact.spec.is_float:
        assert artifact.passes == ()
        return
    assert tuple(record.name for record in artifact.passes) == DEFAULT
    measured = [record for record in artifact.passes if record.samples]
    assert len(measured) >= 2
    for record in measured:
        assert record.before_accuracy is not None and record.after_agreement is not None
        assert record.applied == (record.after_snr_db > record.before_snr_db) or record.name == FOLD
    assert "Passes before and after" in converted.report.read_text()


@pytest.mark.parametrize("pair", PAIRS)
def test_every_artifact_is_whole_and_says_what_each_layer_became(converted, pair):
    artifact = edge_deploy.read_artifact(converted.folder / pair)
    check_files(converted.folder / pair, artifact)
    written = {path.relative_to(converted.folder / pair).as_posix() for path in (converted.folder / pair).rglob("*.*")}
    assert written == {entry.path for entry in artifact.files} | {"manifest.json"}
    bits = {"float32": 32, "int8": 8, "int4": 4}[artifact.spec.recipe]
    assert len(artifact.outcomes) >= 6
    for outcome in artifact.outcomes:
        if outcome.is_as_asked:
            assert outcome.weight_bits == bits, outcome
        else:
            assert outcome.reason, outcome
            assert outcome.weight_bits == 8, outcome
    if pair == "executorch-int4":
        assert any("stored" in outcome.got for outcome in artifact.outcomes)


@pytest.mark.parametrize("pair", PAIRS)
def test_every_artifact_agrees_with_its_source_at_one_and_two_threads(converted, pair):
    artifact = edge_deploy.read_artifact(converted.folder / pair)
    least = {"float32": 80.0, "int8": 18.0, "int4": 3.0}[artifact.spec.recipe]
    comparisons = artifact.verification.comparisons
    assert [comparison.threads for comparison in comparisons] == [1, 2]
    assert all(comparison.finite and comparison.snr_db > least for comparison in comparisons)
    assert all(comparison.kernels for comparison in comparisons)
    (accuracy,) = artifact.verification.differences
    assert accuracy.low <= accuracy.difference <= accuracy.high
    assert accuracy.samples == comparisons[0].samples == 360


def test_narrower_artifacts_are_smaller(converted):
    size = {f"{a.format}-{a.spec.recipe}": a.device_bytes for a in converted.artifacts}
    for target in ("tflite", "executorch"):
        assert size[f"{target}-int4"] < size[f"{target}-int8"] < size[f"{target}-float32"]


@pytest.mark.parametrize("pair", PAIRS)
def test_a_session_classifies_with_what_the_manifest_says(converted, digits, pair):
    from converters.verify import run_all

    artifact = edge_deploy.read_artifact(converted.folder / pair)
    session = edge_deploy.open_session(converted.folder / pair)
    with np.load(digits / "eval.npz") as data:
        images, labels = data["x"], data["y"]
    scores = next(iter(run_all(session, artifact, {"image": images}).values()))
    measured = float((scores.argmax(1) == labels).mean())
    assert measured == pytest.approx(artifact.verification.differences[0].artifact, abs=0.01)


def test_the_written_artifact_verifies_again_with_its_source(converted, digits):
    from converters.contracts import CaptureRequest
    from edge_deploy.api.request import parse_input

    source = CaptureRequest(
        source="edge_deploy.zoo.small_cnn:small_cnn",
        weights=digits / "digits.pt",
        inputs=(parse_input("image:1,1,8,8"),),
    )
    artifact, result = edge_deploy.verify(
        converted.folder / "tflite-int8", request=source, evaluate=digits / "eval.npz", max_drop=0.2
    )
    assert result.verdict == "passed"
    assert result.comparisons[0].snr_db == pytest.approx(artifact.verification.comparisons[0].snr_db, abs=0.5)


def test_the_front_door_takes_paths_as_text(converted, digits, tmp_path):
    folder = str(converted.folder / "tflite-int8")
    assert edge_deploy.read_artifact(folder).name == "small_cnn"
    artifact, result = edge_deploy.verify(folder, evaluate=str(digits / "eval.npz"))
    assert result.comparisons[0].samples == 360
    assert edge_deploy.inspect(folder).loads == "yes"
    page = edge_deploy.write_report(str(converted.folder), str(tmp_path / "page.html"))
    assert artifact.name in page.read_text()
    session = edge_deploy.open_session(folder)
    (scores,) = session.run({"image": np.zeros((1, 8, 8, 1), np.float32)}).values()
    assert scores.shape == (1, 10)


def test_every_name_of_the_front_door_is_there():
    for name in edge_deploy.__all__:
        assert getattr(edge_deploy, name).__doc__, name


def test_a_changed_file_is_found_by_its_digest(converted, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(converted.folder / "tflite-int8", folder)
    data = bytearray((folder / "model.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.tflite").write_bytes(data)
    with pytest.raises(BadInput, match=r"model\.tflite"):
        edge_deploy.verify(folder)


def test_an_existing_folder_is_kept_and_force_replaces_only_ours(converted, digits, tmp_path):
    with pytest.raises(BadInput, match="exists already"):
        edge_deploy.convert(request(digits, converted.folder))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(BadInput, match="holds other things"):
        edge_deploy.convert(request(digits, tmp_path / "thesis", force=True))
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


def damaged(digits, folder, change):
    with np.load(digits / "calibrate.npz") as data:
        arrays = change(dict(data))
    np.savez(folder / "calibrate.npz", **arrays)
    return folder / "calibrate.npz"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda a: {**a, "x": a["x"].transpose(0, 2, 3, 1)}, "shape"),
        (lambda a: {**a, "x": np.where(a["x"] > 0.9, np.nan, a["x"])}, "NaN or infinity"),
        (lambda a: {**a, "x": a["x"].astype("U4")}, "numbers"),
        (lambda a: {**a, "y": a["y"][:-1]}, "199"),
        (lambda a: {"pictures": a["x"], "y": a["y"], "names": a["y"]}, "pictures"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused_and_nothing_is_written(digits, tmp_path, change, problem):
    calibrate = damaged(digits, tmp_path, change)
    with pytest.raises(BadInput, match=problem):
        edge_deploy.convert(request(digits, tmp_path / "out", calibrate=calibrate, precision=["int8"]))
    assert [entry.name for entry in tmp_path.iterdir()] == ["calibrate.npz"]


def test_judging_on_calibration_data_is_refused(digits, tmp_path):
    with pytest.raises(BadInput, match="also stand in"):
        edge_deploy.convert(request(digits, tmp_path / "out", evaluate=digits / "calibrate.npz"))


def test_int8_activations_without_calibration_are_refused(digits, tmp_path):
    with pytest.raises(BadInput, match="pass --calibrate"):
        edge_deploy.convert(request(digits, tmp_path / "out", calibrate=None))


def test_weights_with_nan_are_refused_by_name(digits, tmp_path):
    import torch

    state = torch.load(digits / "digits.pt", weights_only=True)
    name = next(key for key in state if key.endswith("weight"))
    state[name][0] = float("nan")
    torch.save(state, tmp_path / "digits.pt")
    with pytest.raises(BadInput, match=name.split(".")[0]):
        edge_deploy.convert(request(digits, tmp_path / "out", weights=tmp_path / "digits.pt", to=["tflite"]))
    assert not (tmp_path / "out").exists()


def test_labels_of_another_task_are_refused(digits, tmp_path):
    with np.load(digits / "eval.npz") as data:
        np.savez(tmp_path / "eval.npz", x=data["x"], y=data["y"] + 50)
    wrong = request(digits, tmp_path / "out", evaluate=tmp_path / "eval.npz", to=["tflite"], precision=["float32"])
    with pytest.raises((BadInput, VerificationFailed), match="10 classes"):
        edge_deploy.convert(wrong)
    assert not (tmp_path / "out").exists()


def convert_command(digits, out, *more):
    return [
        *(sys.executable, "-m", "edge_deploy.cli.main", "convert", "--source", "edge_deploy.zoo.small_cnn:small_cnn"),
        *("--weights", str(digits / "digits.pt"), "--input", "image:1,1,8,8", "--to", "tflite", "--precision", "int8"),
        *("--calibrate", str(digits / "calibrate.npz"), "--out", str(out), *more),
    ]


def test_ctrl_c_midway_leaves_nothing(digits, tmp_path):
    process = subprocess.Popen(convert_command(digits, tmp_path / "out"), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "lower" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: nothing was written" in err
    assert list(tmp_path.iterdir()) == []
    assert not _children_of(process.pid)


def _children_of(pid):
    return [entry for entry in Path("/proc").glob("[0-9]*/stat") if _parent(entry) == pid]


def _parent(stat):
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(digits, tiny_disk):
    done = subprocess.run(convert_command(digits, tiny_disk / "out"), capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tiny_disk.iterdir()) == []


def test_the_command_prints_what_it_made_as_json(digits, tmp_path):
    command = convert_command(digits, tmp_path / "out", "--json", "--io", "int8", "--batch", "1", "--batch", "4")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    (artifact,) = json.loads(done.stdout)["artifacts"]
    assert [signature["inputs"][0]["shape"][0] for signature in artifact["signatures"]] == [1, 4]
    assert {signature["inputs"][0]["dtype"] for signature in artifact["signatures"]} == {"int8"}
    assert artifact["signatures"][0]["inputs"][0]["scale"] == artifact["signatures"][1]["inputs"][0]["scale"]
    assert len(artifact["verification"]["comparisons"]) == 3


def test_converting_one_small_net_leaves_no_process_behind(converted):
    deadline = time.monotonic() + 5
    while _children_of(os.getpid()) and time.monotonic() < deadline:
        os.sched_yield()
    names = [Path(f"/proc/{entry.parent.name}/cmdline").read_text() for entry in _children_of(os.getpid())]
    assert not [name for name in names if "edge_deploy.core.child" in name]


def test_tensors_have_the_same_names_at_every_precision(converted):
    """So that files of two precisions can be laid side by side in Netron, and overlays fit each of them."""
    from runtimes.formats.tflite_file import read_tflite

    def names(recipe):
        (graph,) = read_tflite(converted.folder / f"tflite-{recipe}/model.tflite").subgraphs
        made = {index for operator in graph.operators for index in operator.outputs}
        return [graph.tensors[index].name for index in sorted(made)]

    whole, narrow, narrowest = (names(recipe) for recipe in ("float32", "int8", "int4"))
    assert len(set(whole)) == len(whole)
    assert set(narrow) == set(narrowest)
    assert set(whole) <= set(narrow), "what is made in float has its name in the quantized files too"


def test_what_is_known_of_images_stands_in_the_file_itself(converted):
    from runtimes.formats.tflite import read_signatures

    for recipe in ("float32", "int8", "int4"):
        (signature,) = read_signatures(converted.folder / f"tflite-{recipe}/model.tflite")
        assert signature.inputs[0].layout == "NHWC"


def test_where_layers_run_is_what_the_profiler_saw(converted):
    from runtimes.placement import observed_placement

    folder = converted.folder / "tflite-int4"
    seen = observed_placement(folder / "model.tflite")
    if seen is None:
        pytest.skip("no profiler of this runtime is known")
    artifact = edge_deploy.read_artifact(folder)
    assert {outcome.layer: outcome.runs_on for outcome in artifact.outcomes} == {
        outcome.layer: seen[outcome.layer] for outcome in artifact.outcomes
    }
