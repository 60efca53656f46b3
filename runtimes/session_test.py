from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_deploy.core.artifact import Artifact, FileEntry, LayerOutcome, Signature
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput, ToolchainError, Unsupported
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.serde import write_json
from edge_deploy.core.tensor import TensorInfo
from runtimes.calling import zeros_for
from runtimes.folder import check_files, read_artifact
from runtimes.formats.by_hand_test import OPS, TYPES, ByHand, dense, look_up, schema, small_cnn
from runtimes.formats.tflite import read_signatures
from runtimes.session import open_session


def make_folder(
    folder: Path, hand: ByHand, *, signatures: tuple[Signature, ...] | None = None, minimum_runtime: str = ""
) -> Path:
    folder.mkdir()
    model = hand.write(folder / "model.tflite")
    entry = FileEntry(path="model.tflite", role="model", bytes=model.stat().st_size, sha256=file_sha256(model))
    found = read_signatures(model) if signatures is None else signatures
    artifact = Artifact(
        name="by-hand",
        format="tflite",
        spec=QuantSpec(recipe="int8"),
        source="by hand",
        kind="generic",
        files=(entry,),
        source_inputs=found[0].inputs,
        source_outputs=found[0].outputs,
        signatures=found,
        graph=LayerGraph(inputs=(), outputs=(), layers=()),
        outcomes=(LayerOutcome(layer="a", op="b", asked="int8", got="int8"),),
        toolchain={},
        minimum_runtime=minimum_runtime,
    )
    write_json(artifact, folder / "manifest.json")
    return folder


def float_bytes(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=(rows, 4)).astype(np.float32), "b": rng.normal(size=(rows, 4)).astype(np.float32)}


def expected(inputs: dict[str, np.ndarray]) -> np.ndarray:
    kernel = np.arange(12, dtype=np.float32).reshape(3, 4)
    return (inputs["b"] - inputs["a"]) @ kernel.T


@pytest.mark.parametrize("kernels", ["default", "builtin", "reference"])
def test_a_folder_and_its_bare_file_compute_the_same_on_every_kernel_set(tmp_path: Path, kernels: str) -> None:
    folder = make_folder(tmp_path / "artifact", dense())
    inputs = float_bytes(1)
    for source in (folder, str(folder / "model.tflite")):
        session = open_session(source, kernels=kernels, trusted=True)
        np.testing.assert_allclose(session.run(inputs)["out"], expected(inputs), rtol=1e-5, atol=1e-5)
        name = {"default": "XNNPACK"}.get(kernels, kernels)
        assert session.kernels.startswith("ai-edge-litert ") and session.kernels.endswith(name)


@pytest.mark.parametrize("rows", [1, 3])
def test_every_signature_is_called_by_its_name(tmp_path: Path, rows: int) -> None:
    folder = make_folder(tmp_path / "artifact", dense((1, 3)))
    inputs = float_bytes(rows)
    session = open_session(folder, signature=f"batch_{rows}")
    assert [info.shape for info in session.signature.inputs] == [(rows, 4), (rows, 4)]
    first = session.run(inputs)["out"]
    np.testing.assert_allclose(first, expected(inputs), rtol=1e-5, atol=1e-5)
    session.run({name: array * 2 for name, array in inputs.items()})
    np.testing.assert_allclose(first, expected(inputs), rtol=1e-5, atol=1e-5, err_msg="an earlier result changed")


def test_inputs_that_are_not_as_the_signature_says_are_all_named(tmp_path: Path) -> None:
    session = open_session(dense().write(tmp_path / "m.tflite"), trusted=True)
    with pytest.raises(BadInput) as caught:
        session.run({"a": np.zeros((1, 4)), "bb": np.zeros((1, 4), np.float32)})
    assert "input bb: unknown; did you mean b?" in caught.value.problems
    assert "input b: missing; it takes float32 (1, 4)." in caught.value.problems
    assert "input a: type float64: must be float32." in caught.value.problems
    for wrong in (np.zeros((2, 4), np.float32), np.zeros((0, 4), np.float32), np.zeros(4, np.float32), [1.0]):
        with pytest.raises(BadInput, match="input a"):
            session.run({"a": wrong, "b": np.zeros((1, 4), np.float32)})
    assert session.run(zeros_for(session.signature))["out"].shape == (1, 3)


