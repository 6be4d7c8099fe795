"""Gradient estimators: what the backward pass takes for the derivative of a staircase."""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes
from fewbits.quantizers.settings import Settings


@runtime_checkable
class Estimator(Protocol):
    """Joins a weight and its codes: their value goes forward, a gradient for the weight comes back."""

    def __call__(self, weight: Tensor, codes: Codes) -> Tensor:
        """Return ``codes.decode()`` with a gradient to ``weight``, and to the tables of the codes if they have one."""


class _Passed(torch.autograd.Function):
    """Forward the quantized value bit for bit; backward the gradient times ``slope`` (None is all ones)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantized: Tensor, slope: Tensor | None) -> Tensor:
        ctx.slope = slope  # not saved for backward: a value may be used by several graphs, each with its own backward
        return quantized.view_as(quantized)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (gradient,) = gradients
        to_tables = gradient if ctx.needs_input_grad[1] else None
        return gradient if ctx.slope is None else gradient * ctx.slope, to_tables, None


def passed(weight: Tensor, codes: Codes, slope: Tensor | None = None) -> Tensor:
    """Return ``codes.decode()``; its gradient passes to ``weight`` times ``slope``, of the shape of the weight."""
    return _Passed.apply(weight, codes.decode(), slope)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class StraightThrough(Settings):
    """∂q/∂w = 1 everywhere (Bengio et al. 2013; Courbariaux et al. 2015)."""

    def __call__(self, weight: Tensor, codes: Codes) -> Tensor:
        """Return the value; its gradient passes to ``weight`` unchanged."""
        return passed(weight, codes)


@dataclass(frozen=True)
class ClippedStraightThrough(Settings):
    """∂q/∂w = 1 where |w| ≤ limit, else 0, so that a weight far out stops drifting (Hubara et al. 2016)."""

    limit: float = 1.0

    def __call__(self, weight: Tensor, codes: Codes) -> Tensor:
        """Return the value; its gradient passes to ``weight`` where |weight| ≤ limit."""
        return passed(weight, codes, weight.detach().abs() <= self.limit)


MOST_LEVELS = 256  #: of a group, for a soft staircase


@dataclass(frozen=True)
class SoftStaircase(Settings):
    """∂q/∂w of a smooth staircase: more than 1 near the middle m of two levels a < b, less near the levels.

    With u = (w − m) / (b − a), from −1/2 to 1/2 between the levels, the slope is
    k sech²(k u) / (2 tanh(k / 2)), the derivative of the tanh of Gong et al. (2019): its mean over a step is 1,
    whatever the sharpness k, so it climbs from level to level as the staircase does. k → 0 is straight through, k → ∞
    the staircase itself. Raising k during training anneals one into the other, see ``fewbits.training.Annealing``.
    Beyond the outermost levels u goes on, and the slope falls to 0.

    >>> from fewbits.quantizers import Given, Uniform
    >>> w = torch.tensor([0.5, 0.0], requires_grad=True)                           # between two levels, and on one
    >>> Uniform(2, range=Given(-1, 1), estimator=SoftStaircase(4.0))(w).sum().backward()
    >>> w.grad
    tensor([2.0746, 0.1466])

    Raises:
        FewbitsError: If the sharpness is not positive and finite, or a group has more than 256 levels.
    """

    sharpness: float

    def __post_init__(self) -> None:
        """Refuse what is no slope."""
        super().__post_init__()
        if not 0 < self.sharpness < math.inf:
            raise FewbitsError(f"SoftStaircase({self.sharpness!r}): the sharpness is a positive, finite number.")

    def __call__(self, weight: Tensor, codes: Codes) -> Tensor:
        """Return the value; its gradient passes to ``weight`` times the slope."""
        if codes.grid.points > MOST_LEVELS:
            raise FewbitsError(f"a soft staircase has at most {MOST_LEVELS} levels, not {codes.grid.points}.")
        if not weight.numel():
            return passed(weight, codes)
        wide = torch.promote_types(weight.dtype, torch.float32)  # the sum of two levels may be beyond float16
        rows, levels = weight.detach().reshape(codes.groups, -1).to(wide).contiguous(), codes.levels().to(wide)
        upper = torch.searchsorted(levels, rows).clamp(1, levels.shape[1] - 1)
        low, high = levels.gather(1, upper - 1), levels.gather(1, upper)
        step = high - low
        place = torch.where(step > 0, (rows - (low + high) / 2) / step, torch.zeros_like(rows))
        slope = torch.cosh((self.sharpness * place).clamp(-40, 40)).pow(-2) * self._steepest
        slope = torch.where(step > 0, slope, torch.ones_like(rows))
        return passed(weight, codes, slope.to(weight.dtype).view_as(weight))

    @property
    def _steepest(self) -> float:
        return self.sharpness / (2 * math.tanh(self.sharpness / 2))
