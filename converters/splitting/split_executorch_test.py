"""ExecuTorch: head then tail is the whole, bit for bit, at every legal cut of a residual CNN and of a DLRM."""

import dataclasses
import shutil

import pytest

pytest.importorskip("executorch")

from converters.split import choose_cuts, open_parent, split
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.serde import write_json
from runtimes.folder import check_files, read_artifact


def split_all(source, out):
    parent = open_parent(source)
    cuts, refused = choose_cuts(parent, every=True)
    return parent, split(parent, cuts, out, refused=refused)


@pytest.fixture(scope="module")
def residual(residual_executorch, tmp_path_factory):
    return split_all(residual_executorch("int8"), tmp_path_factory.mktemp("split") / "out")


def test_every_legal_cut_of_a_cnn_with_branches_is_bit_identical(residual):
    _, result = residual
    inner = [each for each in result.cuts if each.head and each.tail]
    assert len(inner) >= 4
    assert all(each.bit_identical for each in inner)
    quantized = [each for each in inner if each.is_quantized]
    assert quantized and {info.dtype for each in quantized for info in each.cut.up} == {"int8"}
    assert max(len(each.cut.up) for each in inner) == 2
    assert all(each.up_bytes == sum(_count(info.shape) for info in each.cut.up) for each in quantized)


def _count(shape):
    product = 1
    for size in shape:
        product *= size
    return product


def test_a_position_inside_a_fused_pattern_is_refused_with_the_layers(residual):
    parent, result = residual
    assert len(result.refused) == 2  # convolution and relu, addition and relu
    assert all("are computed as one" in reason for each in result.refused for reason in each.reasons)
    with pytest.raises(Unsupported, match="inside a fused pattern: first, relu are computed as one"):
        choose_cuts(parent, ids=[result.refused[0].cut])


def test_halves_are_artifacts_that_describe_what_crosses(residual):
    parent, result = residual
    each = next(cut for cut in result.cuts if len(cut.cut.up) == 2)
    head, tail = read_artifact(each.head), read_artifact(each.tail)
    for folder, artifact in ((each.head, head), (each.tail, tail)):
        check_files(folder, artifact)
        assert (artifact.split.parent_digest, artifact.split.bit_identical) == (parent.digest, True)
        assert artifact.model_file.path == "model.pte"
    assert head.signatures[0].outputs == tail.signatures[0].inputs == each.cut.up
    assert all(info.scale and info.zero_point for info in each.cut.up)
    names = [layer.name for half in (head, tail) for layer in half.graph.layers]
    assert names == [layer.name for layer in parent.artifact.graph.layers]
    assert {outcome.layer for half in (head, tail) for outcome in half.outcomes} == {
        outcome.layer for outcome in parent.artifact.outcomes
    }


def test_weights_of_4_bits_stay_packed_beside_their_half(residual_executorch, tmp_path):
    parent = open_parent(residual_executorch("int4"))
    cuts = choose_cuts(parent, every=True)[0]
    chosen = next(cut for cut in cuts if len(cut.up) == 2)
    (made,) = split(parent, [chosen], tmp_path / "out").cuts
    assert made.bit_identical
    packed = [read_artifact(folder).outcomes for folder in (made.head, made.tail)]
    bits = {outcome.layer: outcome.weight_bits for half in packed for outcome in half}
    assert bits == {outcome.layer: outcome.weight_bits for outcome in parent.artifact.outcomes}
    assert bits["first"] == 4 and (made.head / "model.ptd").is_file()


def test_every_cut_of_a_dlrm_is_bit_identical(dlrm, tmp_path):
    parent, result = split_all(dlrm("executorch", "int8"), tmp_path / "out")
    inner = [each for each in result.cuts if each.head and each.tail]
    assert len(inner) >= 10
    assert all(each.bit_identical for each in inner)
    names = {layer.name for layer in parent.artifact.graph.layers}
    assert {"bottom.0", "top.0"} <= names
    for each in inner:
        outcomes = [read_artifact(half).outcomes for half in (each.head, each.tail)]
        assert sorted(outcome.layer for half in outcomes for outcome in half) == sorted(
            outcome.layer for outcome in parent.artifact.outcomes
        )


@pytest.mark.parametrize(("recipe", "batches"), [("int4", (1,)), ("int8", (1, 4))])
def test_packed_tables_and_several_batch_sizes_are_cut_too(recipe, batches, dlrm, tmp_path):
    parent = open_parent(dlrm("executorch", recipe, "phone", batches))
    cuts = choose_cuts(parent, every=True)[0][3:-1:7]
    made = split(parent, cuts, tmp_path / "out").cuts
    assert len(made) >= 2 and all(each.bit_identical for each in made)
    assert {len(each.comparisons) for each in made} == {len(batches)}


def test_an_artifact_of_another_version_is_told_to_convert_again(residual, tmp_path):
    parent, _ = residual
    folder = tmp_path / "other"
    shutil.copytree(parent.folder, folder)
    layers = parent.artifact.graph.layers
    graph = dataclasses.replace(parent.artifact.graph, layers=(dataclasses.replace(layers[0], name="x"), *layers[1:]))
    write_json(dataclasses.replace(parent.artifact, graph=graph), folder / MANIFEST)
    again = open_parent(folder)
    cuts = choose_cuts(again, every=True)[0]
    with pytest.raises(BadInput, match="convert again"):
        split(again, cuts[1:2], tmp_path / "out")


def test_an_artifact_without_its_program_says_what_is_missing(residual, tmp_path):
    parent, _ = residual
    folder = tmp_path / "bare"
    shutil.copytree(parent.folder, folder)
    (folder / "quantized.pt2").unlink()
    files = tuple(entry for entry in parent.artifact.files if entry.role != "quantized-program")
    write_json(dataclasses.replace(parent.artifact, files=files), folder / MANIFEST)
    cuts = choose_cuts(open_parent(folder), every=True)[0]
    with pytest.raises(BadInput, match=r"has no quantized\.pt2"):
        split(open_parent(folder), cuts[1:2], tmp_path / "out")
