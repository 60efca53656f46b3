"""`cuts` and `plan` as a user types them, on an artifact that is a manifest alone: planning needs no model file."""

import io
import json
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from edge_deploy.cli.main import main
from edge_deploy.core.artifact import MANIFEST, Artifact, FileEntry, Signature
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile, Power, Slowdown
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import write_json
from edge_deploy.core.tensor import TensorInfo
from partitioner.plan_table import PlanTable, look_up


def run(*words):
    """The command in this process: exit code, stdout, stderr."""
    out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    signal.signal(signal.SIGTERM, handler)
    return end.value.code, out.getvalue(), err.getvalue()


def run_as_a_user(*words):
    done = subprocess.run(
        [sys.executable, "-m", "edge_deploy.cli.main", *map(str, words)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def tensor(name, size):
    return TensorInfo(name=name, shape=(-1, size), dtype="int8", scale=(0.1,), zero_point=(0,))


def write_profile(path, factor, **changes):
    times = {"stem": 0.010 * factor, "stem/relu": 0.002 * factor, "body": 0.030 * factor, "head": 0.001 * factor}
    values = {"artifact": "net", "sha256": "a" * 64, "device": path.stem, "kernels": "k", "provenance": "measured"}
    values |= {"source": "test", "layer_s": times, "overhead_s": 0.001, "whole_s": sum(times.values()) + 0.001}
    write_json(ModelProfile(**(values | changes)), path)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    layers = (
        Layer(name="stem", op="CONV_2D", inputs=("x",), outputs=(tensor("t1", 20_000),), macs=100, group="fused"),
        Layer(name="stem/relu", op="RELU", inputs=("t1",), outputs=(tensor("t2", 20_000),), group="fused"),
        Layer(name="body", op="CONV_2D", inputs=("t2",), outputs=(tensor("t3", 500),), macs=300, weight_bytes=4000),
        Layer(name="head", op="FULLY_CONNECTED", inputs=("t3",), outputs=(tensor("y", 10),), macs=5, weight_bytes=900),
    )
    graph = LayerGraph(inputs=(tensor("x", 60_000),), outputs=("y",), layers=layers)
    artifact = Artifact(
        name="net",
        format="tflite",
        spec=spec_for_recipe("int8"),
        source="net.keras",
        kind="cnn",
        files=(FileEntry(path="model.tflite", role="model", bytes=1, sha256="a" * 64),),
        source_inputs=graph.inputs,
        source_outputs=(tensor("y", 10),),
        signatures=(Signature(name="serve", inputs=graph.inputs, outputs=(tensor("y", 10),)),),
        graph=graph,
        outcomes=(),
        toolchain={},
    )
    write_json(artifact, folder / MANIFEST)
    cpu = Slowdown(at=(0.0, 1.0), factor=(1.0, 3.0))
    write_profile(folder / "edge.json", 1.0, cpu=cpu, power=Power(compute_w=2.0, send_w=1.0, receive_w=1.0))
    write_profile(folder / "cloud.json", 0.05)
    return folder


def plan(net, *words):
    return run("plan", net, "--edge", net / "edge.json", "--cloud", net / "cloud.json", "--rtt", "10ms", *words)


def test_cuts_lists_every_position_with_its_bytes_and_why_not(net):
    code, out, err = run_as_a_user("cuts", net)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].strip() == "net tflite: 4 legal cuts of 5 positions"
    assert len(lines) == 7
    assert "computed as one" in next(line for line in lines if " stem " in line)
    assert "t3 int8" in next(line for line in lines if " body " in line)
    code, out, _ = run("cuts", net, "--json", "--batch", "2")
    found = json.loads(out)
    assert (code, found["macs"], len(found["cuts"])) == (0, 405, 5)
    assert found["cuts"][0]["cut"]["up"][0]["shape"] == [2, 60_000]


def test_plan_chooses_says_why_and_what_each_part_takes(net):
    profiles = ("--edge", net / "edge.json", "--cloud", net / "cloud.json")
    code, out, err = run_as_a_user("plan", net, *profiles, "--uplink", "20Mbit", "--rtt", "10ms")
    assert (code, err) == (0, "")
    assert out.startswith(
        "002-3b4f80 takes 33.6 ms, all-edge 44.0 ms, all-cloud 37.2 ms; least latency of 4 cuts; measured"
    )
    code, out, _ = plan(net, "--uplink", "20Mbit", "--json")
    found = json.loads(out)
    cost = found["cost"]
    total = sum(cost[part] for part in cost if part.endswith("_s"))
    by_cut = {item["cut"]: sum(item["cost"][p] for p in cost if p.endswith("_s")) for item in found["considered"]}
    assert code == 0 and total == pytest.approx(min(by_cut.values())) == pytest.approx(by_cut[found["cuts"][0]])
    assert set(by_cut) > {"all-edge", "all-cloud"}


def test_a_loaded_edge_sends_more_to_the_cloud(net):
    idle = json.loads(plan(net, "--uplink", "12Mbit", "--json")[1])
    busy = json.loads(plan(net, "--uplink", "12Mbit", "--edge-load", "1", "--json")[1])
    assert busy["cost"]["edge_bytes"] <= idle["cost"]["edge_bytes"]
    assert busy["cuts"] != idle["cuts"]
    assert busy["warnings"] == []


def test_limits_are_kept_and_an_impossible_request_says_which_rules_out_what(net):
    kept = ("--keep-on-edge", "body", "--keep-off-edge", "head", "--max-bytes", "1KB")
    code, out, _ = plan(net, "--uplink", "20Mbit", *kept, "--json")
    assert code == 0 and json.loads(out)["cost"]["up_bytes"] == 500
    code, out, err = plan(net, "--uplink", "20Mbit", "--keep-on-edge", "body", "--max-edge-memory", "1KiB")
    assert (code, out) == (9, "")
    assert "keep on edge rules out 2" in err and "edge memory rules out 2" in err


def test_energy_is_minimised_where_power_is_known(net):
    code, out, _ = plan(net, "--uplink", "20Mbit", "--objective", "energy", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["cost"]["energy_j"] == pytest.approx(min(item["cost"]["energy_j"] for item in found["considered"]))


def test_the_table_for_apps_agrees_with_plan(net, tmp_path):
    code, out, _ = plan(net, "--uplink", "20Mbit", "--table", tmp_path / "table.json", "--html", tmp_path / "p.html")
    assert code == 0 and f"table: {tmp_path / 'table.json'}" in out
    data = json.loads((tmp_path / "table.json").read_text())
    assert data.pop("schema_version") == "1.1"
    from edge_deploy.core.serde import from_json

    found = look_up(from_json(PlanTable, data), uplink_bps=20e6, edge_load=0.0, rtt_s=0.01)
    assert found == json.loads(plan(net, "--uplink", "20Mbit", "--json")[1])["cuts"][0]
    page = (tmp_path / "p.html").read_text()
    assert page.count("<svg") >= 2 and "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_profiles_that_do_not_fit_are_refused(net, tmp_path):
    write_profile(tmp_path / "other.json", 1.0, sha256="b" * 64)
    code, _, err = run(
        "plan",
        net,
        "--edge",
        tmp_path / "other.json",
        "--cloud",
        net / "cloud.json",
        "--uplink",
        "1Mbit",
        "--rtt",
        "1ms",
    )
    assert code == 3 and "was made of a model file with sha256 bbbbbbbbbbbb, net has aaaaaaaaaaaa" in err
    write_profile(tmp_path / "eight.json", 1.0, batch=8)
    words = ["--edge", tmp_path / "eight.json", "--cloud", net / "cloud.json", "--uplink", "1Mbit", "--rtt", "1ms"]
    assert "edge has batch 8, cloud 1" in run("plan", net, *words)[2]
    write_profile(tmp_path / "strange.json", 1.0, layer_s={"stem": 0.1, "tail": 0.2})
    code, _, err = run(
        "plan",
        net,
        "--edge",
        tmp_path / "strange.json",
        "--cloud",
        net / "cloud.json",
        "--uplink",
        "1Mbit",
        "--rtt",
        "1ms",
    )
    assert code == 3 and "no time for layer stem/relu, body, head" in err and "lacks: tail" in err


def test_a_third_tier_between_the_two_is_planned_with_its_own_link(net, tmp_path):
    write_profile(tmp_path / "middle.json", 0.2)
    tiers = ("--middle", tmp_path / "middle.json", "--far-uplink", "50Mbit", "--far-rtt", "40ms")
    code, out, err = plan(net, "--uplink", "200Mbit", *tiers, "--json")
    found = json.loads(out)
    assert (code, err, len(found["cuts"])) == (0, "", 2)
    assert found["cuts"] == ["all-cloud", "all-edge"]
    assert found["cost"]["middle_s"] == pytest.approx(0.043 * 0.2 + 0.001)
    assert plan(net, "--uplink", "200Mbit", *tiers)[1].startswith("all-cloud then all-edge takes")
    code, _, err = plan(net, "--uplink", "1Mbit", "--middle", tmp_path / "middle.json")
    assert code == 3 and "--far-uplink 100Mbit --far-rtt 20ms" in err
    assert plan(net, "--uplink", "1Mbit", "--far-rtt", "3ms")[0] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--uplink", "fast"], "--uplink = 'fast': must be a rate with its unit"),
        (["--uplink", "20Mbit", "--edge-load", "2"], "edge_load = 2.0: a share"),
        (["--uplink", "20Mbit", "--codec", "zip"], "codecs zip: unknown"),
        (["--uplink", "20Mbit", "--objective", "speed"], "must be one of latency, throughput, energy"),
        (["--uplink", "20Mbit", "--keep-on-edge", "bodi"], "did you mean body?"),
        (["--uplink", "20Mbit", "--exit", "body"], "--exit 'body': must be NAME=NUMBER"),
        (["--uplink", "20Mbit", "--solver", "magic"], "solvers magic: unknown"),
    ],
)
def test_bad_options_are_refused_with_what_would_be_right(net, words, said):
    code, out, err = plan(net, *words)
    assert (code, out) == (3, "")
    assert said in err


def test_a_bare_pte_and_no_model_at_all_are_refused(tmp_path):
    (tmp_path / "net.pte").write_bytes(b"x")
    assert run("cuts", tmp_path / "net.pte")[0] == 4
    code, _, err = run("cuts", Path("nowhere"))
    assert code == 3 and "no such folder" in err


def test_planning_loads_no_heavy_library(net):
    words = [
        "plan",
        net,
        "--edge",
        net / "edge.json",
        "--cloud",
        net / "cloud.json",
        "--uplink",
        "1Mbit",
        "--rtt",
        "1ms",
    ]
    code = (
        f"import sys, runpy; sys.argv = {['edge-deploy', *map(str, words)]!r}\n"
        "try:\n    runpy.run_module('edge_deploy.cli.main', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'tensorflow', 'scipy', 'numba', 'networkx', 'pyarrow'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
