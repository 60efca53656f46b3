"""`simulate` over several models, pairs of devices and seeds, on artifacts that are manifests alone."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from edge_deploy.api.simulation_pairs import pair_up
from edge_deploy.api.simulation_request import SimulateRequest
from edge_deploy.api.simulation_sweep import simulate_sweep
from edge_deploy.cli.main import main
from edge_deploy.core.artifact import MANIFEST, Artifact, FileEntry, Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile, Slowdown
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import write_json
from edge_deploy.core.tensor import TensorInfo

pytest.importorskip("pyarrow")
COMMAND = (sys.executable, "-m", "edge_deploy.cli.main", "simulate")
# One trace that ends soon, two policies and static, three bounds: cells are small, and there are many of them.
FEW = ("--trace", "gen:markov-link+bursts", "--seconds", "60", "--policy", "all-edge,hysteresis")


def run(*words):
    done = subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def tensor(name, size):
    return TensorInfo(name=name, shape=(-1, size), dtype="int8", scale=(0.1,), zero_point=(0,))


def write_model(folder, name, sizes, digest):
    (folder / name).mkdir()
    layers = tuple(
        Layer(name=f"{name}{i}", op="CONV_2D", inputs=(f"t{i}",), outputs=(tensor(f"t{i + 1}", size),), macs=9)
        for i, size in enumerate(sizes)
    )
    graph = LayerGraph(inputs=(tensor("t0", 60_000),), outputs=(f"t{len(sizes)}",), layers=layers)
    artifact = Artifact(
        name=name,
        format="tflite",
        spec=spec_for_recipe("int8"),
        source="net.keras",
        kind="cnn",
        files=(FileEntry(path="model.tflite", role="model", bytes=1, sha256=digest * 64),),
        source_inputs=graph.inputs,
        source_outputs=layers[-1].outputs,
        signatures=(Signature(name="serve", inputs=graph.inputs, outputs=layers[-1].outputs),),
        graph=graph,
        outcomes=(),
        toolchain={},
    )
    write_json(artifact, folder / name / MANIFEST)
    for device, factor in (("pi", 1.0), ("phone", 0.4), ("server", 0.05)):
        times = {layer.name: 0.02 * factor for layer in layers}
        profile = ModelProfile(
            artifact=name,
            sha256=digest * 64,
            device=device,
            kernels="k",
            provenance="measured",
            source="test",
            layer_s=times,
            overhead_s=0.001,
            whole_s=sum(times.values()) + 0.001,
            cpu=Slowdown(at=(0.0, 1.0), factor=(1.0, 2.0)),
        )
        write_json(profile, folder / name / f"{device}.json")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "wide", (40_000, 30_000, 8_000, 2_000, 10), "a")
    write_model(folder, "slim", (9_000, 4_000, 10), "b")
    return folder


def pair(models, name, edge):
    return ("--pair", f"{models / name / edge}.json,{models / name / 'server'}.json")


def partitions(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "cells").glob("*.parquet")}


def test_models_pairs_and_seeds_are_swept_and_compared(models, tmp_path):
    words = (models / "wide", models / "slim", *pair(models, "wide", "pi"), *pair(models, "wide", "phone"))
    words = (*words, *pair(models, "slim", "pi"), *FEW, "--out", tmp_path)
    code, text, err = run(*words, "--seeds", 2, "--json")
    assert code == 0, err
    found = json.loads(text)["sweep"]
    names = [each["name"] for each in found["pairs"]]
    assert names == [
        "wide between pi and server",
        "wide between phone and server",
        "slim between pi and server",
    ]
    # all-edge, hysteresis, static and three bounds on one trace with two seeds.
    assert len(found["cells"]) == 3 * 6 * 2 == found["executed"]
    assert {cell["partition"].split("/")[1] for cell in found["cells"]} == set(partitions(tmp_path))
    for each in found["pairs"]:
        assert {len(gains) for gains in each["gains"].values()} == {2} and each["gains"]["static"] == [0.0, 0.0]
        by = {score["name"]: score for score in each["scores"]}
        assert by["oracle"]["mean_s"] <= by["static"]["mean_s"] and by["static"]["requests"] == each["requests"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3 == page.count("Seed by seed (2)") and "slim between pi and server" in page
    before = partitions(tmp_path)
    code, text, err = run(*words, "--seeds", 3)
    assert code == 0, err
    assert "18 computed now, 36 found" in text and "policies: medians" in text
    after = partitions(tmp_path)
    assert {name: after[name] for name in before} == before and len(after) == 54


def test_a_cell_holds_what_the_same_simulation_alone_gives(models, tmp_path):
    import pyarrow.parquet

    files = ("--edge", models / "wide" / "pi.json", "--cloud", models / "wide" / "server.json")
    code, text, err = run(models / "wide", *files, *FEW, "--seeds", 2, "--out", tmp_path / "sweep", "--json")
    assert code == 0, err
    swept = json.loads(text)["sweep"]
    seed = swept["seeds"][1]
    code, text, err = run(models / "wide", *files, *FEW, "--seed", seed, "--out", tmp_path / "one", "--json")
    assert code == 0, err
    rows = pyarrow.parquet.read_table(tmp_path / "one" / "requests.parquet").to_pydict()
    for cell in (cell for cell in swept["cells"] if cell["seed"] == seed):
        kept = pyarrow.parquet.read_table(tmp_path / "sweep" / cell["partition"])["latency_s"].to_pylist()
        alone = [
            value for value, policy in zip(rows["latency_s"], rows["policy"], strict=True) if policy == cell["policy"]
        ]
        assert kept == alone and len(kept) > 10


def test_a_killed_sweep_resumes_and_repeats_nothing(models, tmp_path):
    files = ("--edge", models / "wide" / "pi.json", "--cloud", models / "wide" / "server.json")
    words = (models / "wide", *files, *FEW, "--seeds", 20, "--out", tmp_path, "--json")
    process = subprocess.Popen([*COMMAND, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(partitions(tmp_path)) < 5 and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = partitions(tmp_path)
    assert 5 <= len(before) < 120 and not (tmp_path / "sweep.json").exists()
    code, text, err = run(*words)
    assert code == 0, err
    found = json.loads(text)["sweep"]
    assert (found["found"], found["executed"]) == (len(before), 120 - len(before))
    after = partitions(tmp_path)
    assert {name: after[name] for name in before} == before and len(after) == 120
    code, text, _ = run(*words)
    assert code == 0 and json.loads(text)["sweep"]["executed"] == 0
    assert partitions(tmp_path) == after


def test_a_dask_cluster_gives_the_same_cells_and_scores(models, tmp_path):
    distributed = pytest.importorskip("distributed")
    request = SimulateRequest(
        artifact=models / "slim",
        edge=models / "slim" / "pi.json",
        cloud=models / "slim" / "server.json",
        traces=("gen:markov-link+outages",),
        policies=("learned", "threshold-table"),
        seconds=60.0,
    )
    here = simulate_sweep([request], tmp_path / "local", seeds=2)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
    ) as cluster:
        address = cluster.scheduler_address
        there = simulate_sweep([request], tmp_path / "dask", seeds=2, engine="dask", scheduler=address)
    assert there == here
    for path in (tmp_path / "local" / "cells").iterdir():
        assert path.read_bytes() == (tmp_path / "dask" / "cells" / path.name).read_bytes()


def test_profiles_find_their_artifacts(models):
    wide, slim = models / "wide", models / "slim"
    pairs = [(slim / "pi.json", slim / "server.json"), (wide / "pi.json", wide / "server.json")]
    assert pair_up([wide, slim], pairs) == ((wide, *pairs[1]), (slim, *pairs[0]))
    with pytest.raises(BadInput, match="slim: no pair of profiles was made of it"):
        pair_up([wide, slim], pairs[1:])
    with pytest.raises(BadInput, match="not both made of one of the artifacts"):
        pair_up([wide, slim], [*pairs, (wide / "pi.json", slim / "server.json")])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--edge and --cloud: missing"),
        (("--edge", "e.json"), "--cloud: missing"),
        (("--pair", "a.json"), "must be EDGE,CLOUD"),
        (("--pair", "a.json,b.json", "--edge", "e.json"), "give one or the other"),
        (("--pair", "a.json,b.json"), "--out DIR: is needed by a sweep"),
        (("--pair", "a.json,b.json", "--out", "x", "--force"), "delete it to begin anew"),
        (("--pair", "a.json,b.json", "--out", "x"), "a.json"),
        (("{pair}", "--out", "{out}", "--engine", "dsk"), "did you mean dask"),
        (("{pair}", "--out", "{out}", "--engine", "dask"), "--scheduler ADDRESS"),
        (("{pair}", "--out", "{out}", "--policy", "threshold-table:t.json"), "reads a file"),
        (("{pair}", "--out", "{single}"), "holds a single simulation"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(models, tmp_path, words, said, capsys):
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "simulation.json").write_text("{}")
    names = {"{out}": [tmp_path / "out"], "{single}": [tmp_path / "single"], "{pair}": pair(models, "wide", "pi")}
    filled = [part for word in words for part in names.get(word, [word])]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in ("simulate", models / "wide", "--trace", "gen:markov-link", *filled)])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (3, "")
    assert said in err and "Traceback" not in err


def test_python_sweeps_under_its_public_name(models, tmp_path):
    import edge_deploy

    request = edge_deploy.SimulateRequest(
        artifact=models / "slim",
        edge=models / "slim" / "phone.json",
        cloud=models / "slim" / "server.json",
        traces=("gen:markov-link",),
        policies=("static",),
        seconds=30.0,
    )
    limited = dataclasses.replace(request.constraints, keep_on_edge=("slim0",))
    request = dataclasses.replace(request, constraints=limited, arrivals="periodic")
    found = edge_deploy.simulate_sweep([request], tmp_path, seeds=2)
    assert found.seeds == (0, 10_000) and found.pairs[0].cuts < 4
    assert found.pairs[0].score("static").requests == 2 * 15
