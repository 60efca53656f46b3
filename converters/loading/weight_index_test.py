"""Where arrays stand in checkpoints, held against their own readers."""

import json
import struct

import numpy as np
import pytest

from converters.loading.weight_index import index_weights
from converters.recommender.rows import map_array
from edge_deploy.core.errors import BadInput

ARRAYS = {
    "table": np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32),
    "half": np.random.default_rng(1).normal(size=(3, 2)).astype(np.float16),
    "ids": np.arange(6, dtype=np.int64).reshape(2, 3),
    "none": np.zeros((0, 4), np.float32),
}


def same(path):
    found = {name: np.array(map_array(stored)) for name, stored in index_weights(path).items()}
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_safetensors(tmp_path):
    pytest.importorskip("safetensors.numpy").save_file(ARRAYS, tmp_path / "m.safetensors")
    same(tmp_path / "m.safetensors")


def test_safetensors_in_several_files(tmp_path):
    save = pytest.importorskip("safetensors.numpy").save_file
    names = list(ARRAYS)
    for number, part in enumerate((names[:1], names[1:])):
        save({name: ARRAYS[name] for name in part}, tmp_path / f"m-{number}.safetensors")
    weight_map = {name: f"m-{int(name != names[0])}.safetensors" for name in names}
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    same(index)
    same(tmp_path)


def test_brain_floats(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    values = torch.randn(5, 3).to(torch.bfloat16)
    pytest.importorskip("safetensors.torch").save_file({"w": values}, tmp_path / "m.safetensors")
    torch.save({"w": values}, tmp_path / "m.pt")
    for name in ("m.safetensors", "m.pt"):
        found = map_array(index_weights(tmp_path / name)["w"])
        np.testing.assert_array_equal(found.astype(np.float32), values.float().numpy())


def test_a_folder_of_npy(tmp_path):
    for name, array in ARRAYS.items():
        np.save(tmp_path / f"{name}.npy", array)
    same(tmp_path)


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_what_torch_saves(tmp_path, container):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.save(state if container is None else {"epoch": 3, container: state}, tmp_path / "m.pt")
    same(tmp_path / "m.pt")


def test_state_dicts_of_modules_and_slices_of_storages(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    found = index_weights(tmp_path / "m.pt")
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(map_array(found[name]), tensor.numpy())
    whole = torch.arange(12.0).reshape(6, 2)
    torch.save({"part": whole[2:4], "whole": whole}, tmp_path / "s.pt")
    np.testing.assert_array_equal(map_array(index_weights(tmp_path / "s.pt")["part"]), whole[2:4].numpy())


def test_tensors_that_do_not_lie_in_one_piece_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.arange(6.0).reshape(2, 3).t()}, tmp_path / "m.pt")
    with pytest.raises(BadInput, match="w: does not lie in one piece"):
        index_weights(tmp_path / "m.pt")


def test_code_in_a_pickle_does_not_run(tmp_path):
    torch = pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"w": Evil()}, tmp_path / "m.pt")
    with pytest.raises(BadInput, match="could run code"):
        index_weights(tmp_path / "m.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["safetensors", "npy", "pt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_files_cut_short_are_refused(tmp_path, kind, share):
    path = tmp_path / f"m.{kind}"
    if kind == "pt":
        torch = pytest.importorskip("torch")
        torch.save({"w": torch.randn(100, 8)}, path)
    elif kind == "npy":
        np.save(path, ARRAYS["table"])
    else:
        pytest.importorskip("safetensors.numpy").save_file(ARRAYS, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadInput):
        index_weights(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"w": 3}',
        b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [-40, 0]}}',
        b'{"w": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}}',
        b'{"w": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 8]}}',
        b'{"w": {"dtype": "F32", "shape": ["a"], "data_offsets": [0, 8]}}',
        b"\xff\xff",
    ],
)
def test_damaged_safetensors_headers_are_refused(tmp_path, header):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(BadInput):
        index_weights(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere.safetensors"):
        index_weights(tmp_path / "nowhere.safetensors")
