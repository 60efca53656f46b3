"""`edge-deploy run` and `replay` as a user types them, with a server beside them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput

pytest.importorskip("grpc")


@pytest.fixture(scope="module")
def net(data, tmp_path_factory):
    """A net, two cuts of it, inputs, and the port of a server that has the tails."""
    from edge_deploy.api.split import split
    from runtimes.serving.server import ServerThread, Serving

    folder = tmp_path_factory.mktemp("net")
    model = data / "models" / "yardstick_cnn_int8" / "cnn_int8.tflite"
    split(model, cuts=["all-cloud", "005-e951fb"], out=folder / "halves", check=False)
    images = np.random.default_rng(0).integers(-128, 127, (6, 32, 32, 3), np.int8)
    np.savez(folder / "x.npz", keras_tensor=images)
    with ServerThread(Serving(artifacts=(folder / "halves",))) as server:
        yield model, folder, server.port


def run(*words):
    command = [sys.executable, "-m", "edge_deploy.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_run_answers_as_the_model_does_and_its_record_can_be_replayed(net, tmp_path):
    from runtimes.session import open_session

    model, folder, port = net
    common = ("--halves", folder / "halves", "--cloud", f"127.0.0.1:{port}", "--inputs", folder / "x.npz")
    options = (
        "--cut",
        "005-e951fb",
        "--fallback",
        "60s",
        "--out",
        tmp_path / "y.npz",
        "--record",
        tmp_path / "r.jsonl",
    )
    done = run(
        "run", model, *common, *options, "--repeat", 3, "--rate", "200/s", "--dashboard", "127.0.0.1:0", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"]["answered"] == {"edge": 0, "cloud": 18, "fallback": 0, "lost": 0}
    assert {one["cut"] for one in told["agreement"]} == {"all-cloud", "005-e951fb"}
    assert all(one["identical"] for one in told["agreement"])
    assert "live page: http://127.0.0.1:" in done.stderr
    session = open_session(model, trusted=True)
    with np.load(folder / "x.npz") as images, np.load(tmp_path / "y.npz") as found:
        for number, image in enumerate(images["keras_tensor"]):
            for name, wanted in session.run({"keras_tensor": image[None]}).items():
                np.testing.assert_array_equal(found[name][number : number + 1], wanted)
    done = run("replay", tmp_path / "r.jsonl", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "live run: mean" in done.stdout
    assert len(json.loads((tmp_path / "out" / "trace.json").read_text())["traceEvents"]) > 18 * 3


def test_a_server_that_is_not_there_is_told_and_costs_no_answer(net):
    model, folder, _ = net
    done = run("run", model, "--cloud", "127.0.0.1:1", "--inputs", folder / "x.npz", "--cut", "all-cloud")
    assert done.returncode == 0, done.stderr
    assert "answered: 6 fallback" in done.stdout
    assert "cloud: CloudGone" in done.stdout
    done = run(
        "run",
        model,
        "--cloud",
        "127.0.0.1:1",
        "--inputs",
        folder / "x.npz",
        "--cut",
        "all-cloud",
        "--fallback",
        "never",
    )
    assert done.returncode == 7
    assert "CloudGone" not in done.stderr and "127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cloud", "nowhere"), "must be HOST:PORT"),
        (("--cloud", "127.0.0.1:1", "--cut", "nope"), "there is no half for it here"),
        (("--cloud", "127.0.0.1:1", "--switch", "later"), "later: unknown"),
        (("--cloud", "127.0.0.1:1", "--rate", "many"), "must be a number of requests in a time"),
        (("--cloud", "127.0.0.1:1", "--edge", "profile.json"), "go together"),
        (("--cloud", "127.0.0.1:1", "--tls-cert", "cert.pem"), "come together"),
        (("--cloud", "127.0.0.1:1", "--cut", "all-edge", "--dashboard", "0.0.0.0:1"), "ssh -L"),
    ],
)
def test_bad_options_are_refused_with_what_would_be_right(net, words, told):
    from edge_deploy.cli.main import app

    model, folder, _ = net
    with pytest.raises(BadInput, match=told):
        app(["run", str(model), "--inputs", str(folder / "x.npz"), *words], standalone_mode=False)
