"""TFLite: head then tail is the whole, bit for bit, at every cut of a CNN and of DLRMs."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from converters.split import choose_cuts, open_parent, split
from edge_deploy.core.errors import BadInput, Unsupported, VerificationFailed
from runtimes.folder import check_files, read_artifact
from runtimes.formats.tflite_file import read_tflite
from runtimes.formats.tflite_lint import lint


def split_all(source, out, **changes):
    parent = open_parent(source)
    cuts, refused = choose_cuts(parent, every=True)
    return parent, split(parent, cuts, out, refused=refused, **changes)


@pytest.fixture(scope="module")
def residual(residual_tflite, tmp_path_factory):
    return split_all(residual_tflite, tmp_path_factory.mktemp("split") / "out")


def test_every_cut_of_a_cnn_with_branches_is_bit_identical_at_both_batch_sizes(residual):
    parent, result = residual
    assert len(result.cuts) == len(parent.artifact.graph.layers) + 1 >= 10
    assert max(len(each.cut.up) for each in result.cuts) == 2
    inner = [each for each in result.cuts if each.head and each.tail]
    assert all(each.bit_identical for each in inner)
    assert {len(each.comparisons) for each in inner} == {2}
    quantized = [each for each in inner if each.is_quantized]
    assert len(quantized) >= 8
    assert {info.dtype for each in quantized for info in each.cut.up} == {"int8"}


def test_both_halves_are_artifacts_of_their_own_and_name_their_parent(residual):
    parent, result = residual
    cut = result.cuts[4]
    up = [info.name for info in cut.cut.up]
    for side, folder in (("head", cut.head), ("tail", cut.tail)):
        artifact = read_artifact(folder)
        check_files(folder, artifact)
        assert lint(folder / artifact.model_file.path) == ()
        assert (artifact.split.parent_digest, artifact.split.cut) == (parent.digest, cut.cut.id)
        assert (artifact.split.half, artifact.split.bit_identical) == (side, True)
        assert artifact.verification.verdict == "passed"
        assert [signature.name for signature in artifact.signatures] == ["batch_1", "batch_4"]
    head, tail = read_artifact(cut.head), read_artifact(cut.tail)
    assert [info.name for info in head.signatures[0].outputs] == up == [info.name for info in tail.signatures[0].inputs]
    known = {info.name: (info.shape, info.dtype, info.scale, info.zero_point) for info in cut.cut.up}
    for info in (*head.signatures[0].outputs, *tail.signatures[0].inputs):
        assert known[info.name] == (info.shape, info.dtype, info.scale, info.zero_point)
    names = [layer.name for half in (head, tail) for layer in half.graph.layers]
    assert names == [layer.name for layer in parent.artifact.graph.layers]
    assert {outcome.layer for outcome in head.outcomes} | {outcome.layer for outcome in tail.outcomes} == {
        outcome.layer for outcome in parent.artifact.outcomes
    }


def test_constants_are_stored_only_where_they_are_read(residual):
    parent, result = residual
    whole = parent.artifact.graph.weight_bytes
    for each in (cut for cut in result.cuts if cut.head and cut.tail):
        head, tail = read_artifact(each.head), read_artifact(each.tail)
        assert head.graph.weight_bytes + tail.graph.weight_bytes == whole


def test_where_one_half_is_empty_the_other_is_the_same_file(residual):
    parent, result = residual
    all_cloud, all_edge = result.cuts[0], result.cuts[-1]
    assert (all_cloud.head, all_edge.tail) == (None, None)
    assert "head is empty" in all_cloud.note and "tail is empty" in all_edge.note
    for folder in (all_cloud.tail, all_edge.head):
        assert (folder / parent.artifact.model_file.path).read_bytes() == parent.model.read_bytes()


def test_a_cut_that_is_no_prefix_is_named_by_its_layers(residual, tmp_path):
    parent, _ = residual
    layers = parent.artifact.graph.layers
    readers = [layer for layer in layers if layer.op == "CONV_2D"]
    pool = next(layer for layer in layers if layer.op == "MAX_POOL_2D")
    before_pool = layers[: layers.index(pool)]
    edge = [layer.name for layer in before_pool] + [readers[-1].name]
    cuts, _ = choose_cuts(parent, edge_layers=edge)
    (made,) = split(parent, cuts, tmp_path / "out").cuts
    assert made.bit_identical and len(made.cut.up) == 2
    (again,) = choose_cuts(parent, edge_layers=list(made.cut.edge_layers))[0]
    assert again.id == made.cut.id


@pytest.mark.parametrize(
    ("recipe", "device", "batches"),
    [("int8", "phone", (1, 4)), ("int4", "phone", (1,)), ("float32", "phone", (1,)), ("int8", "mcu", (1,))],
)
def test_every_cut_of_a_dlrm_is_bit_identical(recipe, device, batches, dlrm, tmp_path):
    folder = dlrm("tflite", recipe, device, batches)
    parent, result = split_all(folder, tmp_path / "out")
    inner = [each for each in result.cuts if each.head and each.tail]
    assert len(inner) >= 10
    assert all(each.bit_identical for each in inner)
    for each in inner:
        outcomes = [read_artifact(half).outcomes for half in (each.head, each.tail)]
        assert sorted(outcome.layer for half in outcomes for outcome in half) == sorted(
            outcome.layer for outcome in parent.artifact.outcomes
        )


def test_a_difference_at_a_quantized_boundary_is_refused_and_nothing_is_kept(residual, tmp_path, monkeypatch):
    """Halves of another model of the same structure, as a damaged splitter would write them."""
    from converters.splitting.formats import tflite
    from converters.tflite.flatbuffer import write_model

    def damaged(model, path):
        for buffer in model.buffers:
            if buffer.data is not None and len(buffer.data) > 100:
                buffer.data = np.frombuffer(bytes(buffer.data), np.uint8) // 2
        return write_model(model, path)

    monkeypatch.setattr(tflite, "write_model", damaged)
    parent, _ = residual
    cuts = choose_cuts(parent, every=True)[0][4:5]
    with pytest.raises(VerificationFailed, match=rf"cut {cuts[0].id}: only integers cross"):
        split(parent, cuts, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unknown_cuts_and_layers_are_refused_by_name(residual):
    parent, _ = residual
    known = choose_cuts(parent, every=True)[0][3].id
    with pytest.raises(BadInput, match=rf"did you mean .*{known}"):
        choose_cuts(parent, ids=[known[:-1] + ("0" if known[-1] != "0" else "1")])
    with pytest.raises(BadInput, match="no layer named nothing"):
        choose_cuts(parent, edge_layers=["nothing"])
    with pytest.raises(BadInput, match="name a cut"):
        choose_cuts(parent)
    with pytest.raises(BadInput, match="which the cloud makes"):
        choose_cuts(parent, edge_layers=[parent.artifact.graph.layers[-1].name])


def test_a_bare_pte_cannot_be_cut(tmp_path):
    (tmp_path / "model.pte").write_bytes(b"")
    with pytest.raises(Unsupported, match=r"quantized\.pt2 is the program to cut"):
        open_parent(tmp_path / "model.pte")


def test_constants_behind_the_root_are_read_and_written(dlrm, tmp_path, monkeypatch):
    """Files of more than 2 GB keep their constants there; a small limit stands in for the size."""
    from converters.tflite import flatbuffer

    monkeypatch.setattr(flatbuffer, "INLINE_LIMIT", 64)
    big = tmp_path / "big.tflite"
    small = dlrm("tflite", "float32", "phone", (1,)) / "model.tflite"
    flatbuffer.write_model(flatbuffer.read_model(small), big)
    parent, result = split_all(big, tmp_path / "out")
    assert all(each.bit_identical for each in result.cuts if each.head and each.tail)
    halves = [path for path in (tmp_path / "out").glob("*/*/model.tflite") if path.stat().st_size > 8000]
    assert len(halves) >= 10
    assert all(any(buffer.outside for buffer in read_tflite(path).buffers) for path in (parent.model, *halves))


def _graph(path, build):
    from converters.tflite.emit import Emitter

    emitter = Emitter("test")
    graph = emitter.graph("main")
    x = graph.tensor("x", (1, 6))
    graph.sign("call", {"x": x}, build(graph, x))
    emitter.write(path)
    return path


def _dense(graph, x, weight, name):
    out = graph.tensor(name, (1, 6))
    graph.op("FULLY_CONNECTED", [x, weight], [out], "FullyConnectedOptions")
    return out


def test_weights_that_are_widened_at_load_are_widened_in_the_half_that_reads_them(tmp_path):
    def build(graph, x):
        wide = []
        for place in range(2):
            values = np.random.default_rng(place).normal(size=(6, 6)).astype(np.float16)
            wide.append(graph.tensor(f"wide{place}", (6, 6)))
            graph.op("DEQUANTIZE", [graph.values(f"half{place}", values)], [wide[-1]])
        middle = _dense(graph, x, wide[0], "middle")
        # The second layer's result and what both layers share are outputs; the first one's weights are read again.
        return {"y": _dense(graph, _dense(graph, middle, wide[1], "late"), wide[0], "last"), "z": middle}

    parent, result = split_all(_graph(tmp_path / "half.tflite", build), tmp_path / "out")
    inner = [each for each in result.cuts if each.head and each.tail]
    assert len(parent.artifact.graph.constant_layers) == 2
    assert [[info.name for info in each.cut.up] for each in inner] == [["middle"], ["late"]]
    assert all(each.bit_identical for each in inner)
    assert [each.reasons for each in result.refused] == [
        ("the edge would compute nothing that depends on the inputs: the same as all-cloud",)
    ] * 2
    head, tail = (read_artifact(folder) for folder in (inner[0].head, inner[0].tail))
    assert [info.name for info in head.signatures[0].outputs] == ["z"]  # it crosses, and is an output of the whole
    assert [info.name for info in tail.signatures[0].inputs] == ["z"]
    assert sum(layer.op == "DEQUANTIZE" for layer in tail.graph.layers) == 2


def test_a_state_that_both_halves_would_keep_is_refused_by_layer(tmp_path):
    def build(graph, x):
        state = graph.tensor("state", (1, 12))
        graph.subgraph.tensors[state].isVariable = True
        for name in ("one", "two"):
            feature = graph.values(f"{name}/f", np.eye(6, dtype=np.float32))
            time = graph.values(f"{name}/t", np.ones((6, 2), np.float32))
            out = graph.tensor(name, (1, 6))
            graph.op("SVDF", [x, feature, time, -1, state], [out], "SVDFOptions", rank=1)
            x = out
        return {"y": x}

    parent = open_parent(_graph(tmp_path / "state.tflite", build))
    cut = choose_cuts(parent, every=True)[0][1]
    with pytest.raises(Unsupported, match=r"layer two.*shares its state with one on the edge"):
        split(parent, [cut], tmp_path / "out")
