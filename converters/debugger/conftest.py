"""A small CNN, lowered to both formats at INT8 and INT4, each once a session."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.debugger.diagnose import Opened
from edge_deploy.core import registry
from edge_deploy.core.passes import BIASES, DEFAULT, ROUNDING
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

SAMPLES = 24


@pytest.fixture(scope="session")
def small_net(tmp_path_factory) -> tuple[Captured, Path]:
    """Convolution, depthwise convolution, residual addition, mean, linear; and an npz of its samples."""
    torch = pytest.importorskip("torch")
    from torch import nn
    from torch.nn import functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.project = nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, image):
            x = functional.relu(self.stem(image))
            y = functional.relu(self.depthwise(x))
            return self.head(functional.relu(x + self.project(y)).mean((2, 3)))

    folder = tmp_path_factory.mktemp("debugged")
    torch.manual_seed(0)
    net = Net().eval()
    torch.save(net.state_dict(), folder / "net.pt")
    example = torch.randn(1, 3, 10, 10)
    torch.export.save(torch.export.export(net, (example,)), folder / "program.pt2")
    samples = np.random.default_rng(0).standard_normal((SAMPLES, 3, 10, 10)).astype(np.float32)
    np.savez(folder / "samples.npz", image=samples)
    np.savez(folder / "narrow.npz", image=samples / 50)
    captured = Captured(
        name="small",
        framework="torch",
        kind="cnn",
        folder=folder,
        inputs=(TensorInfo(name="image", shape=(1, 3, 10, 10), dtype="float32", layout="NCHW"),),
        outputs=(TensorInfo(name="scores", shape=(1, 5), dtype="float32"),),
        program=folder / "program.pt2",
    )
    return captured, folder / "samples.npz"


@pytest.fixture(scope="session")
def opened(small_net, tmp_path_factory) -> Callable[..., Opened]:
    """The net in a format at a precision, calibrated on its samples, or on others by name."""

    @functools.cache
    def make(target: str, recipe: str, calibration: str = "samples.npz", rules: tuple[LayerRule, ...] = ()) -> Opened:
        captured, samples = small_net
        # Equalising takes trials; one precision with it is enough to see that other factors are dealt with.
        passes = DEFAULT if (target, recipe, rules) == ("tflite", "int4", ()) else (ROUNDING, BIASES)
        spec = spec_for_recipe(recipe, fallback_bits=8, rules=rules, passes=passes)
        folder = tmp_path_factory.mktemp(f"{target}-{recipe}")
        request = LowerRequest(captured=captured, spec=spec, folder=folder, calibration=samples.with_name(calibration))
        lowered = registry.load("converters.targets", target).lower(request)
        return Opened(name="small", target=target, folder=folder, spec=spec, outcomes=lowered.outcomes)

    return make
