import numpy as np
import pytest

from converters.executorch.calibration import Samples
from converters.executorch.program import export
from converters.executorch.stacking import stacked
from edge_deploy.core.tensor import TensorInfo

INPUT = TensorInfo(name="x", shape=(1, 3, 8, 8), dtype="float32")


def _module(kind):
    import torch
    from torch import nn

    class Mixing(nn.Module):
        """What it gives for one sample depends on the others of its batch."""

        def forward(self, x):
            return x - x.mean((0, 2, 3), True)

    class Rows(nn.Module):
        """One sample's pixels become rows: the first axis is not the batch."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            return self.layer(x.permute(0, 2, 3, 1).reshape(64, 3)).reshape(1, 64, 4).amax(1)

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.layer = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)

        def forward(self, x):
            return self.layer(self.features(x).reshape(1, 144))

    torch.manual_seed(0)
    return {"mixing": Mixing, "rows": Rows, "written": Written}[kind]().eval()


def _graph(module):
    return export(module, (INPUT,), (1,)).module(check_guards=False)


@pytest.fixture
def samples(tmp_path):
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).standard_normal((70, 3, 8, 8)).astype(np.float32))
    return Samples(path=tmp_path / "c.npz", inputs=(INPUT,), batch=1)


def test_a_batch_that_reshapes_have_written_down_is_freed_for_the_time_being(samples):
    import torch

    module = _module("written")
    graph = _graph(module)
    before = str(graph.code)
    with stacked(graph, samples) as together:
        assert together.batch == 32
        batches = list(together.batches())
        assert [len(x) for (x,) in batches] == [32, 32, 6]
        with torch.no_grad():
            torch.testing.assert_close(graph(*batches[2]), torch.cat([module(x[None]) for x in batches[2][0]]))
    assert str(graph.code) == before


@pytest.mark.parametrize("kind", ["mixing", "rows"])
def test_programs_that_mix_samples_see_them_one_by_one(samples, kind):
    graph = _graph(_module(kind))
    with stacked(graph, samples) as together:
        assert together == samples


def test_samples_are_spread_evenly_over_the_set(samples):
    with np.load(samples.path) as archive:
        images = archive["x"]
    (few,) = next(samples.batches(most=1))
    assert np.array_equal(few.numpy(), images[:1])
    some = np.concatenate([x.numpy() for (x,) in samples.batches(most=7)])
    assert np.array_equal(some, images[::10])
    assert samples.count == 70
