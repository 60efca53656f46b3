"""ResNet-20/32/44/56 for 32x32 images (He et al., 2015, section 4.2), with parameter-free shortcuts (option A).

Three stages of 16, 32 and 64 channels with n two-convolution blocks each make 6n + 2 layers. Where a stage halves the
image, its shortcut takes every second pixel and fills the new channels with zeros, half of them on either side.
torch is imported when a factory is called, not with this module.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["resnet20", "resnet32", "resnet44", "resnet56"]

_CHANNELS = (16, 32, 64)


def resnet20(classes: int = 10) -> nn.Module:
    """ResNet-20: images [batch, 3, 32, 32] to logits [batch, classes]."""
    return _resnet(20, classes)


def resnet32(classes: int = 10) -> nn.Module:
    """ResNet-32: images [batch, 3, 32, 32] to logits [batch, classes]."""
    return _resnet(32, classes)


def resnet44(classes: int = 10) -> nn.Module:
    """ResNet-44: images [batch, 3, 32, 32] to logits [batch, classes]."""
    return _resnet(44, classes)


def resnet56(classes: int = 10) -> nn.Module:
    """ResNet-56: images [batch, 3, 32, 32] to logits [batch, classes]."""
    return _resnet(56, classes)


def _resnet(depth: int, classes: int) -> nn.Module:
    if classes < 1:
        raise BadInput(f"resnet{depth}: classes = {classes}: must be at least 1.")
    module: nn.Module = _network_class()((depth - 2) // 6, classes)
    return module


@functools.cache
def _network_class() -> type[nn.Module]:
    """The network's class; made on first use because its base class is torch's."""
    require("torch", extra="run-executorch")
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):  # type: ignore[misc]  # torch ships no types here
        """Two 3x3 convolutions around a shortcut."""

        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.stride = stride
            missing = outputs - inputs
            self.zeros_before, self.zeros_after = missing // 2, missing - missing // 2

        def forward(self, x: Tensor) -> Tensor:
            """Feature maps of the next resolution and width."""
            y = functional.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            return functional.relu(y + self._shortcut(x))

        def _shortcut(self, x: Tensor) -> Tensor:
            if self.stride != 1:
                x = x[:, :, :: self.stride, :: self.stride]
            if self.zeros_before or self.zeros_after:
                x = functional.pad(x, (0, 0, 0, 0, self.zeros_before, self.zeros_after))
            return x

    class ResNet(nn.Module):  # type: ignore[misc]  # torch ships no types here
        """Convolution, three stages, global average, linear."""

        def __init__(self, blocks: int, classes: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, _CHANNELS[0], 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(_CHANNELS[0])
            self.layer1 = self._stage(_CHANNELS[0], _CHANNELS[0], blocks, stride=1)
            self.layer2 = self._stage(_CHANNELS[0], _CHANNELS[1], blocks, stride=2)
            self.layer3 = self._stage(_CHANNELS[1], _CHANNELS[2], blocks, stride=2)
            self.linear = nn.Linear(_CHANNELS[2], classes)
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight)

        @staticmethod
        def _stage(inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
            first = Block(inputs, outputs, stride)
            return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))

        def forward(self, images: Tensor) -> Tensor:
            """Logits [batch, classes] of images [batch, 3, height, width]."""
            x = functional.relu(self.bn1(self.conv1(images)))
            x = self.layer3(self.layer2(self.layer1(x)))
            # adaptive_avg_pool2d, not mean: XNNPACK takes the pool into the delegate.
            x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
            return self.linear(x)

    return ResNet
