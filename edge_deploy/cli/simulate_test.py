"""`simulate` as a user types it, on an artifact that is a manifest alone: simulating needs no model file."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from edge_deploy.cli.main import main
from edge_deploy.core.artifact import MANIFEST, Artifact, FileEntry, Signature
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile, Slowdown
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import write_json
from edge_deploy.core.tensor import TensorInfo

SIZES = (40_000, 30_000, 8_000, 2_000, 10)


def run(*words):
    done = subprocess.run(
        [sys.executable, "-m", "edge_deploy.cli.main", *map(str, words)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def tensor(name, size):
    return TensorInfo(name=name, shape=(-1, size), dtype="int8", scale=(0.1,), zero_point=(0,))


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    names = [f"conv{i}" for i in range(len(SIZES))]
    layers = tuple(
        Layer(
            name=name, op="CONV_2D", inputs=(f"t{i}" if i else "x",), outputs=(tensor(f"t{i + 1}", SIZES[i]),), macs=9
        )
        for i, name in enumerate(names)
    )
    graph = LayerGraph(inputs=(tensor("x", 60_000),), outputs=(f"t{len(SIZES)}",), layers=layers)
    artifact = Artifact(
        name="net",
        format="tflite",
        spec=spec_for_recipe("int8"),
        source="net.keras",
        kind="cnn",
        files=(FileEntry(path="model.tflite", role="model", bytes=1, sha256="a" * 64),),
        source_inputs=graph.inputs,
        source_outputs=layers[-1].outputs,
        signatures=(Signature(name="serve", inputs=graph.inputs, outputs=layers[-1].outputs),),
        graph=graph,
        outcomes=(),
        toolchain={},
    )
    write_json(artifact, folder / MANIFEST)
    for device, factor in (("pi", 1.0), ("server", 0.05)):
        times = dict.fromkeys(names, 0.02 * factor)
        profile = ModelProfile(
            artifact="net",
            sha256="a" * 64,
            device=device,
            kernels="k",
            provenance="measured",
            source="test",
            layer_s=times,
            overhead_s=0.001,
            whole_s=sum(times.values()) + 0.001,
            cpu=Slowdown(at=(0.0, 0.8), factor=(1.0, 2.0)),
        )
        write_json(profile, folder / f"{device}.json")
    random = np.random.default_rng(0)
    for name in ("train", "score"):
        rates = np.repeat(random.choice([2.0, 8.0, 30.0], 90), 10)
        lines = ["time,uplink,downlink,rtt", *(f"{s},{rate},{2 * rate},30" for s, rate in enumerate(rates))]
        (folder / f"{name}.csv").write_text("\n".join(lines))
    return folder


COLUMNS = ("--column", "uplink=uplink:Mbit/s", "--column", "downlink=downlink:Mbit/s", "--column", "rtt=rtt:ms")


def simulate(net, *words):
    return run("simulate", net, "--edge", net / "pi.json", "--cloud", net / "server.json", *words)


def test_a_simulation_ends_in_a_verdict_a_page_and_a_row_for_every_request(net, tmp_path):
    out = tmp_path / "out"
    files = ("--trace", net / "score.csv", "--train", net / "train.csv", *COLUMNS)
    code, text, err = simulate(net, *files, "--rate", "2/s", "--out", out, "--json")
    assert code == 0, err
    found = json.loads(text)["simulation"]
    assert found["pays"] and found["verdict"].startswith("Adapting pays"), found["verdict"]
    names = [score["name"] for score in found["scores"]]
    assert names[-3:] == ["hindsight-static", "oracle", "oracle-paying"] and "learned" in names
    by = {score["name"]: score for score in found["scores"]}
    assert (
        by["learned"]["captured"] > 0.6 and by["oracle"]["mean_s"] <= by["learned"]["mean_s"] <= by["static"]["mean_s"]
    )
    assert found["trained_on"] == ["train.csv"] and found["scored_on"][0]["requests"] == by["static"]["requests"]
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 2 and "http" not in page.replace("http-equiv", "") and "hindsight-static" in page
    assert json.loads((out / "simulation.json").read_text())["verdict"] == found["verdict"]
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(out / "requests.parquet")
    assert rows.num_rows == len(names) * by["static"]["requests"]
    code, _, err = simulate(net, *files, "--out", out)
    assert code == 3 and "exists already" in err


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(net):
    words = (
        "--trace",
        "gen:markov-link+outages+bursts",
        "--seconds",
        "120",
        "--policy",
        "hysteresis,learned",
        "--json",
    )

    def means(seed):
        code, text, err = simulate(net, *words, "--seed", seed)
        assert code == 0, err
        return [score["mean_s"] for score in json.loads(text)["simulation"]["scores"]]

    first = means(1)
    assert first == means(1) and first != means(2)


def test_without_training_traces_the_first_half_trains_and_a_table_is_printed(net):
    code, text, err = simulate(
        net, "--trace", net / "score.csv", *COLUMNS, "--policy", "always-best", "--fill", "edge_load=0.9"
    )
    assert code == 0, err
    assert "the first half of each trace trained" in text
    assert "edge_load reaches 90%" in text and "measured up to 80%" in text
    lines = text.splitlines()
    assert any(line.startswith("static ") for line in lines) and any(line.startswith("oracle ") for line in lines)
    assert "edge_load is made up: constant 0.9" in text


def test_python_gives_what_the_command_gives(net):
    from edge_deploy import SimulateRequest
    from edge_deploy import simulate as simulate_policies

    words = (
        "--trace",
        "gen:markov-link",
        "--seconds",
        "100",
        "--policy",
        "static",
        "--cloud-fails",
        "60s-70s",
        "--json",
    )
    told = json.loads(simulate(net, *words, "--arrivals", "periodic")[1])["simulation"]
    request = SimulateRequest(
        artifact=net,
        edge=net / "pi.json",
        cloud=net / "server.json",
        traces=("gen:markov-link",),
        policies=("static",),
        arrivals="periodic",
        seconds=100.0,
        cloud_fails=((60.0, 70.0),),
    )
    found = simulate_policies(request)
    assert [score.mean_s for score in found.scores] == [score["mean_s"] for score in told["scores"]]
    assert found.verdict == told["verdict"]


def test_no_policy_nor_bound_ever_chooses_a_cut_that_a_limit_rules_out(net, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    words = ("--trace", "gen:markov-link+outages+bursts", "--seconds", "200", "--rate", "3/s")

    def cuts_used(*limits):
        out = tmp_path / "-".join(limits).replace("/", "")
        code, text, err = simulate(net, *words, *limits, "--out", out, "--json")
        assert code == 0, err
        rows = parquet.read_table(out / "requests.parquet", columns=["policy", "cut"]).to_pylist()
        found = json.loads(text)["simulation"]
        return {(row["policy"], row["cut"]) for row in rows}, found

    free, _ = cuts_used("--tick", "1s")
    kept, found = cuts_used("--keep-on-edge", "conv1", "--max-bytes", "10kB")
    layers_on_edge = {
        cut["cut"]["id"]: cut["cut"]["edge_layers"] for cut in json.loads(run("cuts", net, "--json")[1])["cuts"]
    }
    assert {cut for _, cut in free} & {"all-cloud"}
    assert all("conv1" in layers_on_edge[cut] for _, cut in kept)
    sizes = {
        cut["cut"]["id"]: sum(t["shape"][1] for t in (*cut["cut"]["up"], *cut["cut"]["down"]))
        for cut in json.loads(run("cuts", net, "--json")[1])["cuts"]
    }
    assert all(sizes[cut] <= 10_000 for _, cut in kept)
    assert {"learned", "oracle", "static"} <= {policy for policy, _ in kept}
    assert "all-cloud" not in {policy for policy, _ in kept}
    assert any("all-cloud was left out: keep on edge" in note for note in found["notes"])
    away, found = cuts_used("--keep-off-edge", "conv4")
    assert all("conv4" not in layers_on_edge[cut] for _, cut in away)
    assert any("no request is finished on the edge" in note for note in found["notes"])


def test_requests_over_the_limit_of_the_latency_are_counted(net):
    words = ("--trace", net / "score.csv", *COLUMNS, "--policy", "all-edge,threshold-table,hysteresis")
    code, text, err = simulate(net, *words, "--max-latency", "100ms", "--json")
    assert code == 0, err
    by = {score["name"]: score for score in json.loads(text)["simulation"]["scores"]}
    assert by["all-edge"]["late"] == by["all-edge"]["requests"]
    assert by["hysteresis"]["late"] < 0.8 * by["all-edge"]["late"]
    code, text, err = simulate(net, *words, "--max-latency", "100ms")
    assert code == 0 and "over the limit" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trace", "gen:markov-link", "--policy", "lerned"), "did you mean learned?"),
        (("--trace", "gen:markov-link", "--policy", "fixed:nope"), "cut nope: not in the table"),
        (("--trace", "gen:markov-link", "--rate", "fast"), "--rate 'fast'"),
        (("--trace", "gen:markov-link", "--rate", "0/s"), "must be above 0"),
        (("--trace", "gen:markov-lin"), "did you mean markov-link?"),
        (("--trace", "missing.csv"), "missing.csv"),
        (("--trace", "gen:markov-link", "--cloud-fails", "9s"), "START-END"),
        (("--trace", "gen:markov-link", "--workers", "0"), "must be at least 1"),
        (("--trace", "gen:markov-link", "--arrivals", "none.txt"), "none.txt"),
        (("--trace", "gen:markov-link", "--tick", "0s"), "tick_s"),
        (("--trace", "gen:markov-link", "--keep-warm", "all-edge,typo"), "typo"),
        (("--trace", "gen:markov-link", "--fill", "edge_load"), "must be NAME=VALUE"),
        (("--trace", "gen:markov-link", "--keep-on-edge", "conv9"), "no layer named conv9"),
        (
            ("--trace", "gen:markov-link", "--keep-on-edge", "conv0", "--policy", "all-cloud"),
            "policy all-cloud: its cut is ruled out",
        ),
    ],
)
def test_bad_input_is_refused_in_a_sentence(net, words, said, capsys):
    files = ("--edge", net / "pi.json", "--cloud", net / "server.json")
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in ("simulate", net, *files, *words)])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (3, "")
    assert said in err and "Traceback" not in err


def test_limits_that_no_cut_keeps_are_said(net):
    words = ("--trace", "gen:markov-link", "--keep-on-edge", "conv4", "--max-edge-memory", "1kB")
    code, _, err = simulate(net, *words)
    assert code == 9 and "edge memory rules out" in err and "keep on edge rules out" in err


def test_scoring_on_a_training_trace_is_refused(net):
    code, _, err = simulate(net, "--trace", net / "score.csv", "--train", net / "score.csv", *COLUMNS)
    assert code == 3 and "a policy would know what comes" in err
