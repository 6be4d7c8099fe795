"""Gradient estimators: what the backward pass takes for the derivative of a staircase."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Estimator(Protocol):
    """Joins a weight and its quantized value: the value goes forward, a gradient for the weight comes back."""

    def __call__(self, weight: Tensor, quantized: Tensor) -> Tensor:
        """Return ``quantized`` with a gradient to ``weight``."""


class _Passed(torch.autograd.Function):
    """Forward the quantized value bit for bit; backward the gradient times ``mask`` (None is all ones)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantized: Tensor, mask: Tensor | None) -> Tensor:
        ctx.mask = mask  # not saved for backward: a value may be used by several graphs, each with its own backward
        return quantized.view_as(quantized)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] if ctx.mask is None else gradients[0] * ctx.mask, None, None


@dataclass(frozen=True)
class StraightThrough:
    """∂q/∂w = 1 everywhere (Bengio et al. 2013; Courbariaux et al. 2015)."""

    def __call__(self, weight: Tensor, quantized: Tensor) -> Tensor:
        """Return ``quantized``; its gradient passes to ``weight`` unchanged."""
        return _Passed.apply(weight, quantized, None)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ClippedStraightThrough:
    """∂q/∂w = 1 where |w| ≤ limit, else 0, so that a weight far out stops drifting (Hubara et al. 2016)."""

    limit: float = 1.0

    def __call__(self, weight: Tensor, quantized: Tensor) -> Tensor:
        """Return ``quantized``; its gradient passes to ``weight`` where |weight| ≤ limit."""
        return _Passed.apply(weight, quantized, weight.detach().abs() <= self.limit)  # type: ignore[no-any-return]