def test_arrays_of_any_memory_order_are_taken(tmp_path: Path) -> None:
    session = open_session(dense((3,)).write(tmp_path / "m.tflite"), trusted=True)
    inputs = float_bytes(3)
    fortran = {name: np.asfortranarray(array) for name, array in inputs.items()}
    np.testing.assert_array_equal(session.run(fortran)["out"], session.run(inputs)["out"])


def test_a_dynamic_batch_follows_the_arrays_and_is_never_empty(tmp_path: Path) -> None:
    hand = ByHand()
    x, y = hand.tensor("x", [1, 4], dynamic=[-1, 4]), hand.tensor("y", [1, 2], dynamic=[-1, 2])
    kernel = hand.tensor("kernel", [2, 4], data=np.ones((2, 4), np.float32))
    hand.operator(OPS.FULLY_CONNECTED, [x, kernel, -1], [y], schema.FullyConnectedOptionsT())
    hand.signature("serving_default", {"x": x}, {"y": y})
    session = open_session(hand.write(tmp_path / "m.tflite"), trusted=True)
    for rows in (1, 5, 2, 2):
        assert session.run({"x": np.ones((rows, 4), np.float32)})["y"].tolist() == [[4, 4]] * rows
    with pytest.raises(BadInput, match=r"shape \(0, 4\): must be \(any, 4\)"):
        session.run({"x": np.ones((0, 4), np.float32)})
    assert session.run({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[4, 4]]


def test_an_id_out_of_range_is_bad_input_and_the_session_lives_on(tmp_path: Path) -> None:
    session = open_session(look_up(rows=100).write(tmp_path / "m.tflite"), trusted=True)
    with pytest.raises(BadInput, match="id is out of range"):
        session.run({"ids": np.array([100], np.int32)})
    assert session.run({"ids": np.array([99], np.int32)})["embedding"].shape == (1, 16)


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    session = open_session(dense().write(tmp_path / "m.tflite"), trusted=True)
    session.close()
    with pytest.raises(BadInput, match="closed"):
        session.run(float_bytes(1))


def test_the_manifest_adds_meaning_and_order_to_the_file(tmp_path: Path) -> None:
    hand = dense()
    (found,) = read_signatures(hand.write(tmp_path / "m.tflite"))
    said = replace(found, inputs=found.inputs[::-1], outputs=(replace(found.outputs[0], meaning="logit"),))
    session = open_session(make_folder(tmp_path / "artifact", hand, signatures=(said,)))
    assert session.signature == said
    inputs = float_bytes(1)
    np.testing.assert_allclose(session.run(inputs)["out"], expected(inputs), rtol=1e-5, atol=1e-5)


def test_a_manifest_that_describes_another_model_is_refused(tmp_path: Path) -> None:
    wrong = Signature(
        name="serving_default",
        inputs=(TensorInfo(name="a", shape=(1, 4), dtype="float32"), TensorInfo(name="b", shape=(1, 5), dtype="int8")),
        outputs=(TensorInfo(name="out", shape=(1, 3), dtype="float32"),),
    )
    folder = make_folder(tmp_path / "artifact", dense(), signatures=(wrong,))
    with pytest.raises(BadInput, match=r"input b is float32 \(1, 4\); the manifest says int8 \(1, 5\)"):
        open_session(folder)


def test_unknown_names_suggest_close_ones(tmp_path: Path) -> None:
    path = dense((1, 8)).write(tmp_path / "m.tflite")
    with pytest.raises(BadInput, match="did you mean batch_8"):
        open_session(path, signature="batch_9", trusted=True)
    with pytest.raises(BadInput, match="did you mean litert"):
        open_session(path, backend="litret", trusted=True)
    with pytest.raises(BadInput, match="threads = 0"):
        open_session(path, threads=0)
    with pytest.raises(BadInput, match="must be default, builtin or reference"):
        open_session(path, kernels="fast")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="unknown type of file"):
        open_session(path.rename(path.with_suffix(".bin")))
    with pytest.raises(BadInput, match="no such file"):
        open_session(tmp_path / "absent.tflite")


