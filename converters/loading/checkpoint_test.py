import os

import pytest

from converters.loading.checkpoint import load_weights
from edge_deploy.core.errors import BadInput

torch = pytest.importorskip("torch")


def _net(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def _same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("wrap", "legacy"),
    [
        (lambda state: state, False),
        (lambda state: state, True),
        (lambda state: {"state_dict": state, "epoch": 3}, False),
        (lambda state: {"model_state_dict": {f"module.{name}": value for name, value in state.items()}}, False),
        (lambda state: {f"module.{name}": value for name, value in state.items()}, True),
        (lambda state: {name: value for name, value in state.items() if "num_batches" not in name}, False),
    ],
)
def test_state_dicts_are_found_in_every_usual_form(tmp_path, wrap, legacy):
    trained, fresh = _net(1), _net(2)
    path = tmp_path / "weights.th"
    torch.save(wrap(trained.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    assert not _same(trained, fresh)
    load_weights(fresh, path)
    assert _same(trained, fresh)


def test_safetensors_are_read(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    trained, fresh = _net(1), _net(2)
    safetensors.save_file(trained.state_dict(), tmp_path / "w.safetensors")
    load_weights(fresh, tmp_path / "w.safetensors")
    assert _same(trained, fresh)


def test_a_model_named_module_keeps_its_prefix(tmp_path):
    trained, fresh = torch.nn.ModuleDict({"module": _net(1)}), torch.nn.ModuleDict({"module": _net(2)})
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    load_weights(fresh, tmp_path / "w.pt")
    assert _same(trained, fresh)


def test_missing_unexpected_and_misshapen_weights_are_listed_together(tmp_path):
    state = _net(1).state_dict()
    del state["0.bias"]
    state["9.weight"] = torch.zeros(1)
    state["2.weight"] = torch.zeros(5, 4)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(BadInput) as caught:
        load_weights(_net(2), tmp_path / "w.pt")
    text = str(caught.value)
    assert "has no weights for: 0.bias" in text
    assert "does not know: 9.weight" in text
    assert "2.weight is [5, 4], the module's [2, 4]" in text


def test_weights_that_are_not_finite_are_named(tmp_path):
    state = _net(1).state_dict()
    state["2.bias"][0] = float("nan")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(BadInput, match=r"NaN or infinite values in: 2\.bias"):
        load_weights(_net(2), tmp_path / "w.pt")


class _Trap:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_inside_a_checkpoint_never_runs(tmp_path, legacy):
    marker = tmp_path / "ran"
    torch.save({"state_dict": _Trap(marker)}, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BadInput, match="holds more than weights"):
        load_weights(_net(2), tmp_path / "w.pt")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.th", "w.safetensors"])
def test_truncated_checkpoints_are_bad_input_at_every_length(tmp_path, name):
    path = tmp_path / name
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors.torch").save_file(_net(1).state_dict(), path)
    else:
        torch.save(_net(1).state_dict(), path, _use_new_zipfile_serialization=name == "w.pt")
    content = path.read_bytes()
    for length in range(0, len(content) - 1, max(1, len(content) // 40)):
        path.write_bytes(content[:length])
        with pytest.raises(BadInput):
            load_weights(_net(2), path)


def test_other_files_are_told_apart(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(BadInput, match="HDF5 file; weights must be a PyTorch checkpoint"):
        load_weights(_net(2), tmp_path / "w.h5")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BadInput, match="holds a list: must be a state dict"):
        load_weights(_net(2), tmp_path / "list.pt")
