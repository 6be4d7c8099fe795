"""Uniform (linear) quantisation: equal steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid
from fewbits.formats.packing import check_bits
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.quantizer import Quantizer


@dataclass(frozen=True)
class Uniform(Quantizer):
    """2^bits equal steps over the range of a group (the seminar's linear quantisation; Jacob et al. 2018).

    Symmetric: s = max |w| / (2^(bits−1) − 1), q = s · clamp(round(w / s), ±(2^(bits−1) − 1)); the zero point is 0 and
    the most negative code is not used. Affine: s = (max − min) / (2^bits − 1) over the range widened to hold 0,
    z = round(−2^(bits−1) − min / s), q = s · (clamp(round(w / s) + z) − z), so that 0 is exact. Rounding is to
    nearest, ties to even. A group of zeros has s = 1.

    >>> codes = Uniform(3).encode(torch.tensor([-0.6, 0.1, 0.9]))          # s = 0.9 / 3
    >>> codes.integers.tolist(), round(codes.tables["scale"].item(), 4)
    ([-2, 0, 3], 0.3)
    >>> codes = Uniform(2, symmetric=False).encode(torch.tensor([0.0, 1.0, 3.0]))
    >>> codes.integers.tolist(), codes.tables["zero_point"].tolist(), codes.decode().tolist()
    ([-2, -1, 1], [-2], [0.0, 1.0, 3.0])

    Raises:
        FewbitsError: If bits is not a whole number from 1 to 16, or 1 on a symmetric grid, which would hold only 0.
    """

    bits: int
    granularity: Granularity = PerTensor()
    symmetric: bool = True
    estimator: Estimator = StraightThrough()

    def __post_init__(self) -> None:
        """Refuse widths that have no grid."""
        if check_bits(self.bits) == 1 and self.symmetric:
            raise FewbitsError("a symmetric 1-bit grid holds only 0; use Binary() or Uniform(1, symmetric=False).")

    @property
    def _grid(self) -> IntegerGrid:
        half = 2 ** (self.bits - 1)
        return IntegerGrid(-half + self.symmetric, half - 1)

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        grid = self._grid
        if rows.numel():
            low, high = rows.aminmax(dim=1)
        else:
            low = high = rows.new_zeros(len(rows))
        if self.symmetric:
            scale = _nonzero(torch.maximum(high, -low) / grid.high)
            tables = {"scale": scale}
            levels = torch.round(rows / scale[:, None])
        else:
            low, high = low.clamp_max(0), high.clamp_min(0)
            scale = _nonzero((high - low) / (grid.high - grid.low))
            zero_point = torch.round(grid.low - low / scale).clamp(grid.low, grid.high)
            tables = {"scale": scale, "zero_point": zero_point.to(grid.dtype)}
            levels = torch.round(rows / scale[:, None]) + zero_point[:, None]
        integers = levels.clamp_(grid.low, grid.high).to(grid.dtype)
        return Codes(integers.reshape(shape), grid, tables, len(rows), dtype=rows.dtype)


def _nonzero(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))
