from pathlib import Path

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput, Unsupported
from runtimes.session import open_session

torch = pytest.importorskip("torch")


class TwoOutputs(torch.nn.Module):
    """A dictionary of outputs, and a batch of any size."""

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"doubled": x * 2, "next": ids + 1}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    batch = torch.export.Dim("batch", min=1, max=9)
    example = (torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64))
    program = torch.export.export(TwoOutputs(), example, dynamic_shapes={"x": {0: batch}, "ids": None})
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    torch.export.save(program, path)
    return path


def test_an_exported_program_runs_as_a_session(path: Path) -> None:
    session = open_session(path, trusted=True)
    assert [(info.name, info.shape) for info in session.signature.inputs] == [("x", (-1, 4)), ("ids", (3,))]
    doubled, following = (info.name for info in session.signature.outputs)
    found = session.run({"x": np.ones((5, 4), np.float32).T.copy().T, "ids": np.arange(3)})
    assert found[doubled].shape == (5, 4) and (found[doubled] == 2).all()
    assert found[following].tolist() == [1, 2, 3]
    assert session.kernels == f"torch {torch.__version__} eager"
    with pytest.raises(BadInput, match="input ids: missing"):
        session.run({"x": np.ones((5, 4), np.float32)})


def test_the_number_of_threads_holds_for_the_run_only(path: Path) -> None:
    before = torch.get_num_threads()
    session = open_session(path, trusted=True, threads=before + 1)
    session.run({"x": np.ones((1, 4), np.float32), "ids": np.arange(3)})
    assert torch.get_num_threads() == before


def test_what_it_cannot_do_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="one kernel set"):
        open_session(path, kernels="builtin", trusted=True)
    damaged = tmp_path / "damaged.pt2"
    damaged.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadInput, match=r"damaged\.pt2: torch .* cannot load it"):
        open_session(damaged, trusted=True)
