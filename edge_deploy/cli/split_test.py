"""`split` as a user types it, on a bare file from somewhere else; `verify` on what it wrote."""

import io
import json
import signal
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

import edge_deploy
from converters.tflite.emit import Emitter
from edge_deploy.cli.main import main
from runtimes.formats.tflite import read_graph
from runtimes.session import open_session


def run(*words):
    """The command in this process: exit code, stdout, stderr."""
    out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    signal.signal(signal.SIGTERM, handler)
    return end.value.code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    """Four dense layers in float."""
    path = tmp_path_factory.mktemp("mlp") / "net.tflite"
    emitter = Emitter("test")
    graph = emitter.graph("main")
    first = x = graph.tensor("x", (1, 6))
    for place in range(4):
        weight = np.random.default_rng(place).normal(size=(6, 6)).astype(np.float32)
        out = graph.tensor(f"layer{place}", (1, 6))
        graph.op("FULLY_CONNECTED", [x, graph.values(f"w{place}", weight)], [out], "FullyConnectedOptions")
        x = out
    graph.sign("call", {"features": first}, {"score": x})
    emitter.write(path)
    return path


@pytest.fixture(scope="module")
def ids(mlp):
    from converters.splitting.choose import prefix_cuts

    return [cut.id for cut in prefix_cuts(read_graph(mlp))]


def test_halves_of_a_bare_file_are_written_compared_and_told_as_json(mlp, ids, tmp_path):
    samples = np.random.default_rng(5).normal(size=(3, 6)).astype(np.float32)
    np.savez(tmp_path / "eval.npz", features=samples)
    words = ("split", mlp, "--cut", ids[2], "--cut", "all-edge", "--out", tmp_path / "out", "--json")
    code, out, err = run(*words, "--eval", tmp_path / "eval.npz")
    assert code == 0, err
    found = json.loads(out)
    assert [each["cut"]["id"] for each in found["cuts"]] == [ids[2], "all-edge"]
    first = found["cuts"][0]
    assert (first["bit_identical"], first["is_quantized"], first["up_bytes"]) == (True, False, 24)
    assert first["comparisons"][0]["samples"] == 8 + 3
    whole, head, tail = (
        open_session(source) for source in (mlp, tmp_path / "out" / ids[2] / "head", tmp_path / "out" / ids[2] / "tail")
    )
    sent = head.run({"features": samples[:1]})
    assert list(sent) == ["layer1"]
    np.testing.assert_array_equal(tail.run(sent)["score"], whole.run({"features": samples[:1]})["score"])


def test_a_half_is_an_artifact_that_other_commands_take(mlp, ids, tmp_path):
    result = edge_deploy.split(mlp, cuts=[ids[1]], out=tmp_path / "out", check=False)
    assert result.cuts[0].bit_identical is None
    for folder in (result.cuts[0].head, result.cuts[0].tail):
        code, out, err = run("verify", folder)
        assert code == 0 and "verdict: not asked" in out, err
        code, out, err = run("inspect", folder / "model.tflite", "--json")
        assert code == 0 and json.loads(out)["loads"] == "yes", err


def test_a_half_whose_inputs_are_no_rows_of_samples_is_verified_too(tmp_path):
    emitter = Emitter("test")
    graph = emitter.graph("main")
    x, flat = graph.tensor("x", (1, 6)), graph.tensor("flat", (6,))
    row, total = graph.tensor("row", (1, 6)), graph.tensor("total", (1, 6))
    for source, shape, target in ((x, (6,), flat), (flat, (1, 6), row)):
        sizes = graph.values(f"to{len(shape)}", np.array(shape, dtype=np.int32))
        graph.op("RESHAPE", [source, sizes], [target], "ReshapeOptions")
    graph.op("ADD", [row, x], [total], "AddOptions")
    graph.sign("call", {"features": x}, {"score": total})
    emitter.write(tmp_path / "net.tflite")
    cut = next(
        each.cut for each in edge_deploy.list_cuts(tmp_path / "net.tflite").cuts if each.cut.id.startswith("001")
    )
    result = edge_deploy.split(tmp_path / "net.tflite", cuts=[cut.id], out=tmp_path / "out")
    assert {info.shape for info in open_session(result.cuts[0].tail).signature.inputs} == {(6,), (1, 6)}
    code, out, err = run("verify", result.cuts[0].tail)
    assert code == 0 and "verdict: not asked" in out, err


def test_all_writes_every_cut_and_replaces_only_on_wish(mlp, ids, tmp_path):
    words = ("split", mlp, "--all", "--no-check", "--out", tmp_path / "out")
    code, out, _ = run(*words)
    assert code == 0 and all(each in out for each in ids)
    assert "the tail is empty" in out and "not compared" in out
    code, _, err = run(*words)
    assert code == 3 and "exists already" in err
    assert run(*words, "--force")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--cut", "002-ffffff"), 3, "no prefix of the model's 4 layers has this id; did you mean 002-"),
        (("--edge-layers", "layer9"), 3, "no layer named layer9"),
        (("--edge-layers", "layer1"), 3, "which the cloud makes"),
        ((), 3, "name a cut with --cut ID"),
    ],
)
def test_what_cannot_be_cut_is_told_and_nothing_is_written(words, code, message, mlp, tmp_path):
    found, _, err = run("split", mlp, *words, "--out", tmp_path / "out")
    assert (found, list(tmp_path.iterdir())) == (code, [])
    assert message in err


def test_files_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "net.tflite").write_bytes(b"nothing")
    (tmp_path / "net.pte").write_bytes(b"nothing")
    for name, code, message in (
        ("net.tflite", 3, "net.tflite"),
        ("net.pte", 4, "quantized.pt2"),
        ("net.onnx", 3, "no such file"),
    ):
        found, _, err = run("split", tmp_path / name, "--all", "--out", tmp_path / "out")
        assert found == code and message in err
