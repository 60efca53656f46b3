"""SqueezeNet 1.1 for images of 3 x 224 x 224, as the ONNX model zoo has it: its tensors come as one .npy each.

After Iandola et al., "SqueezeNet", arXiv:1602.07360, in the smaller version 1.1; parameters are named conv0 to conv25,
in the order in which the layers run, as in those files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from torch import nn

__all__ = ["checkpoint_of_arrays", "squeezenet11"]

# Channels of the squeezing 1x1 convolution and of each expanding one; None halves the image.
FIRES = ((16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256))
CLASSES = 1000


def squeezenet11(classes: int = CLASSES) -> nn.Module:
    """The network without weights; ends at the scores of the classes."""
    torch = require("torch", extra="export-executorch")
    nn = torch.nn
    count = 0

    class Named(nn.Module):  # type: ignore[misc,name-defined]  # torch ships no types here
        """A convolution and a ReLU, under a running number."""

        def __init__(self, given: int, made: int, kernel: int, **options: int) -> None:
            super().__init__()
            nonlocal count
            self.name = f"conv{count}"
            count += 1
            self.add_module(self.name, nn.Conv2d(given, made, kernel, **options))

        def forward(self, images: Any) -> Any:
            return torch.relu(getattr(self, self.name)(images))

    class Fire(nn.Module):  # type: ignore[misc,name-defined]  # torch ships no types here
        def __init__(self, given: int, squeezed: int, expanded: int) -> None:
            super().__init__()
            self.squeeze = Named(given, squeezed, 1)
            self.expand1 = Named(squeezed, expanded, 1)
            self.expand3 = Named(squeezed, expanded, 3, padding=1)

        def forward(self, images: Any) -> Any:
            squeezed = self.squeeze(images)
            return torch.cat([self.expand1(squeezed), self.expand3(squeezed)], 1)

    layers: list[Any] = [Named(3, 64, 3, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True)]
    channels = 64
    for fire in FIRES:
        if fire is None:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        else:
            layers.append(Fire(channels, *fire))
            channels = 2 * fire[1]
    layers += [Named(channels, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers)


def checkpoint_of_arrays(folder: Path, checkpoint: Path) -> Path:
    """Write a checkpoint of `squeezenet11` from files named `..._conv<n>_weight.npy` and `..._conv<n>_bias.npy`.

    Raises:
        BadInput: Files are missing, or of other shapes than the network has.
    """
    torch = require("torch", extra="export-executorch")
    state = squeezenet11().state_dict()
    problems = []
    for name, tensor in state.items():
        layer, leaf = name.split(".")[-2:]
        files = sorted(folder.glob(f"*_{layer}_{leaf}.npy"))
        values = np.load(files[0], allow_pickle=False) if len(files) == 1 else None
        if values is None or values.size != tensor.numel():
            problems.append(f"{folder}: *_{layer}_{leaf}.npy: must be one file of {tensor.numel()} values.")
            continue
        state[name] = torch.from_numpy(values.astype(np.float32).reshape(tuple(tensor.shape)))
    if problems:
        raise BadInput(*problems)
    torch.save(state, checkpoint)
    return checkpoint
