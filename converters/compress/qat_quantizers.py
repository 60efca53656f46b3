"""Fake quantization of CNNs in training: weights with learned scales, activations with learned or averaged ranges."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from edge_deploy.core.require import require

if TYPE_CHECKING:
    import torch

__all__ = ["activation_class", "learned_step", "weight_limits", "weight_start"]

SMALLEST = 2.0**-20
LEVELS = 255


def weight_limits(bits: int) -> tuple[int, int]:
    """What files store: [-8, 7], or [-127, 127] as the TFLite specification demands."""
    return (-8, 7) if bits == 4 else (-127, 127)


def weight_start(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """A scale [out] for each output channel (axis 0) to start from: of 24 shares of the largest value the one with the
    least squared error.
    """
    import torch

    low, high = weight_limits(bits)
    flat = weight.detach().reshape(len(weight), -1)
    widest = (flat.abs().amax(dim=1) / high).clamp(min=SMALLEST)
    shares = torch.linspace(1.0, 0.3 if bits == 4 else 0.9, 24)
    scales = widest[None] * shares[:, None]
    errors = [((flat / s[:, None]).round().clamp(low, high) * s[:, None] - flat).square().sum(1) for s in scales]
    best: Any = scales.gather(0, torch.stack(errors).argmin(0)[None])[0]
    return best


def learned_step(weight: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Weights on their grids, with a gradient for the scales too (LSQ, Esser et al., arXiv:1902.08153).

    Args:
        weight: [out, ...].
        scale: [out], positive.
    """
    result: torch.Tensor = _step().apply(weight, scale, *weight_limits(bits))
    return result


@functools.cache
def _step() -> Any:
    torch = require("torch", extra="run-executorch")

    class LearnedStep(torch.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(context: Any, weight: Any, scale: Any, low: int, high: int) -> Any:
            wide = scale.reshape(-1, *[1] * (weight.dim() - 1))
            ratio = weight / wide
            stored = ratio.round().clamp(low, high)
            context.save_for_backward(ratio, stored)
            context.limits = low, high
            return stored * wide

        @staticmethod
        def backward(context: Any, gradient: Any) -> tuple[Any, Any, None, None]:
            ratio, stored = context.saved_tensors
            low, high = context.limits
            inside = (ratio >= low) & (ratio <= high)
            # d(stored * scale) / d scale: the rounding error inside, the limit itself outside.
            slope = torch.where(inside, stored - ratio, stored)
            count = gradient[0].numel()
            of_scale = (gradient * slope).flatten(1).sum(1) / math.sqrt(count * high)
            return gradient * inside, of_scale, None, None

    return LearnedStep


@functools.cache
def activation_class() -> Any:
    """The module that stands where a target stores an INT8 activation."""
    torch = require("torch", extra="run-executorch")

    class ActivationRange(torch.nn.Module):  # type: ignore[misc,name-defined]
        """Values move to the 256 that one scale and zero point can hold; zero is always among them.

        Args:
            learned: The ends are parameters; else they follow the batches' extremes by a moving average until frozen.
        """

        momentum = 0.05

        def __init__(self, *, learned: bool) -> None:
            super().__init__()
            self.learned = learned
            self.register_buffer("low_start", torch.zeros(()))
            self.register_buffer("high_start", torch.zeros(()))
            # Learned as logarithms, relative to the start, so that a step means the same for every tensor.
            self.low_log = torch.nn.Parameter(torch.zeros(()), requires_grad=learned)
            self.high_log = torch.nn.Parameter(torch.zeros(()), requires_grad=learned)
            self.is_watching, self.is_quantizing, self.is_frozen = False, True, False

        def watch(self, values: Any) -> None:
            low, high = (end.clone() for end in values.detach().aminmax())
            share = self.momentum if float(self.high_start) > float(self.low_start) else 1.0
            self.low_start += share * (low.clamp(max=0.0) - self.low_start)
            self.high_start += share * (high.clamp(min=0.0) - self.high_start)

        def ends(self) -> tuple[Any, Any]:
            return self.low_start * self.low_log.exp(), self.high_start * self.high_log.exp()

        def parameters_now(self) -> tuple[Any, Any]:
            """Scale (float32) and zero point of the moment."""
            low, high = (end.detach() for end in self.ends())
            scale = ((high - low) / LEVELS).clamp(min=SMALLEST)
            return scale, (-128 - low / scale).round().clamp(-128, 127)

        def forward(self, values: Any) -> Any:
            if self.is_watching or (self.training and not self.learned and not self.is_frozen):
                self.watch(values)
            if not self.is_quantizing:
                return values
            scale, zero = self.parameters_now()
            if self.learned and self.training:
                # The gradient of what is clipped goes to the end that clips it (TQT, Jain et al., arXiv:1903.08066).
                low, high = self.ends()
                values = torch.minimum(torch.maximum(values, low), high)
            bounded = torch.clamp(values, float((-128 - zero) * scale), float((127 - zero) * scale))
            stored = ((bounded / scale).round() + zero).clamp(-128, 127)
            return bounded + ((stored - zero) * scale - bounded).detach()

    return ActivationRange
