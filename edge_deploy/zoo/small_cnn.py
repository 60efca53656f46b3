"""A small CNN for scikit-learn's 8x8 digits and its training: the demo's image model.

It holds one of each part that phone CNNs are made of: convolution with batch norm and ReLU, a depthwise separable
block, a residual addition, global average pooling and a linear layer. torch and scikit-learn are imported on use.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Labelled", "digits", "small_cnn", "train_digits", "write_npz"]

Labelled: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Images [n, 1, 8, 8] float32 in 0..1, and labels [n] int64."""

_BATCH = 64


def small_cnn(classes: int = 10, width: int = 32) -> nn.Module:
    """An untrained network: images [batch, 1, 8, 8] in 0..1 to logits [batch, classes]."""
    module: nn.Module = _network_class()(classes, width)
    return module


def digits(seed: int = 0) -> tuple[Labelled, Labelled]:
    """Scikit-learn's 1,797 digits, shuffled and split into 1,437 for training and 360 for testing."""
    images, labels = require("sklearn.datasets", extra="demo").load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    pixels = (images[order].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    answers = labels[order].astype(np.int64)
    split = len(labels) * 4 // 5
    return (pixels[:split], answers[:split]), (pixels[split:], answers[split:])


def train_digits(seed: int = 0, epochs: int = 12) -> tuple[nn.Module, Labelled, Labelled]:
    """Train `small_cnn` on the digits; returns it in evaluation mode with the training and the test set.

    Raises:
        BadInput: `epochs` is below 1.
        MissingExtra: torch or scikit-learn is not installed.
    """
    if epochs < 1:
        raise BadInput(f"epochs = {epochs}: must be at least 1.")
    torch = require("torch", extra="run-executorch")
    train, test = digits(seed)
    images, labels = torch.from_numpy(train[0]), torch.from_numpy(train[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = small_cnn().train()
        steps = -(-len(labels) // _BATCH) * epochs
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
        for _ in range(epochs):
            for batch in torch.randperm(len(labels)).split(_BATCH):
                loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval(), train, test


def write_npz(samples: Labelled, path: Path) -> None:
    """Write images as `x` and labels as `y`, the form that `--calibrate` and `--eval` read."""
    images, labels = samples
    np.savez(path, x=images, y=labels)


@functools.cache
def _network_class() -> type[nn.Module]:
    """The network's class; made on first use because its base class is torch's."""
    require("torch", extra="run-executorch")
    from torch import nn

    def convolution(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs)]

    class SmallCnn(nn.Module):  # type: ignore[misc]  # torch ships no types here
        """Stem, depthwise separable block, residual block, global average, linear."""

        def __init__(self, classes: int, width: int) -> None:
            super().__init__()
            half = width // 2
            self.stem = nn.Sequential(*convolution(1, half, 3), nn.ReLU())
            self.depthwise = nn.Sequential(*convolution(half, half, 3, stride=2, groups=half), nn.ReLU())
            self.pointwise = nn.Sequential(*convolution(half, width, 1), nn.ReLU())
            self.residual = nn.Sequential(*convolution(width, width, 3), nn.ReLU(), *convolution(width, width, 3))
            self.relu = nn.ReLU()
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.linear = nn.Linear(width, classes)

        def forward(self, images: Tensor) -> Tensor:
            """Logits [batch, classes] of images [batch, 1, height, width]."""
            x = self.pointwise(self.depthwise(self.stem(images)))
            x = self.relu(x + self.residual(x))
            return self.linear(self.pool(x).flatten(1))

    return SmallCnn