def test_damage_after_writing_is_found_by_size_and_digest(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "artifact", small_cnn())
    (folder / "notes.txt").write_text("extra files are ignored")
    check_files(folder, read_artifact(folder))
    model = folder / "model.tflite"
    content = bytearray(model.read_bytes())
    content[-20] ^= 1
    model.write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.tflite: its sha256 differs"):
        open_session(folder)
    model.write_bytes(content[:-1])
    with pytest.raises(BadInput, match=r"model\.tflite: \d+ bytes, the manifest says"):
        open_session(folder)
    model.unlink()
    with pytest.raises(BadInput, match=r"model\.tflite: missing"):
        open_session(folder)


@pytest.mark.parametrize("name", ["../outside.tflite", "/etc/hostname", "", "a/../../outside.tflite", "link.tflite"])
def test_a_manifest_cannot_name_files_outside_its_folder(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "artifact", dense())
    (tmp_path / "outside.tflite").write_bytes(dense().bytes())
    (folder / "link.tflite").symlink_to(tmp_path / "outside.tflite")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"path": "model.tflite"', f'"path": "{name}"'))
    with pytest.raises(BadInput, match="lies outside the folder"):
        open_session(folder)


def test_a_folder_without_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no manifest\.json"):
        open_session(tmp_path)


def test_a_file_that_lint_refuses_is_not_loaded(tmp_path: Path) -> None:
    path = look_up(block=(9999, 16)).write(tmp_path / "m.tflite")
    with pytest.raises(BadInput, match=r"m\.tflite: tensor table: blockwise scales are tensor 9999"):
        open_session(path, trusted=True)


def test_a_foreign_file_that_the_runtime_refuses_fails_in_the_child_with_its_reason(tmp_path: Path) -> None:
    hand = dense()
    hand.model.operatorCodes[1].version = 99
    path = hand.write(tmp_path / "m.tflite")
    with pytest.raises((BadInput, ToolchainError), match="FULLY_CONNECTED"):
        open_session(path)


def test_a_foreign_file_is_tried_in_a_child_process_and_then_runs(tmp_path: Path) -> None:
    session = open_session(small_cnn().write(tmp_path / "m.tflite"))
    assert session.run(zeros_for(session.signature))["probabilities"].dtype == np.int8


def test_an_artifact_for_a_newer_runtime_is_refused(tmp_path: Path) -> None:
    newer = make_folder(tmp_path / "newer", dense(), minimum_runtime="ai-edge-litert 99.1")
    with pytest.raises(Unsupported, match=r"it needs ai-edge-litert 99\.1 or newer"):
        open_session(newer)
    other = make_folder(tmp_path / "other", dense(), minimum_runtime="some-runtime 1.0")
    with pytest.raises(Unsupported, match=r"it needs some-runtime 1\.0"):
        open_session(other)
    open_session(make_folder(tmp_path / "older", dense(), minimum_runtime="ai-edge-litert 1.4"))


def test_the_null_runtime_gives_zeros_of_the_right_shape(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "artifact", dense((3,)))
    session = open_session(folder, backend="null")
    out = session.run(float_bytes(3))["out"]
    assert out.shape == (3, 3) and out.dtype == np.float32 and not out.any()
    with pytest.raises(BadInput, match="input b: missing"):
        session.run({"a": np.zeros((3, 4), np.float32)})


def test_types_that_no_session_carries_are_refused_by_name(tmp_path: Path) -> None:
    hand = dense()
    hand.graph.tensors[1].type = TYPES.STRING
    with pytest.raises(Unsupported, match="type string"):
        open_session(hand.write(tmp_path / "m.tflite"), trusted=True)
