"""Artifacts run in environments that hold a device's packages alone, today's and the old runtime's."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edge_deploy
from edge_deploy.core.profile import ModelProfile
from edge_deploy.core.serde import write_json

ROOT = Path(edge_deploy.__file__).parents[1]
ENVIRONMENTS = {
    "today": ("edge-deploy[run-tflite]",),
    "tflite-runtime 2.14 and NumPy 1": ("edge-deploy[run-tflite-runtime]",),
}
# What a device does: open, run, and say what had to be loaded for it.
SCRIPT = """
import json, sys
import numpy as np
from edge_deploy import open_session
open_session(sys.argv[1])
peak = next((line for line in open("/proc/self/status") if line.startswith("VmHWM")), "VmHWM: 0 kB")
peak_bytes = int(peak.split()[1]) * 1024
with np.load(sys.argv[2]) as images:
    feeds = [image.reshape(1, 8, 8, 1) for image in images["x"]]
    answers, kernels = [], []
    for choice in ("default", "builtin"):
        session = open_session(sys.argv[1], kernels=choice)
        name = session.signature.inputs[0].name
        answers.append([next(iter(session.run({name: feed}).values())).tolist() for feed in feeds])
        kernels.append(session.kernels)
heavy = [name for name in ("torch", "tensorflow", "executorch", "google.protobuf") if name in sys.modules]
told = {"answers": answers, "kernels": kernels, "numpy": np.__version__, "heavy": heavy, "peak_bytes": peak_bytes}
print(json.dumps(told))
"""
# The command line without what only POSIX systems have: what Windows would make of it, as far as this machine can tell.
COMMAND = """
import os, sys
for name in ("resource", "fcntl", "pwd", "grp", "termios", "posix_ipc"):
    sys.modules[name] = None
for name in ("fork", "sched_getaffinity", "sched_setaffinity", "getloadavg"):
    if hasattr(os, name):
        delattr(os, name)
from edge_deploy.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    heavy = [name for name in ("torch", "tensorflow", "executorch", "keras") if name in sys.modules]
    sys.exit(f"loaded {heavy}" if heavy else end.code)
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An INT8 CNN and images for it."""
    folder = tmp_path_factory.mktemp("light")
    images = np.random.default_rng(3).random((8, 1, 8, 8), dtype=np.float32)
    np.savez(folder / "images.npz", x=images)
    edge_deploy.convert(
        edge_deploy.convert_request(
            "edge_deploy.zoo.small_cnn:small_cnn",
            to=["tflite"],
            precision=["int8"],
            inputs=["image:1,1,8,8"],
            calibrate=folder / "images.npz",
            out=folder / "out",
        )
    )
    made = edge_deploy.read_artifact(folder / "out/tflite-int8")
    for device, seconds in (("edge", 1e-3), ("cloud", 1e-4)):
        times = {layer.name: seconds for layer in made.graph.layers}
        profile = ModelProfile(
            artifact=made.name,
            sha256=made.model_file.sha256,
            device=device,
            kernels="k",
            provenance="measured",
            source="test",
            layer_s=times,
            overhead_s=0.0,
            whole_s=sum(times.values()),
        )
        write_json(profile, folder / f"{device}.json")
    return folder


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def elsewhere(request, tmp_path_factory, artifact):
    """What the script printed in an environment of its own."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    extras = [f"{ROOT}[{name.partition('[')[2]}" for name in ENVIRONMENTS[request.param]]
    installed = subprocess.run(
        [str(home / "bin/pip"), "install", "--quiet", "-e", *extras], capture_output=True, text=True, check=False
    )
    if installed.returncode and "No matching distribution" in installed.stderr:
        pytest.skip(f"the packages of {request.param} cannot be had here: {installed.stderr.strip()[-200:]}")
    assert installed.returncode == 0, installed.stderr
    (home / "script.py").write_text(SCRIPT)
    ran = subprocess.run(
        [str(home / "bin/python"), "script.py", str(artifact / "out/tflite-int8"), str(artifact / "images.npz")],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
    )
    assert ran.returncode == 0, ran.stderr
    return request.param, json.loads(ran.stdout), home


def test_the_artifact_runs_there_without_heavy_libraries(elsewhere):
    environment, said, _ = elsewhere
    old = environment.startswith("tflite-runtime")
    assert said["heavy"] == []
    assert said["peak_bytes"] < 60_000_000  # `make bench-light` measures the time too
    assert said["numpy"].startswith("1." if old else "2.")
    assert all(("tflite-runtime 2.14" if old else "ai-edge-litert") in kernels for kernels in said["kernels"])


def test_the_answers_are_those_of_this_environment_up_to_the_rounding_of_an_older_xnnpack(elsewhere, artifact):
    environment, said, _ = elsewhere
    with np.load(artifact / "images.npz") as images:
        for choice, answers in zip(("default", "builtin"), said["answers"], strict=True):
            session = edge_deploy.open_session(artifact / "out/tflite-int8", kernels=choice)
            feeds = [{session.signature.inputs[0].name: image.reshape(1, 8, 8, 1)} for image in images["x"]]
            here = np.array([next(iter(session.run(feed).values())) for feed in feeds])
            error = here - np.array(answers)
            if environment.startswith("tflite-runtime") and choice == "default":
                # A rounding otherwise in one layer goes on through the next ones.
                assert np.square(error).mean() < 1e-3 * here.var(), choice
            else:
                # A step of the INT8 output is at least this wide: the same integers, told by floats.
                assert np.abs(error).max() < 0.01 * np.ptp(here) / 255, choice


def test_planning_simulating_and_inspecting_need_neither_heavy_libraries_nor_posix(elsewhere, artifact):
    environment, _, home = elsewhere
    (home / "command.py").write_text(COMMAND)
    pair = ("--edge", artifact / "edge.json", "--cloud", artifact / "cloud.json")
    folder, out = artifact / "out/tflite-int8", ("--out", home / "simulation")
    commands = [
        ("plan", folder, *pair, "--uplink", "20Mbit", "--rtt", "30ms"),
        ("simulate", folder, *pair, "--trace", "gen:markov-link", "--policy", "static", "--rate", "1/s", *out),
        ("cuts", folder),
    ]
    if not environment.startswith("tflite-runtime"):  # which brings no schema to read files by
        commands.append(("inspect", folder))
    for words in commands:
        ran = subprocess.run(
            [str(home / "bin/python"), "command.py", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=home,
        )
        assert ran.returncode == 0, f"{words[0]}: {ran.stdout[-500:]}\n{ran.stderr[-2000:]}"
        assert ran.stdout.strip()
