"""`edge-deploy profile` as a user runs it: measured, by prefixes, under load, fitted and estimated, and misused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_deploy.api.profile import graph_of
from edge_deploy.core.profile import ModelProfile
from edge_deploy.core.serde import read_json

QUICK = ("--rounds", "2", "--runs", "10")


def run(*words: object) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "edge_deploy.cli.main", "profile", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tf = pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("net")
    kernels = [tf.random.normal((3, 3, a, b), seed=a) for a, b in ((3, 16), (16, 16), (16, 32))]
    dense = tf.random.normal((32, 10), seed=1)

    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3), name="x")])
        def call(self, x):
            for kernel in kernels:
                x = tf.nn.relu(tf.nn.conv2d(x, kernel, strides=1, padding="SAME"))
            return {"y": tf.nn.softmax(tf.reduce_mean(x, axis=(1, 2)) @ dense)}

    net = Net()
    net.call.get_concrete_function()
    tf.saved_model.save(net, str(folder / "saved"), signatures=net.call)
    (folder / "net.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert())
    return folder / "net.tflite"


@pytest.fixture(scope="module")
def artifact(model: Path) -> Path:
    """A folder with a manifest: the head of the model that is cut before its last layer."""
    from converters.split import open_parent, split
    from edge_deploy.core.cut import make_cut

    parent = open_parent(model)
    names = [layer.name for layer in parent.artifact.graph.layers]
    (written,) = split(parent, [make_cut(parent.artifact.graph, names[:-1])], model.parent / "halves", check=False).cuts
    assert written.head is not None
    return written.head


@pytest.mark.parametrize("how", ["profiler", "prefixes"])
def test_layers_of_a_profile_are_those_of_the_graph_and_it_says_whether_they_add_up(
    model: Path, tmp_path: Path, how: str
) -> None:
    out = tmp_path / "p.json"
    code, text, err = run(model, "--out", out, "--by", how, "--json", *QUICK)
    assert code == 0, err
    told, written = json.loads(text), read_json(ModelProfile, out)
    assert list(written.layer_s) == [layer.name for layer in graph_of(model).layers]
    assert told["adds_up"] == written.adds_up
    assert told["profile"]["whole_s"] == written.whole_s > 0
    assert written.provenance == "measured"
    assert written.source == {"profiler": "runtime profiler", "prefixes": "timed prefixes"}[how]
    if not written.adds_up:
        assert "warning: does not add up" in err
    convolutions = sorted((seconds, name) for name, seconds in written.layer_s.items())[-2:]
    working = sorted((layer.macs, layer.name) for layer in graph_of(model).layers)[-2:]
    assert {name for _, name in convolutions} == {name for _, name in working}


def test_the_device_s_codecs_are_timed_so_that_a_plan_with_one_is_no_estimate(model: Path, tmp_path: Path) -> None:
    from edge_deploy.api.plan import PlanRequest, plan_partition
    from edge_deploy.core.conditions import Conditions

    code, _, err = run(model, "--out", tmp_path / "p.json", "--by", "profiler", *QUICK)
    assert code == 0, err
    found = read_json(ModelProfile, tmp_path / "p.json")
    assert set(found.codec_s_per_byte) >= {"requantize:int8", "requantize:int4"}
    assert all(0 < seconds < 1e-6 for both in found.codec_s_per_byte.values() for seconds in both)
    now = Conditions(uplink_bps=1e6, downlink_bps=1e6, rtt_s=0.01)
    plan = plan_partition(PlanRequest(artifact=model, edge=found, cloud=found, codec="requantize:int4"), now)
    assert plan.provenance == "measured"
    assert not any("estimates from a desktop core" in warning for warning in plan.warnings)
    without = dataclasses.replace(found, codec_s_per_byte={})
    guessed = plan_partition(PlanRequest(artifact=model, edge=found, cloud=without, codec="requantize:int4"), now)
    assert guessed.provenance == "estimated"


def test_a_sweep_under_load_gives_curves_with_their_raw_points(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.json"
    options = ("--under-load", "--cpu-levels", "1", "--memory-levels", "", "--rounds", "1", "--runs", "10")
    code, text, err = run(model, "--out", out, *options)
    assert code == 0, err
    written = read_json(ModelProfile, out)
    assert written.cpu.at == (0.0, 1.0)
    assert written.cpu.factor[1] >= written.cpu.factor[0] == 1.0
    assert written.memory.at == (0.0,)
    assert {point.what for point in written.load_points} <= {"cpu", "cores"}
    assert not written.memory.covers(0.5)
    assert "slowdown by CPU load" in text


def test_coefficients_of_measured_profiles_give_estimates_that_never_replace_a_measurement(
    model: Path, artifact: Path, tmp_path: Path
) -> None:
    assert run(artifact, *QUICK)[0] == 0
    measured = read_json(ModelProfile, artifact / "profile.json")
    code, text, err = run("--fit", tmp_path / "c.json", artifact / "profile.json")
    assert code == 0, err
    assert "fitted on" in text
    code, text, err = run(artifact, "--estimate-with", tmp_path / "c.json")
    assert code == 0, err
    assert "estimated" in text
    guess = read_json(ModelProfile, artifact / "profile.estimated.json")
    assert guess.provenance == "estimated"
    assert read_json(ModelProfile, artifact / "profile.json") == measured
    code, _, err = run("--fit", tmp_path / "d.json", artifact / "profile.estimated.json")
    assert (code, "is an estimate" in err) == (3, True)


def test_what_cannot_be_profiled_is_said_before_anything_runs(model: Path, tmp_path: Path) -> None:
    for words, message in (
        ((), "0 artifacts given"),
        ((model, model), "2 artifacts given"),
        ((model,), "give --out FILE"),
        ((tmp_path / "missing",), "no such file or folder"),
        ((model, "--out", tmp_path / "no" / "p.json"), "is no folder"),
        ((model, "--out", tmp_path / "p.json", "--by", "guess"), "must be auto, profiler or prefixes"),
        ((model, "--out", tmp_path / "p.json", "--cpu-levels", "half"), "must be numbers"),
        ((model, "--out", tmp_path / "p.json", "--device", "nowhere"), "nowhere"),
        ((model, "--out", tmp_path / "p.json", "--threads", "0"), "threads = 0"),
        ((model, "--out", tmp_path / "p.json", "--estimate-with", model), "cannot be read"),
        (("--fit", tmp_path / "c.json", tmp_path / "p.json"), "cannot be read"),
    ):
        code, _, err = run(*words)
        assert code == 3, (words, err)
        assert message in err, (words, err)
    assert not list(tmp_path.iterdir())
