"""Uniform levels without a zero, and the same levels over weights made equally frequent."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewbits.formats.codes import Codes, IntegerGrid
from fewbits.formats.packing import check_bits
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.ranges import LeastError, MinMax, Range
from fewbits.quantizers.sorting import ascending


@dataclass(frozen=True)
class MidRise(Quantizer):
    """2^bits values in equal steps from −r to r, both included, and none of them 0 (Hubara et al. 2018).

    q = s · (2 c − (2^bits − 1)) with s = r / (2^bits − 1) and c = clamp(round((w / s + 2^bits − 1) / 2)), the number of
    the nearest level; ties to even c. The integers are odd. r is the larger of −low and high of the ``range``, by
    default max |w|. This is "uniform" in the tables of Xu et al. (2018). 1 bit is −r and r. For r = 0, s = 0.

    >>> codes = MidRise(2).encode(torch.tensor([-0.9, 0.1, 0.5]))                   # levels ±0.3 and ±0.9
    >>> codes.integers.tolist(), round(codes.tables["scale"].item(), 4)
    ([-3, 1, 1], 0.3)

    Raises:
        FewbitsError: If bits is not a whole number from 1 to 16.
    """

    bits: int
    granularity: Granularity = PerTensor()
    range: Range = MinMax()
    estimator: Estimator = StraightThrough()

    def __post_init__(self) -> None:
        """Refuse widths that have no grid."""
        super().__post_init__()
        check_bits(self.bits)

    @property
    def symmetric(self) -> bool:
        """Always: both ends have the same size."""
        return True

    @property
    def minimises_error(self) -> bool:
        """Whether the range is searched for the least error."""
        return isinstance(self.range, LeastError)

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        if rows.numel():
            low, high = self.range.ends(rows, self, importance)
        else:
            low = high = rows.new_zeros(len(rows))
        codes = self._codes(rows, low, high)
        return replace(codes, integers=codes.integers.reshape(shape))

    def between(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the values of ``rows`` (g, n) on the levels from ``low`` to ``high``, (g,) each."""
        return self._codes(rows, low, high).decode()

    def _codes(self, rows: Tensor, low: Tensor, high: Tensor) -> Codes:
        last = 2**self.bits - 1
        grid = IntegerGrid(-last, last, 2)
        scale = torch.maximum(high, -low) / last
        spare = max(0, math.ceil((last - torch.finfo(rows.dtype).max) / 2))  # float16 does not hold 65,535
        integers = (2 * self._numbers(rows, scale).clamp_(spare, last - spare) - last).to(grid.dtype)
        return Codes(integers, grid, {"scale": scale}, len(rows), dtype=rows.dtype)

    def _numbers(self, rows: Tensor, scale: Tensor) -> Tensor:
        """Return the number of the level of each weight, before it is clamped."""
        wide = torch.promote_types(rows.dtype, torch.float32)  # half precision has no room for the number of a level
        safe = torch.where(scale > 0, scale, torch.ones_like(scale)).to(wide)
        return (rows.to(wide) / safe[:, None]).add_(2**self.bits - 1).div_(2).round_()


@dataclass(frozen=True)
class Balanced(MidRise):
    """The levels of :class:`MidRise`, each for an equal share of the weights (Zhou et al. 2017).

    c = floor(rank · 2^bits / n) for the weight of rank 0 … n − 1 in ascending order: the weights are equalised first.
    Of equal weights all take the lowest rank. Every level is used equally, and the error is large: the levels lie where
    a uniform distribution has its quantiles, not where the weights are.

    >>> Balanced(1).encode(torch.tensor([0.1, 0.2, 0.3, 4.0])).decode()
    tensor([-4., -4.,  4.,  4.])
    """

    def _numbers(self, rows: Tensor, scale: Tensor) -> Tensor:
        number, points = rows.shape[1], 2**self.bits
        if not number:
            return rows
        last = (
            torch.arange(1, points, device=rows.device)
            .mul_(number)
            .add_(points - 1)
            .div_(points, rounding_mode="floor")
        )
        boundaries = ascending(rows)[:, last - 1]  # the largest weight of each share
        return torch.searchsorted(boundaries, rows, out_int32=True)
