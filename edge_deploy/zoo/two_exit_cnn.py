"""A CNN with two exits for 32x32 images, after RANet (Yang et al., CVPR 2020, arXiv 2003.07326).

A coarse network looks at the image at half its resolution and has an exit of its own; a fine one looks at all of it,
takes in what the coarse one found, and answers when that was not confident. So the coarse part with its exit is what
an edge runs, and the fine part what a cloud runs. torch is imported on use.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["train_two_exits", "two_exit_cnn"]

_BATCH = 64


def two_exit_cnn(classes: int = 10, width: int = 16) -> nn.Module:
    """An untrained network: images [batch, 3, 32, 32] to logits of the exit and of the end, each [batch, classes]."""
    module: nn.Module = _network_class()(classes, width)
    return module


def train_two_exits(
    images: np.ndarray, labels: np.ndarray, *, epochs: int = 20, width: int = 16, seed: int = 0
) -> nn.Module:
    """Train on the unweighted sum of both exits' cross-entropies, as RANet does; in evaluation mode.

    Args:
        images: [n, 3, 32, 32] float32, in the terms that the model will be given.
        labels: [n] class numbers.

    Raises:
        BadInput: `epochs` is below 1, or the arrays do not fit together.
        MissingExtra: torch is not installed.
    """
    if epochs < 1 or len(images) != len(labels) or images.shape[1:] != (3, 32, 32):
        raise BadInput(f"two exits: {epochs} epochs, images {images.shape}, {len(labels)} labels do not fit.")
    torch = require("torch", extra="run-executorch")
    from torch.nn import functional

    pixels, answers = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = two_exit_cnn(int(labels.max()) + 1, width).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        steps = -(-len(answers) // _BATCH) * epochs
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(answers)).split(_BATCH):
                batch = pixels[rows]
                if torch.rand(()) < 0.5:
                    batch = batch.flip(3)
                moves = torch.randint(-2, 3, (2,)).tolist()
                early, late = model(batch.roll(moves, (2, 3)))
                loss = functional.cross_entropy(early, answers[rows]) + functional.cross_entropy(late, answers[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


@functools.cache
def _network_class() -> type[nn.Module]:
    """The network's class; made on first use because its base class is torch's."""
    require("torch", extra="run-executorch")
    import torch
    from torch import nn

    def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    class TwoExits(nn.Module):  # type: ignore[misc]  # torch ships no types here
        """Coarse first, then fine."""

        def __init__(self, classes: int, width: int) -> None:
            super().__init__()
            self.halved = nn.AvgPool2d(2)
            self.coarse = nn.Sequential(block(3, width), block(width, 2 * width, 2), block(2 * width, 2 * width))
            self.exit = nn.Linear(2 * width, classes)
            self.fine = nn.Sequential(
                block(3, 2 * width), block(2 * width, 2 * width, 2), block(2 * width, 4 * width, 2)
            )
            self.together = nn.Sequential(block(6 * width, 6 * width), block(6 * width, 6 * width))
            self.end = nn.Linear(6 * width, classes)

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            """Logits of the exit, and of the end."""
            coarse = self.coarse(self.halved(image))
            early = self.exit(coarse.mean((2, 3)))
            fine = self.together(torch.cat([self.fine(image), coarse], dim=1))
            return early, self.end(fine.mean((2, 3)))

    return TwoExits
