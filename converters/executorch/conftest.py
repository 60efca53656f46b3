"""Small nets and their conversions, each made once a session."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.contracts import Captured, Lowered, LowerRequest
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

SAMPLES = 48


@functools.cache
def net_classes() -> dict[str, Any]:
    """Constructors by name; the shape of one input stands on each class."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Residual(nn.Module):
        """Convolution with batch norm and relu6, depthwise, residual addition, spatial mean, linear."""

        shape = (3, 12, 12)

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(8)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.project = nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            x = functional.relu6(self.norm(self.stem(x)))
            y = functional.relu(self.depthwise(x))
            return self.head(functional.relu(x + self.project(y)).mean((2, 3)).view(x.shape[0], -1))

    class Odd(nn.Module):
        """Linears with an odd number of inputs, and a dense layer written as a product and an addition."""

        shape = (13,)

        def __init__(self):
            super().__init__()
            self.first = nn.Linear(13, 7)
            self.second = nn.Linear(7, 33)
            self.dense = nn.Parameter(torch.randn(33, 6) * 0.2)
            self.bias = nn.Parameter(torch.randn(6))

        def forward(self, x):
            x = functional.relu(self.second(functional.relu(self.first(x))))
            return torch.matmul(x, self.dense) + self.bias

    class Mixed(nn.Module):
        """Pre-activation norm, concatenation, pads (one before a pool), a transposed convolution, softmax."""

        shape = (8, 8, 3)

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, padding=1)
            self.norm = nn.BatchNorm2d(6)
            self.branch = nn.Conv2d(6, 6, 3, stride=2)
            self.up = nn.ConvTranspose2d(12, 4, 2, 2)
            self.head = nn.Linear(4, 5)

        def forward(self, x):
            x = self.stem(x.permute(0, 3, 1, 2))
            y = self.branch(functional.pad(functional.relu(self.norm(x)), (0, 1, 0, 1)))
            x = functional.max_pool2d(functional.pad(functional.relu(x), (0, 1, 0, 1)), 2)
            x = functional.relu(self.up(torch.cat([x, y], 1)))
            return torch.softmax(self.head(x.permute(0, 2, 3, 1).mean((1, 2))), -1)

    class GroupedUp(nn.Module):
        """A grouped transposed convolution, which XNNPACK cannot quantize."""

        shape = (4, 6, 6)

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(4, 4, 1)
            self.up = nn.ConvTranspose2d(4, 4, 2, 2, groups=2)

        def forward(self, x):
            return self.up(functional.relu(self.stem(x)))

    class Separable(nn.Module):
        """1x1 convolutions, with odd channels, a stride, a batch norm and a residual, around a depthwise one."""

        shape = (3, 12, 12)

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.strided = nn.Conv2d(8, 16, 1, stride=2, bias=False)
            self.norm = nn.BatchNorm2d(16)
            self.narrow = nn.Conv2d(16, 7, 1, bias=False)
            self.wide = nn.Conv2d(7, 16, 1)
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            x = functional.relu6(self.depthwise(functional.relu(self.stem(x))))
            x = functional.relu6(self.norm(self.strided(x)))
            x = functional.relu(x + self.wide(functional.relu(self.narrow(x))))
            return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))

    class Twice(nn.Module):
        """A convolution and a linear that are each applied twice, to values of different ranges."""

        shape = (3, 8, 8)

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.step = nn.Conv2d(8, 8, 3, padding=1)
            self.mix = nn.Linear(8, 8)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            x = functional.relu(self.stem(x))
            x = functional.relu(self.step(functional.relu(self.step(x)) * 7))
            x = self.mix(functional.relu(self.mix(x.mean((2, 3)))))
            return self.head(functional.relu(x))

    return {
        "residual": Residual,
        "odd": Odd,
        "mixed": Mixed,
        "grouped-up": GroupedUp,
        "separable": Separable,
        "twice": Twice,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A float net, its captured program and its data."""

    module: Any
    captured: Captured
    samples: np.ndarray
    reference: np.ndarray
    calibration: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """One lowering."""

    net: Net
    lowered: Lowered
    folder: Path

    @property
    def data(self) -> Path | None:
        path = self.folder / "model.ptd"
        return path if path.exists() else None

    def outputs(self, threads: int = 1, signature: int = 0) -> np.ndarray:
        """Real-valued outputs for all samples."""
        from edge_deploy.core.tensor import dequantize_output, encode_input
        from runtimes.backends.executorch import open_session

        chosen = self.lowered.signatures[signature]
        (taken,), (given,) = chosen.inputs, chosen.outputs
        values = encode_input(self.net.samples, source=self.net.captured.inputs[0], target=taken)
        session = open_session(self.folder / "model.pte", signature=chosen, threads=threads, data=self.data)
        size = taken.shape[0]
        parts = [session.run({taken.name: values[i : i + size]})[given.name] for i in range(0, SAMPLES, size)]
        session.close()
        return dequantize_output(np.concatenate(parts), given)

    def outcome(self, layer: str):
        return next(outcome for outcome in self.lowered.outcomes if outcome.layer == layer)


@pytest.fixture(scope="session")
def net(tmp_path_factory) -> Callable[..., Net]:
    """A captured net by name and batch sizes."""

    @functools.cache
    def make(name: str, batches: tuple[int, ...] = (1,)) -> Net:
        import torch

        folder = tmp_path_factory.mktemp(f"captured-{name}")
        torch.manual_seed(0)
        module = net_classes()[name]()
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
        module.eval()
        example = (torch.randn(max(batches), *module.shape),)
        batch = batches[0] if len(batches) == 1 else -1
        shapes = ({0: torch.export.Dim("batch", min=1, max=max(batches))},) if batch < 0 else None
        program = folder / "program.pt2"
        torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), program)
        samples = np.random.default_rng(0).standard_normal((SAMPLES, *module.shape)).astype(np.float32)
        np.savez(folder / "calibration.npz", x=samples)
        with torch.no_grad():
            reference = module(torch.from_numpy(samples)).numpy()
        captured = Captured(
            name=name,
            framework="torch",
            kind="cnn",
            folder=folder,
            inputs=(TensorInfo(name="x", shape=(batch, *module.shape), dtype="float32"),),
            outputs=(TensorInfo(name="y", shape=(batch, *reference.shape[1:]), dtype="float32"),),
            batches=batches,
            program=program,
        )
        calibration = folder / "calibration.npz"
        return Net(module=module, captured=captured, samples=samples, reference=reference, calibration=calibration)

    return make


@pytest.fixture(scope="session")
def convert(net, tmp_path_factory) -> Callable[..., Conversion]:
    """A conversion by net, recipe and changes of the QuantSpec."""

    @functools.cache
    def make(name: str, recipe: str, batches: tuple[int, ...] = (1,), **changes) -> Conversion:
        from converters.targets.executorch import lower

        made = net(name, batches)
        folder = tmp_path_factory.mktemp(f"{name}-{recipe}")
        spec = spec_for_recipe(recipe, **changes)
        request = LowerRequest(captured=made.captured, spec=spec, folder=folder, calibration=made.calibration)
        return Conversion(net=made, lowered=lower(request), folder=folder)

    return make


def snr_db(want: np.ndarray, got: np.ndarray) -> float:
    """10 log10(signal / error)."""
    want = want.astype(np.float64)
    return float(10 * np.log10(np.square(want).sum() / np.square(want - got).sum()))


@pytest.fixture(scope="session")
def snr() -> Callable[[np.ndarray, np.ndarray], float]:
    return snr_db
